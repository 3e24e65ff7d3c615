import Inet
import TCPStack

/// Packets that no stack of ours would send: raw options, fragments, ICMP errors.
extension PacketScriptRunner {
    /// An IP packet with one TCP segment, whose options area is given as it stands.
    static func packet(
        from source: IPAddress, to destination: IPAddress, header: TCPHeader, options: [UInt8], text: [UInt8], urgent: UInt16, ecn: UInt8
    ) -> [UInt8] {
        let start = SegmentWriter.ipHeaderLength(source.family)
        var header = header
        header.headerLength = TCPHeader.minimumLength + options.count
        let length = header.headerLength + text.count
        var packet = [UInt8](repeating: 0, count: start) + [UInt8](repeating: 0, count: TCPHeader.minimumLength) + options + text
        var span = packet.mutableSpan
        var bytes = span.mutableBytes
        IPHeader.write(
            into: &bytes, source: source, destination: destination, upperProtocol: .tcp, payloadLength: length, trafficClass: ecn)
        header.write(into: &bytes, at: start)
        bytes.storeBigEndian(urgent, at: start + 18)
        var checksum = InternetChecksum()
        checksum.addPseudoHeader(source: source, destination: destination, length: length, protocolNumber: TCPHeader.protocolNumber)
        checksum.add(bytes.bytes.extracting(start..<(start + length)))
        bytes.storeBigEndian(checksum.value, at: start + 16)
        return packet
    }

    /// The part `range` of a packet's payload as a fragment of it (RFC 791 §3.2, RFC 8200 §4.5).
    static func fragment(_ range: Range<Int>, of packet: [UInt8], identification: UInt32) -> [UInt8] {
        let isIPv4 = packet[0] >> 4 == 4
        let start = isIPv4 ? IPHeader.minimumIPv4Length : IPHeader.ipv6Length
        let hasMore = range.upperBound < packet.count - start
        let part = packet[(start + range.lowerBound)..<(start + range.upperBound)]
        var result = Array(packet[..<start])
        if !isIPv4 {
            result += [packet[6], 0] + Self.bigEndian(UInt16(range.lowerBound) | (hasMore ? 1 : 0)) + Self.bigEndian(identification)
        }
        result += part
        var span = result.mutableSpan
        var bytes = span.mutableBytes
        if isIPv4 {
            bytes.storeBigEndian(UInt16(start + part.count), at: 2)
            bytes.storeBigEndian(UInt16(truncatingIfNeeded: identification), at: 4)
            bytes.storeBigEndian(UInt16(range.lowerBound / 8) | (hasMore ? 0x2000 : 0), at: 6)
            bytes.storeBigEndian(UInt16(0), at: 10)
            bytes.storeBigEndian(InternetChecksum.of(bytes.bytes.extracting(0..<start)), at: 10)
        } else {
            bytes.storeBigEndian(UInt16(8 + part.count), at: 4)
            bytes.store(UInt8(44), at: 6)
        }
        return result
    }

    /// `0204ff` as bytes.
    static func bytes(_ hexadecimal: String) -> [UInt8]? {
        let digits = hexadecimal.compactMap(\.hexDigitValue)
        guard digits.count == hexadecimal.count, digits.count % 2 == 0 else { return nil }
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }

    private static func bigEndian<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
        withUnsafeBytes(of: number.bigEndian) { Array($0) }
    }
}

/// A whole ICMPv4 or ICMPv6 packet.
package func icmpError(
    type: UInt8, code: UInt8, rest: UInt32, quoting: [UInt8], from source: IPAddress, to destination: IPAddress
) -> [UInt8] {
    let start = source.family == .v4 ? 20 : 40
    var packet = [UInt8](repeating: 0, count: start + 8 + quoting.count)
    packet[start] = type
    packet[start + 1] = code
    for index in 0..<4 { packet[start + 4 + index] = UInt8(truncatingIfNeeded: rest >> UInt32(24 - 8 * index)) }
    packet.replaceSubrange((start + 8)..., with: quoting)
    let upper = ICMPMessage.ipProtocol(source.family)
    var checksum = InternetChecksum()
    if source.family == .v6 {
        checksum.addPseudoHeader(source: source, destination: destination, length: 8 + quoting.count, protocolNumber: upper.rawValue)
    }
    checksum.add(packet.span.bytes.extracting(start..<packet.count))
    let value = checksum.value
    packet[start + 2] = UInt8(value >> 8)
    packet[start + 3] = UInt8(value & 0xFF)
    var span = packet.mutableSpan
    var bytes = span.mutableBytes
    IPHeader.write(into: &bytes, source: source, destination: destination, upperProtocol: upper, payloadLength: 8 + quoting.count)
    return packet
}
