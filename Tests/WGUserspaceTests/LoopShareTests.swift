import Inet
import Noise
import Testing
import WGUserspace

@Suite struct LoopShareTests {
    @Test("the bits that number the loops", arguments: [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (33, 6), (64, 6)])
    func bits(count: Int, bits: Int) {
        #expect(LoopShare(0, of: count).bitCount == bits)
        #expect(LoopShare(count - 1, of: count).indexTag == IndexTag(UInt32(count - 1), bitCount: bits))
    }

    @Test("an index leads back to the loop that drew it; one that no loop could have drawn leads nowhere", arguments: [1, 2, 3, 64])
    func receiverIndex(count: Int) {
        let random = RandomSource.seeded(5)
        for index in 0..<count {
            let share = LoopShare(index, of: count)
            var table = IndexTable(tag: share.indexTag)
            for _ in 0..<20 { #expect(LoopShare(0, of: count).loop(ofReceiverIndex: table.draw(for: 0, random: random)) == index) }
        }
        #expect(LoopShare(0, of: 3).loop(ofReceiverIndex: 0xC000_0000) == nil)
    }

    @Test("each loop gets its part of the keys, also of keys that begin or end alike, and says so whichever loop is asked")
    func keys() {
        for (count, fixed) in [(2, 0..<0), (3, 0..<16), (16, 8..<32), (64, 0..<24)] {
            let random = RandomSource.seeded(7)
            var counts = [Int](repeating: 0, count: count)
            for _ in 0..<count * 200 {
                var bytes = [UInt8](repeating: 0, count: 32)
                bytes.withSpan { random.fill(&$0) }
                for place in fixed { bytes[place] = 0x41 }
                guard let key = PublicKey(bytes.span.bytes) else { return #expect(Bool(false), "32 bytes are a key") }
                let loop = LoopShare(0, of: count).loop(of: key)
                #expect(LoopShare(count - 1, of: count).loop(of: key) == loop)
                counts[loop] += 1
            }
            #expect(counts.allSatisfy { $0 > 120 && $0 < 280 }, "\(counts)")
        }
    }
}
