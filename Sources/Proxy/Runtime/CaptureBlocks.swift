import Inet

/// Cuts a pcapng stream at the ends of its blocks, so that a file is whole at every moment, and counts what went by.
package struct CaptureBlocks {
    /// Packets in the blocks that were taken.
    package private(set) var packets: UInt64 = 0
    /// Packets that the process had no room for, as it said last.
    package private(set) var dropped: UInt64 = 0
    /// Why the process ended the stream; `nil` until it has.
    package private(set) var end: String?
    private var waiting: [UInt8] = []

    package init() {}

    package mutating func append(_ bytes: some Collection<UInt8>) { waiting += bytes }

    /// Whether a block has begun that is not whole.
    package var isInsideBlock: Bool { !waiting.isEmpty }

    /// The blocks that are whole.
    /// - Throws: `AdminFault` if that is no pcapng of ours.
    package mutating func take() throws(AdminFault) -> [UInt8] {
        var position = 0
        let all = waiting
        let bytes = all.span.bytes
        while bytes.byteCount - position >= 12 {
            let length = Int(bytes.littleEndian32(at: position + 4))
            guard length >= 12, length & 3 == 0, length <= Self.maximumBlock else {
                throw AdminFault(error: "the process sends something that is not a capture; are both programs of one version?")
            }
            guard bytes.byteCount - position >= length else { break }
            switch bytes.littleEndian32(at: position) {
            case 6: packets += 1
            case 5: readStatistics(bytes.extracting(position..<position + length))
            default: break
            }
            position += length
        }
        waiting = Array(all[position...])
        return Array(all[..<position])
    }

    /// Options begin behind the interface and the time.
    private mutating func readStatistics(_ block: RawSpan) {
        var position = 20
        while position + 4 <= block.byteCount - 4 {
            let field = block.littleEndian32(at: position)
            let (code, length) = (field & 0xFFFF, Int(field >> 16))
            position += 4
            guard code != 0, position + length <= block.byteCount - 4 else { return }
            switch code {
            case 1: end = block.extracting(position..<position + length).withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
            case 5 where length == 8: dropped = block.littleEndian64(at: position)
            default: break
            }
            position += (length + 3) & ~3
        }
    }

    /// The largest packet, its comment and its fields are far less.
    private static let maximumBlock = 1 << 20
}
