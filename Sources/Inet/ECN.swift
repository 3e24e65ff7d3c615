/// The congestion notification of an IP header: the lower two bits of its traffic class.
///
/// Source: RFC 3168 §5.
public enum ECN: UInt8, Hashable, Sendable, CaseIterable {
    /// The transport does not understand it.
    case notECT = 0
    case ect1 = 1
    case ect0 = 2
    /// A router on the way was congested.
    case ce = 3

    /// The lower two bits of a traffic class or TOS byte.
    @inlinable public init(trafficClass: UInt8) {
        switch trafficClass & 3 {
        case 0: self = .notECT
        case 1: self = .ect1
        case 2: self = .ect0
        default: self = .ce
        }
    }

    /// What an inner packet carries on when it leaves the tunnel; `nil` if it has to be dropped, because its transport would not
    /// see that there was congestion.
    ///
    /// Source: RFC 6040 §4.2, figure 4.
    @inlinable public static func decapsulated(inner: ECN, outer: ECN) -> ECN? {
        switch (inner, outer) {
        case (.notECT, .ce): nil
        case (.notECT, _): .notECT
        case (.ce, _), (_, .ce): .ce
        case (.ect0, .ect1), (.ect1, _): .ect1
        case (.ect0, .notECT), (.ect0, .ect0): .ect0
        }
    }

    /// That of the IPv4 or IPv6 packet that starts at byte 0 and has at least a whole header.
    @inlinable public init(of packet: RawSpan) {
        self.init(trafficClass: packet.byte(at: 0) >> 4 == 4 ? packet.byte(at: 1) : packet.byte(at: 1) >> 4)
    }

    /// Writes this into the IPv4 or IPv6 header at `offset`, which must be whole; an IPv4 header's checksum moves along.
    ///
    /// Source: RFC 1624 §3 eqn. 3.
    @inlinable public func write(into packet: inout MutableRawSpan, at offset: Int) {
        let old = packet.bytes.bigEndian16(at: offset)
        guard old >> 12 == 4 else { return packet.storeBigEndian(old & ~0x30 | UInt16(rawValue) << 4, at: offset) }
        let new = old & ~3 | UInt16(rawValue)
        packet.storeBigEndian(new, at: offset)
        var sum = UInt32(~packet.bytes.bigEndian16(at: offset + 10)) + UInt32(~old) + UInt32(new)
        sum = (sum & 0xFFFF) + (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16)
        packet.storeBigEndian(~UInt16(truncatingIfNeeded: sum), at: offset + 10)
    }
}
