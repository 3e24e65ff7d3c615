import Inet

/// Writes what we answer by ICMP: echo replies and errors.
/// Source: RFC 1122 §3.2.2, RFC 4443 §2.4, §3, §4.2.
enum ICMPResponder {
    /// Turns the echo request `message` around.
    /// - Returns: the range of the packet, which starts at 0.
    static func writeEchoReply(_ message: RawSpan, from local: IPAddress, to remote: IPAddress, into packet: inout MutableRawSpan) -> Range<
        Int
    > {
        let start = SegmentWriter.ipHeaderLength(local.family)
        packet.copy(message, at: start)
        packet.storeBigEndian(local.family == .v4 ? UInt16(0) : UInt16(129) << 8, at: start)
        return finish(length: message.byteCount, from: local, to: remote, into: &packet)
    }

    enum Problem: Equatable {
        case port
        case ipProtocol
        /// Fragments did not become a whole in time.
        case reassemblyTime
        /// The byte at `pointer` is not what it should be.
        case parameter(code: UInt8, pointer: UInt32)
    }

    /// Tells the source of `offending`, a whole IP packet, what is wrong with it.
    static func writeError(
        _ problem: Problem, offending: RawSpan, headerLength: Int, from local: IPAddress, to remote: IPAddress,
        into packet: inout MutableRawSpan
    ) -> Range<Int> {
        let start = SegmentWriter.ipHeaderLength(local.family)
        var pointer: UInt32 = 0
        let field: UInt32
        switch (local.family, problem) {
        case (.v4, .port): field = 0x0303_0000
        case (.v4, .ipProtocol): field = 0x0302_0000
        case (.v4, .reassemblyTime): field = 0x0B01_0000
        case (.v4, .parameter(let code, let position)):
            field = 0x0C00_0000 | UInt32(code) << 16
            pointer = position << 24
        case (.v6, .port): field = 0x0104_0000
        case (.v6, .ipProtocol):
            // RFC 8200 §4: an unrecognized Next Header.
            field = 0x0401_0000
            pointer = UInt32(ExtensionHeaders.nextHeaderPosition(in: offending, before: headerLength))
        case (.v6, .reassemblyTime): field = 0x0301_0000
        case (.v6, .parameter(let code, let position)):
            field = 0x0400_0000 | UInt32(code) << 16
            pointer = position
        }
        packet.storeBigEndian(field, at: start)
        packet.storeBigEndian(pointer, at: start + 4)
        let limit = local.family == .v4 ? largestErrorIPv4 : largestErrorIPv6
        let quoted = min(offending.byteCount, limit - start - ICMPMessage.headerLength, packet.byteCount - start - ICMPMessage.headerLength)
        packet.copy(offending.extracting(0..<quoted), at: start + ICMPMessage.headerLength)
        return finish(length: ICMPMessage.headerLength + quoted, from: local, to: remote, into: &packet)
    }

    private static func finish(length: Int, from local: IPAddress, to remote: IPAddress, into packet: inout MutableRawSpan) -> Range<Int> {
        let start = SegmentWriter.ipHeaderLength(local.family)
        let upperProtocol = ICMPMessage.ipProtocol(local.family)
        IPHeader.write(into: &packet, source: local, destination: remote, upperProtocol: upperProtocol, payloadLength: length)
        packet.storeBigEndian(UInt16(0), at: start + 2)
        var checksum = InternetChecksum()
        if local.family == .v6 {
            checksum.addPseudoHeader(source: local, destination: remote, length: length, protocolNumber: upperProtocol.rawValue)
        }
        checksum.add(packet.bytes.extracting(start..<(start + length)))
        packet.storeBigEndian(checksum.value, at: start + 2)
        return 0..<(start + length)
    }

    /// RFC 1812 §4.3.2.3.
    private static let largestErrorIPv4 = 576
    /// RFC 4443 §2.4 (c).
    private static let largestErrorIPv6 = 1280
}
