import Inet

/// Writes packets as pcapng, all fields little-endian, into a buffer that `take` empties.
///
/// ```
///  Section Header Block    type 0A0D0D0A  length  byte order 1A2B3C4D  version 1.0  section length -1         options  length
///  Interface Description   type 1         length  link type 101 (RAW)  reserved     snapshot length           options  length
///  Enhanced Packet         type 6         length  interface  time (high, low)  captured  original  packet data  options  length
///  Interface Statistics    type 5         length  interface  time (high, low)                                 options  length
/// ```
/// An option is its code and length (16 bits each) and its value; values and packet data are padded to 32 bits.
///
/// Source: draft-ietf-opsawg-pcapng §4.1 to §4.3 and §4.6, §3.5 (options).
package struct PcapngWriter: Sendable {
    /// The bytes written and not taken yet.
    package private(set) var bytes: [UInt8] = []

    package init() {}

    /// Takes out what has been written.
    package mutating func take() -> [UInt8] {
        defer { bytes = [] }
        return bytes
    }

    /// Begins the file.
    /// - Parameters:
    ///   - application: what wrote it.
    ///   - interface: the interface's name.
    ///   - filter: which packets are taken; `nil` is all.
    ///   - snapLength: bytes kept of a packet, at most.
    package mutating func begin(application: String, interface: String, filter: String?, snapLength: Int) {
        block(Block.section) { writer in
            writer.append(UInt32(0x1A2B_3C4D))
            writer.append(UInt16(1))
            writer.append(UInt16(0))
            writer.append(UInt64.max)
            writer.option(Option.userApplication, application.utf8)
            writer.endOfOptions()
        }
        block(Block.interface) { writer in
            writer.append(Self.linkTypeRaw)
            writer.append(UInt16(0))
            writer.append(UInt32(clamping: snapLength))
            writer.option(Option.interfaceName, interface.utf8)
            writer.option(Option.timeResolution, CollectionOfOne(Self.nanoseconds))
            if let filter { writer.option(Option.filter, [0] + Array(filter.utf8)) }
            writer.endOfOptions()
        }
    }

    /// Writes one packet, cut to `snapLength`.
    /// - Parameters:
    ///   - time: nanoseconds since 1970.
    ///   - comment: UTF-8.
    package mutating func packet(_ packet: RawSpan, at time: UInt64, isInbound: Bool, comment: [UInt8], snapLength: Int) {
        let captured = min(packet.byteCount, snapLength)
        block(Block.packet) { writer in
            writer.append(UInt32(0))
            writer.append(time: time)
            writer.append(UInt32(captured))
            writer.append(UInt32(packet.byteCount))
            packet.extracting(0..<captured).withUnsafeBytes { writer.bytes.append(contentsOf: $0) }
            writer.pad()
            writer.option(Option.comment, comment)
            writer.append(Option.packetFlags)
            writer.append(UInt16(4))
            writer.append(UInt32(isInbound ? 1 : 2))
            writer.endOfOptions()
        }
    }

    /// How many bytes `packet` adds.
    package static func length(ofPacket byteCount: Int, comment: [UInt8], snapLength: Int) -> Int {
        32 + padded(min(byteCount, snapLength)) + 4 + padded(comment.count) + 8 + 4
    }

    /// Writes how many packets were seen, matched the filter and were lost so far.
    /// - Parameter end: why the capture ends here; `nil` if it goes on.
    package mutating func statistics(_ counts: PacketCapture.Counts, at time: UInt64, end: PacketCapture.End? = nil) {
        block(Block.statistics) { writer in
            writer.append(UInt32(0))
            writer.append(time: time)
            for (code, value) in [
                (Option.received, counts.seen), (Option.dropped, counts.dropped), (Option.accepted, counts.matched),
                (Option.delivered, counts.written),
            ] {
                writer.append(code)
                writer.append(UInt16(8))
                writer.append(value)
            }
            if let end { writer.option(Option.comment, "ended: \(end.rawValue)".utf8) }
            writer.endOfOptions()
        }
    }

    /// How many bytes `statistics` adds, at most.
    package static let statisticsLength = 24 + 4 * 12 + 32 + 4

    // MARK: Fields

    private mutating func block(_ type: UInt32, _ body: (inout PcapngWriter) -> Void) {
        let start = bytes.count
        append(type)
        append(UInt32(0))
        body(&self)
        let length = UInt32(bytes.count - start + 4)
        append(length)
        for index in 0..<4 { bytes[start + 4 + index] = UInt8(truncatingIfNeeded: length >> (8 * UInt32(index))) }
    }

    private mutating func option(_ code: UInt16, _ value: some Collection<UInt8>) {
        let value = value.prefix(Int(UInt16.max))
        append(code)
        append(UInt16(value.count))
        bytes.append(contentsOf: value)
        pad()
    }

    private mutating func endOfOptions() { append(UInt32(0)) }

    /// Every block begins and ends at a multiple of 4.
    private mutating func pad() { while bytes.count & 3 != 0 { bytes.append(0) } }

    private mutating func append(time: UInt64) {
        append(UInt32(truncatingIfNeeded: time >> 32))
        append(UInt32(truncatingIfNeeded: time))
    }

    private mutating func append(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    private static func padded(_ count: Int) -> Int { (count + 3) & ~3 }

    private enum Block {
        static let section: UInt32 = 0x0A0D_0D0A
        static let interface: UInt32 = 1
        static let statistics: UInt32 = 5
        static let packet: UInt32 = 6
    }

    private enum Option {
        static let comment: UInt16 = 1
        static let packetFlags: UInt16 = 2
        static let interfaceName: UInt16 = 2
        static let userApplication: UInt16 = 4
        static let received: UInt16 = 4
        static let dropped: UInt16 = 5
        static let accepted: UInt16 = 6
        static let delivered: UInt16 = 8
        static let timeResolution: UInt16 = 9
        static let filter: UInt16 = 11
    }

    /// Packets begin with their IP header, of either version.
    private static let linkTypeRaw: UInt16 = 101
    /// As a negative power of ten.
    private static let nanoseconds: UInt8 = 9
}
