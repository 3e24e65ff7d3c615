import NIOConcurrencyHelpers
import NIOCore
import NIOEmbedded
import NIOWireGuard
import Testing

@Suite struct BoundedMailboxTests {
    @Test("so many messages wait and no more; the loop takes all of them in one turn, in order, and then there is room again")
    func bound() throws {
        let loop = EmbeddedEventLoop()
        let mailbox = BoundedMailbox<Int>(into: loop, capacity: 3)
        let delivered = NIOLockedValueBox<[[Int]]>([])
        func post(_ number: Int) -> Bool { mailbox.post(number) { batch in delivered.withLockedValue { $0.append(batch) } } }
        for round in 0..<2 {
            #expect((0..<5).map { post(round * 10 + $0) } == [true, true, true, false, false])
            #expect(delivered.withLockedValue { $0.count } == round)
            loop.run()
        }
        #expect(delivered.withLockedValue { $0 } == [[0, 1, 2], [10, 11, 12]])
        #expect(post(20))
        loop.run()
        #expect(delivered.withLockedValue { $0.last } == [20])
    }
}
