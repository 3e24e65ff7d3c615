import Inet

/// A UDP header.
///
/// ```
///   0 Source Port            2 Destination Port
///   4 Length                 6 Checksum
///   8 data ...
/// ```
/// Source: RFC 768, RFC 1122 §4.1, RFC 8200 §8.1.
package struct UDPHeader: Equatable, Sendable {
    /// 0: the sender wants no answer.
    package var sourcePort: UInt16
    package var destinationPort: UInt16
    /// Bytes of header and data.
    package var length: Int
    /// 0 over IPv4: the sender has computed none.
    package var checksum: UInt16

    /// Parses the header at the start of an IP payload. What lies behind `length` is not of the datagram.
    /// - Returns: `nil` if the datagram does not lie within `payload`, or is shorter than its header.
    package init?(parsing payload: RawSpan) {
        guard payload.byteCount >= Self.size else { return nil }
        let length = Int(payload.bigEndian16(at: 4))
        guard length >= Self.size, length <= payload.byteCount else { return nil }
        sourcePort = payload.bigEndian16(at: 0)
        destinationPort = payload.bigEndian16(at: 2)
        self.length = length
        checksum = payload.bigEndian16(at: 6)
    }

    /// Whether the checksum of `datagram`, which is `length` bytes long, is right. Over IPv6 there has to be one.
    package func hasRightChecksum(_ datagram: RawSpan, source: IPAddress, destination: IPAddress) -> Bool {
        if checksum == 0 { return source.family == .v4 }
        var sum = InternetChecksum()
        sum.addPseudoHeader(source: source, destination: destination, length: length, protocolNumber: Self.protocolNumber)
        sum.add(datagram)
        return sum.value == 0
    }

    /// Writes the IP header, the UDP header and the checksum around a payload that lies at `offset` + IP header + 8.
    /// - Returns: the range of the whole packet.
    package static func finish(
        into packet: inout MutableRawSpan, at offset: Int, source: SocketEndpoint, destination: SocketEndpoint, payloadLength: Int,
        hopLimit: UInt8 = 64, trafficClass: UInt8 = 0
    ) -> Range<Int> {
        let length = size &+ payloadLength
        IPHeader.write(
            into: &packet, at: offset, source: source.address, destination: destination.address, upperProtocol: .udp,
            payloadLength: length, hopLimit: hopLimit, trafficClass: trafficClass)
        let start = offset &+ SegmentWriter.ipHeaderLength(source.address.family)
        packet.storeBigEndian(source.port, at: start)
        packet.storeBigEndian(destination.port, at: start &+ 2)
        packet.storeBigEndian(UInt16(length), at: start &+ 4)
        packet.storeBigEndian(UInt16(0), at: start &+ 6)
        var sum = InternetChecksum()
        sum.addPseudoHeader(source: source.address, destination: destination.address, length: length, protocolNumber: protocolNumber)
        sum.add(packet.bytes.extracting(start..<(start &+ length)))
        // Zero would say that there is none; the other zero of ones' complement says the same number.
        packet.storeBigEndian(sum.value == 0 ? 0xFFFF : sum.value, at: start &+ 6)
        return offset..<(start &+ length)
    }

    /// 8 bytes.
    package static let size = 8
    /// 17: the protocol number in the pseudo-header.
    package static let protocolNumber: UInt8 = 17
}
