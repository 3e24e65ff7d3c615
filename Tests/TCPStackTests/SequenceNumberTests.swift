import TCPStack
import Testing

@Suite struct SequenceNumberTests {
    @Test("numbers compare across the wrap") func wrap() {
        let low = SequenceNumber(0xFFFF_FFF0)
        #expect(low.isBefore(low + 32))
        #expect((low + 32).rawValue == 16)
        #expect(low.distance(to: low + 32) == 32)
        #expect((low + 32).distance(to: low) == -32)
        #expect(!low.isBefore(low))
        #expect(low.isAtOrBefore(low))
    }

    @Test("a number lies in a window that wraps") func window() {
        let start = SequenceNumber(0xFFFF_FFFE)
        #expect(SequenceNumber(1).lies(from: start, count: 4))
        #expect(!SequenceNumber(2).lies(from: start, count: 4))
        #expect(!SequenceNumber(0xFFFF_FFFD).lies(from: start, count: 4))
        #expect(!start.lies(from: start, count: 0))
    }
}
