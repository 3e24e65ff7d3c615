import Inet

/// Source ports for `connect`: a random start, then upwards to the first that is free towards this remote end.
/// Source: RFC 6056 §3.3.1.
package struct EphemeralPorts: Sendable {
    private let random: RandomSource
    private var offset = 0
    private var start = 0

    package init(random: RandomSource) { self.random = random }

    /// Begins a search.
    package mutating func restart() {
        start = Int(random.next(below: UInt64(Self.range.count)))
        offset = 0
    }

    /// The next port to try; `nil` when all have been tried.
    package mutating func next() -> UInt16? {
        guard offset < Self.range.count else { return nil }
        defer { offset += 1 }
        return Self.range.lowerBound + UInt16((start + offset) % Self.range.count)
    }

    /// RFC 6056 §3.2 asks for as many as possible; below 1024 and the usual service ports stay free.
    package static let range: ClosedRange<UInt16> = 16_384...65_535
}
