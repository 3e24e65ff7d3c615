import Inet
import TCPStack
import Testing

@Suite struct ReassemblerTests {
    @Test("ranges that touch or overlap merge") func merging() {
        var reassembler = Reassembler()
        for bounds in [(10, 20), (30, 40), (20, 30)] { _ = reassembler.insert(range(bounds.0, bounds.1)) }
        #expect(reassembler.all == [range(10, 40)])
        _ = reassembler.insert(range(5, 50))
        #expect(reassembler.all == [range(5, 50)])
    }

    @Test("gaps are found in order") func gaps() {
        var reassembler = Reassembler()
        _ = reassembler.insert(range(10, 20))
        _ = reassembler.insert(range(30, 40))
        #expect(reassembler.firstGap(in: range(0, 50)) == range(0, 10))
        #expect(reassembler.firstGap(in: range(10, 50)) == range(20, 30))
        #expect(reassembler.firstGap(in: range(30, 50)) == range(40, 50))
        #expect(reassembler.firstGap(in: range(32, 38)) == nil)
    }

    @Test("one range too many is refused, a merge never") func bound() {
        var reassembler = Reassembler()
        for index in 0..<Reassembler.maximumRanges { _ = reassembler.insert(range(index * 10, index * 10 + 5)) }
        #expect(reassembler.count == Reassembler.maximumRanges)
        var isTaken = reassembler.insert(range(100_000, 100_001))
        #expect(!isTaken)
        isTaken = reassembler.insert(range(5, 10))
        #expect(isTaken)
        #expect(reassembler.count == Reassembler.maximumRanges - 1)
    }

    @Test("it agrees with a bitmap for random ranges across the wrap") func property() {
        let seed = UInt64.random(in: 0...UInt64.max)
        let random = RandomSource.seeded(seed)
        for _ in 0..<200 {
            let base = SequenceNumber(UInt32.max - 300)
            var reassembler = Reassembler()
            var bitmap = [Bool](repeating: false, count: 700)
            for _ in 0..<60 {
                let start = 1 + Int(random.next(below: 600))
                let end = start + 1 + Int(random.next(below: 40))
                let wanted = (start..<end).contains { !bitmap[$0] }
                #expect((reassembler.firstGap(in: SequenceRange(base + start, base + end)) != nil) == wanted, "seed \(seed)")
                _ = reassembler.insert(SequenceRange(base + start, base + end))
                for index in start..<end { bitmap[index] = true }
            }
            #expect(reassembler.byteCount == bitmap.filter { $0 }.count, "seed \(seed)")
            #expect(zip(reassembler.all, reassembler.all.dropFirst()).allSatisfy { $0.end.isBefore($1.start) }, "seed \(seed)")
            bitmap[0] = true
            _ = reassembler.insert(SequenceRange(base, base + 1))
            let next = reassembler.advance(from: base)
            #expect(base.distance(to: next) == bitmap.firstIndex(of: false), "seed \(seed)")
        }
    }

    private func range(_ start: Int, _ end: Int) -> SequenceRange {
        SequenceRange(SequenceNumber(UInt32(start)), SequenceNumber(UInt32(end)))
    }
}
