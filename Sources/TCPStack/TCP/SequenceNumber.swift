/// A 32-bit sequence number. Comparison is modulo 2^32, so there is no order: see `isBefore`.
/// Source: RFC 9293 §3.4.
package struct SequenceNumber: Hashable, Sendable {
    package var rawValue: UInt32

    @inline(__always) package init(_ rawValue: UInt32) { self.rawValue = rawValue }

    @inline(__always) package static func + (number: SequenceNumber, count: Int) -> SequenceNumber {
        SequenceNumber(number.rawValue &+ UInt32(truncatingIfNeeded: count))
    }

    @inline(__always) package static func - (number: SequenceNumber, count: Int) -> SequenceNumber {
        SequenceNumber(number.rawValue &- UInt32(truncatingIfNeeded: count))
    }

    @inline(__always) package static func += (number: inout SequenceNumber, count: Int) { number = number + count }

    /// Bytes from here to `other`; negative if `other` lies behind. -2^31 to 2^31 - 1.
    @inline(__always) package func distance(to other: SequenceNumber) -> Int {
        Int(Int32(bitPattern: other.rawValue &- rawValue))
    }

    @inline(__always) package func isBefore(_ other: SequenceNumber) -> Bool { distance(to: other) > 0 }

    @inline(__always) package func isAtOrBefore(_ other: SequenceNumber) -> Bool { distance(to: other) >= 0 }

    /// Whether the number is one of the `count` numbers that begin with `start`.
    @inline(__always) package func lies(from start: SequenceNumber, count: Int) -> Bool {
        Int(rawValue &- start.rawValue) < count
    }

    @inline(__always) package static func earlier(_ left: SequenceNumber, _ right: SequenceNumber) -> SequenceNumber {
        left.isBefore(right) ? left : right
    }

    @inline(__always) package static func later(_ left: SequenceNumber, _ right: SequenceNumber) -> SequenceNumber {
        left.isBefore(right) ? right : left
    }
}

/// The sequence numbers from `start` up to, but not including, `end`.
package struct SequenceRange: Hashable, Sendable {
    package var start: SequenceNumber
    package var end: SequenceNumber

    @inline(__always) package init(_ start: SequenceNumber, _ end: SequenceNumber) {
        self.start = start
        self.end = end
    }

    @inline(__always) package var count: Int { start.distance(to: end) }
    @inline(__always) package var isEmpty: Bool { count <= 0 }

    package func contains(_ number: SequenceNumber) -> Bool { number.lies(from: start, count: max(0, count)) }
}
