import Inet

/// The control bits of a segment.
package struct TCPFlags: OptionSet, Sendable, Hashable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let fin = TCPFlags(rawValue: 0x01)
    package static let syn = TCPFlags(rawValue: 0x02)
    package static let rst = TCPFlags(rawValue: 0x04)
    package static let psh = TCPFlags(rawValue: 0x08)
    package static let ack = TCPFlags(rawValue: 0x10)
    package static let urg = TCPFlags(rawValue: 0x20)
    package static let ece = TCPFlags(rawValue: 0x40)
    package static let cwr = TCPFlags(rawValue: 0x80)
}

/// The fixed part of a TCP header.
///
/// ```
///   0 Source Port            2 Destination Port
///   4 Sequence Number
///   8 Acknowledgment Number
///  12 Offset|Rsrvd  13 Flags 14 Window
///  16 Checksum              18 Urgent Pointer
///  20 Options ...
/// ```
/// Source: RFC 9293 §3.1.
package struct TCPHeader: Equatable, Sendable {
    package var sourcePort: UInt16
    package var destinationPort: UInt16
    package var sequence: SequenceNumber
    package var acknowledgment: SequenceNumber
    package var flags: TCPFlags
    /// The Window field as it stands on the wire, unscaled.
    package var window: UInt16
    /// Counted from `sequence`; means something with URG only.
    package var urgentPointer: UInt16 = 0
    /// Bytes of header and options: 20 to 60.
    package var headerLength: Int

    package init(
        sourcePort: UInt16, destinationPort: UInt16, sequence: SequenceNumber, acknowledgment: SequenceNumber, flags: TCPFlags,
        window: UInt16, urgentPointer: UInt16 = 0, headerLength: Int = TCPHeader.minimumLength
    ) {
        self.urgentPointer = urgentPointer
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
        self.sequence = sequence
        self.acknowledgment = acknowledgment
        self.flags = flags
        self.window = window
        self.headerLength = headerLength
    }

    /// Parses the segment that fills `segment`. The checksum is verified by the caller, who knows the addresses.
    /// - Returns: `nil` if the header does not lie within the segment.
    package init?(parsing segment: RawSpan) {
        guard segment.byteCount >= Self.minimumLength else { return nil }
        let length = Int(segment.byte(at: 12) >> 4) * 4
        guard length >= Self.minimumLength, length <= segment.byteCount else { return nil }
        sourcePort = segment.bigEndian16(at: 0)
        destinationPort = segment.bigEndian16(at: 2)
        sequence = SequenceNumber(segment.bigEndian32(at: 4))
        acknowledgment = SequenceNumber(segment.bigEndian32(at: 8))
        flags = TCPFlags(rawValue: segment.byte(at: 13))
        window = segment.bigEndian16(at: 14)
        urgentPointer = segment.bigEndian16(at: 18)
        headerLength = length
    }

    /// Writes the 20 fixed bytes with an empty checksum.
    package func write(into packet: inout MutableRawSpan, at offset: Int) {
        packet.storeBigEndian(sourcePort, at: offset)
        packet.storeBigEndian(destinationPort, at: offset &+ 2)
        packet.storeBigEndian(sequence.rawValue, at: offset &+ 4)
        packet.storeBigEndian(acknowledgment.rawValue, at: offset &+ 8)
        packet.store(UInt8(truncatingIfNeeded: headerLength / 4) << 4, at: offset &+ 12)
        packet.store(flags.rawValue, at: offset &+ 13)
        packet.storeBigEndian(window, at: offset &+ 14)
        packet.storeBigEndian(UInt32(urgentPointer), at: offset &+ 16)
    }

    /// 20: a header without options.
    package static let minimumLength = 20
    /// 6: the protocol number in the pseudo-header.
    package static let protocolNumber: UInt8 = 6
}

/// Lays the headers around a payload that already stands in its place.
package enum SegmentWriter {
    /// Bytes of the IP header that we write for `family`.
    @inline(__always) package static func ipHeaderLength(_ family: IPAddress.Family) -> Int {
        family == .v4 ? IPHeader.minimumIPv4Length : IPHeader.ipv6Length
    }

    /// Writes the IP header, the TCP header with `options`, and the checksum.
    /// - Parameters:
    ///   - offset: where the packet starts; the payload lies at `offset` + IP header + 20 + `options.encodedLength`.
    ///   - payloadLength: bytes of the payload.
    ///   - hopLimit: TTL or Hop Limit.
    /// - Returns: the range of the whole packet.
    package static func finish(
        into packet: inout MutableRawSpan, at offset: Int, local: IPAddress, remote: IPAddress, header: TCPHeader, options: TCPOptions,
        payloadLength: Int, hopLimit: UInt8 = 64, ecn: ECN = .notECT
    ) -> Range<Int> {
        var header = header
        header.headerLength = TCPHeader.minimumLength &+ options.encodedLength
        let segmentLength = header.headerLength &+ payloadLength
        IPHeader.write(
            into: &packet, at: offset, source: local, destination: remote, upperProtocol: .tcp, payloadLength: segmentLength,
            hopLimit: hopLimit, trafficClass: ecn.rawValue)
        let start = offset &+ ipHeaderLength(local.family)
        header.write(into: &packet, at: start)
        options.write(into: &packet, at: start &+ TCPHeader.minimumLength)
        var checksum = InternetChecksum()
        checksum.addPseudoHeader(
            source: local, destination: remote, length: segmentLength, protocolNumber: TCPHeader.protocolNumber)
        checksum.add(packet.bytes.extracting(start..<(start &+ segmentLength)))
        packet.storeBigEndian(checksum.value, at: start &+ 16)
        return offset..<(start &+ segmentLength)
    }
}
