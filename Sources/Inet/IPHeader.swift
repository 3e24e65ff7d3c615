/// A protocol number of the IP header's Protocol or Next Header field.
public struct IPProtocol: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let icmp = IPProtocol(rawValue: 1)
    public static let tcp = IPProtocol(rawValue: 6)
    public static let udp = IPProtocol(rawValue: 17)
    public static let icmpV6 = IPProtocol(rawValue: 58)
}

/// What an IPv4 or IPv6 header says, extension headers walked.
///
/// ```
///  IPv4  0 Version|IHL   1 DSCP|ECN   2 Total Length      IPv6  0 Version|Class|Flow Label
///        4 Identification             6 Flags|Offset            4 Payload Length  6 Next Header  7 Hop Limit
///        8 TTL           9 Protocol  10 Header Checksum         8 Source (16)
///       12 Source                                              24 Destination (16)
///       16 Destination
/// ```
/// Source: RFC 791 §3.1, RFC 8200 §3 and §4.
public struct IPHeader: Equatable, Sendable {
    /// Where a fragment lies in its datagram.
    public struct Fragment: Equatable, Sendable {
        public var identification: UInt32
        /// Bytes from the start of the original payload.
        public var offset: Int
        public var hasMore: Bool
    }

    public enum ParseError: Error, Equatable, Sendable {
        /// Shorter than its header or than the length it states.
        case truncated
        case unknownVersion
        /// IHL below 5, or a total length below the header's.
        case badHeaderLength
        case badChecksum
        /// More IPv6 extension headers than we walk, or one that may not stand there.
        case badExtensionHeader
    }

    public var source: IPAddress
    public var destination: IPAddress
    public var upperProtocol: IPProtocol
    /// Bytes from the start of the packet to the upper-layer header.
    public var headerLength: Int
    /// Bytes of the whole packet as the header states; what follows in the buffer is padding.
    public var totalLength: Int
    public var hopLimit: UInt8
    /// DSCP in the upper six bits, ECN in the lower two.
    public var trafficClass: UInt8
    public var fragment: Fragment?

    /// The range of the upper-layer bytes.
    @inlinable public var payload: Range<Int> { headerLength..<totalLength }

    /// Parses and verifies the header of the packet that starts at byte 0.
    public init(parsing packet: RawSpan) throws(ParseError) {
        guard packet.byteCount >= 1 else { throw .truncated }
        switch packet.byte(at: 0) >> 4 {
        case 4: try self.init(parsingIPv4: packet)
        case 6: try self.init(parsingIPv6: packet)
        default: throw .unknownVersion
        }
    }

    private init(parsingIPv4 packet: RawSpan) throws(ParseError) {
        guard packet.byteCount >= Self.minimumIPv4Length else { throw .truncated }
        let headerLength = Int(packet.byte(at: 0) & 0x0F) * 4
        guard headerLength >= Self.minimumIPv4Length else { throw .badHeaderLength }
        let totalLength = Int(packet.bigEndian16(at: 2))
        guard totalLength >= headerLength else { throw .badHeaderLength }
        guard totalLength <= packet.byteCount else { throw .truncated }
        guard InternetChecksum.of(packet.extracting(0..<headerLength)) == 0 else { throw .badChecksum }
        let fragmentField = packet.bigEndian16(at: 6)
        if fragmentField & 0x3FFF != 0 {
            fragment = Fragment(
                identification: UInt32(packet.bigEndian16(at: 4)), offset: Int(fragmentField & 0x1FFF) * 8,
                hasMore: fragmentField & 0x2000 != 0)
        } else {
            fragment = nil
        }
        source = IPAddress(.v4, in: packet, at: 12)
        destination = IPAddress(.v4, in: packet, at: 16)
        upperProtocol = IPProtocol(rawValue: packet.byte(at: 9))
        hopLimit = packet.byte(at: 8)
        trafficClass = packet.byte(at: 1)
        self.headerLength = headerLength
        self.totalLength = totalLength
    }

    private init(parsingIPv6 packet: RawSpan) throws(ParseError) {
        guard packet.byteCount >= Self.ipv6Length else { throw .truncated }
        let totalLength = Self.ipv6Length + Int(packet.bigEndian16(at: 4))
        guard totalLength <= packet.byteCount else { throw .truncated }
        source = IPAddress(.v6, in: packet, at: 8)
        destination = IPAddress(.v6, in: packet, at: 24)
        hopLimit = packet.byte(at: 7)
        trafficClass = UInt8(truncatingIfNeeded: packet.bigEndian16(at: 0) >> 4)
        fragment = nil
        var next = packet.byte(at: 6)
        var offset = Self.ipv6Length
        var walked = 0
        walk: while true {
            switch next {
            case 0 where walked > 0: throw .badExtensionHeader
            case 0, 43, 60:
                guard offset + 8 <= totalLength else { throw .truncated }
                let length = (Int(packet.byte(at: offset + 1)) + 1) * 8
                guard offset + length <= totalLength else { throw .truncated }
                next = packet.byte(at: offset)
                offset += length
            case 44:
                guard offset + 8 <= totalLength else { throw .truncated }
                let field = packet.bigEndian16(at: offset + 2)
                if field & 0xFFF9 != 0 {
                    fragment = Fragment(
                        identification: packet.bigEndian32(at: offset + 4), offset: Int(field & 0xFFF8),
                        hasMore: field & 1 != 0)
                }
                next = packet.byte(at: offset)
                offset += 8
                if fragment != nil { break walk }
            default: break walk
            }
            walked += 1
            guard walked <= Self.maximumExtensionHeaders else { throw .badExtensionHeader }
        }
        upperProtocol = IPProtocol(rawValue: next)
        headerLength = offset
        self.totalLength = totalLength
    }

    /// Only what cryptokey routing needs, without verifying the rest: the stated total length and both addresses.
    /// - Returns: `nil` if the version is unknown or the packet is shorter than its fixed header or stated length.
    @inlinable
    public static func routing(of packet: RawSpan) -> (totalLength: Int, source: IPAddress, destination: IPAddress)? {
        guard packet.byteCount >= minimumIPv4Length else { return nil }
        switch packet.byte(at: 0) >> 4 {
        case 4:
            let length = Int(packet.bigEndian16(at: 2))
            guard length >= minimumIPv4Length, length <= packet.byteCount else { return nil }
            return (length, IPAddress(.v4, in: packet, at: 12), IPAddress(.v4, in: packet, at: 16))
        case 6:
            guard packet.byteCount >= ipv6Length else { return nil }
            let length = ipv6Length + Int(packet.bigEndian16(at: 4))
            guard length <= packet.byteCount else { return nil }
            return (length, IPAddress(.v6, in: packet, at: 8), IPAddress(.v6, in: packet, at: 24))
        default: return nil
        }
    }

    /// Writes a header without options for `payloadLength` upper-layer bytes: 20 bytes (DF set, RFC 6864 atomic) or 40.
    /// Source and destination must be of one family.
    @inlinable
    public static func write(
        into packet: inout MutableRawSpan, at offset: Int = 0, source: IPAddress, destination: IPAddress,
        upperProtocol: IPProtocol, payloadLength: Int, hopLimit: UInt8 = 64, trafficClass: UInt8 = 0
    ) {
        precondition(source.family == destination.family, "mixed address families in one header")
        switch source.family {
        case .v4:
            packet.storeBigEndian(0x4500 | UInt16(trafficClass), at: offset)
            packet.storeBigEndian(UInt16(minimumIPv4Length + payloadLength), at: offset + 2)
            packet.storeBigEndian(UInt32(0x0000_4000), at: offset + 4)
            packet.storeBigEndian(UInt16(hopLimit) << 8 | UInt16(upperProtocol.rawValue), at: offset + 8)
            packet.storeBigEndian(UInt16(0), at: offset + 10)
            source.write(into: &packet, at: offset + 12)
            destination.write(into: &packet, at: offset + 16)
            var checksum = InternetChecksum()
            checksum.add(0x4500 | UInt16(trafficClass))
            checksum.add(UInt16(minimumIPv4Length + payloadLength))
            checksum.add(0x4000)
            checksum.add(UInt16(hopLimit) << 8 | UInt16(upperProtocol.rawValue))
            checksum.add(source)
            checksum.add(destination)
            packet.storeBigEndian(checksum.value, at: offset + 10)
        case .v6:
            packet.storeBigEndian(0x6000_0000 | UInt32(trafficClass) << 20, at: offset)
            packet.storeBigEndian(UInt16(payloadLength), at: offset + 4)
            packet.store(upperProtocol.rawValue, at: offset + 6)
            packet.store(hopLimit, at: offset + 7)
            source.write(into: &packet, at: offset + 8)
            destination.write(into: &packet, at: offset + 24)
        }
    }

    /// 20: an IPv4 header without options.
    public static let minimumIPv4Length = 20
    /// 40: the fixed IPv6 header.
    public static let ipv6Length = 40
    /// How many IPv6 extension headers are walked.
    public static let maximumExtensionHeaders = 8
}
