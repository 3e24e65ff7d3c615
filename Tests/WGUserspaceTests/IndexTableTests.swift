import Inet
import Testing
import WGUserspace

@Suite struct IndexTableTests {
    @Test("indices are unique, are found, and are free again after removal")
    func life() {
        let random = RandomSource.seeded(3)
        var table = IndexTable()
        var drawn: [UInt32: Int] = [:]
        for round in 0..<5000 {
            let index = table.draw(for: round, random: random)
            #expect(drawn[index] == nil)
            drawn[index] = round
            if round % 3 == 0, let victim = drawn.keys.first {
                table.remove(victim)
                drawn[victim] = nil
                #expect(table.peer(of: victim) == nil)
            }
        }
        #expect(table.count == drawn.count)
        for (index, peer) in drawn { #expect(table.peer(of: index) == peer) }
        for index in drawn.keys { table.remove(index) }
        #expect(table.count == 0)
    }

    @Test("a random source that repeats itself does not stop it")
    func brokenRandomness() {
        let random = RandomSource { $0.zero(0..<$0.byteCount) }
        var table = IndexTable()
        #expect(Set((0..<100).map { table.draw(for: $0, random: random) }).count == 100)
        table.remove(50)
        #expect(table.peer(of: 51) == 51)
        #expect(table.peer(of: 50) == nil)
    }

    @Test("removing what is not there does nothing")
    func unknown() {
        var table = IndexTable()
        let index = table.draw(for: 1, random: .seeded(1))
        table.remove(index &+ 1)
        #expect(table.count == 1)
        #expect(table.peer(of: index) == 1)
    }
}
