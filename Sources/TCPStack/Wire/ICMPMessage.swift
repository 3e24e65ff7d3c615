import Inet

/// An ICMP or ICMPv6 message, as far as we act on it.
///
/// ```
///  0 Type   1 Code   2 Checksum
///  4 rest of header: identifier and sequence (echo), MTU (packet too big)
///  8 echo data, or the IP header and the first bytes of the packet in error
/// ```
/// Source: RFC 792, RFC 1191 §4, RFC 4443 §2 to §4.
package enum ICMPMessage: Equatable, Sendable {
    case echoRequest
    /// An error; the packet that caused it begins at byte 8.
    case error(TransportError)
    /// Anything else, malformed ones included.
    case other

    /// What an error means to a connection.
    package enum TransportError: Equatable, Sendable {
        /// Port or protocol unreachable, or prohibited.
        case unreachable
        /// A route may come back.
        case soft
        case packetTooBig(mtu: Int)
    }

    package init(parsing message: RawSpan, family: IPAddress.Family) {
        guard message.byteCount >= Self.headerLength else {
            self = .other
            return
        }
        let (type, code) = (message.byte(at: 0), message.byte(at: 1))
        switch (family, type) {
        case (.v4, 8) where code == 0, (.v6, 128) where code == 0: self = .echoRequest
        case (.v4, 3) where code == 4: self = .error(.packetTooBig(mtu: Int(message.bigEndian16(at: 6))))
        case (.v4, 3): self = .error([2, 3, 9, 10, 13].contains(code) ? .unreachable : .soft)
        case (.v4, 11), (.v4, 12): self = .error(.soft)
        case (.v6, 2): self = .error(.packetTooBig(mtu: Int(clamping: message.bigEndian32(at: 4))))
        case (.v6, 1): self = .error(code == 1 || code == 4 ? .unreachable : .soft)
        case (.v6, 3), (.v6, 4): self = .error(.soft)
        default: self = .other
        }
    }

    /// The connection and the sequence number that a quoted packet names. `packet` begins with the quoted IP header and may
    /// be cut off behind the first eight bytes of TCP.
    package static func quotedSegment(in packet: RawSpan) -> (local: SocketEndpoint, remote: SocketEndpoint, sequence: SequenceNumber)? {
        guard let quoted = quoted(TCPHeader.protocolNumber, in: packet) else { return nil }
        return (quoted.local, quoted.remote, SequenceNumber(packet.bigEndian32(at: quoted.offset + 4)))
    }

    /// Both ends of the UDP datagram that `packet` quotes.
    package static func quotedDatagram(in packet: RawSpan) -> (local: SocketEndpoint, remote: SocketEndpoint)? {
        quoted(UDPHeader.protocolNumber, in: packet).map { ($0.local, $0.remote) }
    }

    /// The ends, and where the eight bytes of the upper header begin.
    private static func quoted(
        _ protocolNumber: UInt8, in packet: RawSpan
    ) -> (local: SocketEndpoint, remote: SocketEndpoint, offset: Int)? {
        guard packet.byteCount >= 1 else { return nil }
        let family: IPAddress.Family
        let offset: Int
        let (source, destination): (IPAddress, IPAddress)
        switch packet.byte(at: 0) >> 4 {
        case 4:
            family = .v4
            guard packet.byteCount >= IPHeader.minimumIPv4Length, packet.byte(at: 9) == protocolNumber else { return nil }
            offset = Int(packet.byte(at: 0) & 0x0F) * 4
            // Only the first fragment holds the upper header.
            guard offset >= IPHeader.minimumIPv4Length, packet.bigEndian16(at: 6) & 0x1FFF == 0 else { return nil }
            (source, destination) = (IPAddress(family, in: packet, at: 12), IPAddress(family, in: packet, at: 16))
        case 6:
            family = .v6
            guard packet.byteCount >= IPHeader.ipv6Length, packet.byte(at: 6) == protocolNumber else { return nil }
            offset = IPHeader.ipv6Length
            (source, destination) = (IPAddress(family, in: packet, at: 8), IPAddress(family, in: packet, at: 24))
        default: return nil
        }
        guard packet.byteCount >= offset + 8 else { return nil }
        return (
            SocketEndpoint(source, port: packet.bigEndian16(at: offset)),
            SocketEndpoint(destination, port: packet.bigEndian16(at: offset + 2)), offset
        )
    }

    /// Whether `payload`, which follows `header`, is an ICMP error or redirect. What is too short to tell counts as one.
    package static func isError(_ payload: RawSpan, header: IPHeader) -> Bool {
        switch header.upperProtocol {
        case .icmp:
            guard payload.byteCount >= 1 else { return true }
            return [3, 4, 5, 11, 12].contains(payload.byte(at: 0))
        case .icmpV6:
            guard payload.byteCount >= 1 else { return true }
            return payload.byte(at: 0) < 128 || payload.byte(at: 0) == 137
        default: return false
        }
    }

    package static let headerLength = 8
    /// 1 and 58: protocol numbers of ICMP and ICMPv6.
    package static func ipProtocol(_ family: IPAddress.Family) -> IPProtocol { family == .v4 ? .icmp : .icmpV6 }
}
