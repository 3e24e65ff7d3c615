import Inet
import Noise
import TestSupport
import Testing

@Suite struct TAI64NTests {
    @Test("nanoseconds are rounded down to whole 2^24")
    func rounding() {
        #expect([UInt8](TAI64N(WallTime(seconds: 0, nanoseconds: (1 << 24) - 1))).hex == "400000000000000a00000000")
        #expect([UInt8](TAI64N(WallTime(seconds: 0, nanoseconds: 1 << 24))).hex == "400000000000000a01000000")
        #expect([UInt8](TAI64N(WallTime(seconds: 1_700_000_000, nanoseconds: 999_999_999))).hex == "400000006553f10a3b000000")
    }

    @Test("labels are ordered as their bytes are")
    func order() throws {
        let labels = try ["000000000000000000000000", "400000000000000a00000000", "400000000000000a01000000", "400000000000000b00000000"]
            .map { try TAI64N(#require([UInt8](hex: $0))) }
        for (index, label) in labels.enumerated() {
            for (other, later) in labels.enumerated() { #expect((label < later) == (index < other)) }
        }
    }

    @Test("the next label is one unit later, carries into the seconds, and is itself a rounded one")
    func next() {
        let label = TAI64N(WallTime(seconds: 5, nanoseconds: 0))
        #expect(label.next() == TAI64N(WallTime(seconds: 5, nanoseconds: 1 << 24)))
        #expect(TAI64N(WallTime(seconds: 5, nanoseconds: 999_999_999)).next() == TAI64N(WallTime(seconds: 6)))
        var walk = label
        for _ in 0..<200 {
            let next = walk.next()
            #expect(next > walk && next.nanoseconds < 1_000_000_000 && next.nanoseconds.isMultiple(of: 1 << 24))
            walk = next
        }
    }

    @Test("any twelve bytes of a remote are taken without a trap")
    func anything() throws {
        let last = try TAI64N([UInt8](repeating: 0xFF, count: 12))
        #expect(last.next() == last)
        #expect(last.wallTime.nanoseconds == 999_999_999)
        let first = try TAI64N([UInt8](repeating: 0, count: 12))
        #expect(first.wallTime == WallTime(seconds: 0) && first < first.next())
        #expect(TAI64N(WallTime(seconds: .max, nanoseconds: .max)).next() > first)
        for count in 0..<12 { #expect(TAI64N([UInt8](repeating: 0, count: count).span.bytes) == nil) }
        #expect(TAI64N([UInt8](repeating: 0, count: 12).span.bytes, at: 1) == nil)
        #expect(TAI64N([UInt8](repeating: 0, count: 12).span.bytes, at: -1) == nil)
    }

    @Test("a label gives its time back")
    func wallTime() {
        let time = WallTime(seconds: 1_700_000_000, nanoseconds: 3 << 24)
        #expect(TAI64N(time).wallTime == time)
    }
}
