import Inet

/// The options that we understand; others are skipped.
///
/// ```
///  kind 0 end   1 no-op
///  kind 2 len 4  MSS                      RFC 9293 §3.7.1
///  kind 3 len 3  window scale             RFC 7323 §2.2
///  kind 4 len 2  SACK permitted           RFC 2018 §2
///  kind 5 len 8n+2  n blocks of left, right edge   RFC 2018 §3
///  kind 8 len 10 TSval, TSecr             RFC 7323 §3.2
/// ```
package struct TCPOptions: Sendable {
    package struct Timestamps: Equatable, Sendable {
        package var value: UInt32
        package var echoReply: UInt32
        package init(value: UInt32, echoReply: UInt32) {
            self.value = value
            self.echoReply = echoReply
        }
    }

    package var maximumSegmentSize: UInt16?
    package var windowScale: UInt8?
    package var isSACKPermitted = false
    package var timestamps: Timestamps?
    package var sack = SACKBlocks()

    package init() {}

    /// Parses the options area. A malformed option ends the parsing; what stood before it counts.
    package init(parsing area: RawSpan) {
        let end = area.byteCount
        if end == 12, area.bigEndian32(at: 0) == 0x0101_080A {
            // RFC 7323 appendix A: how nearly every segment looks.
            timestamps = Timestamps(value: area.bigEndian32(at: 4), echoReply: area.bigEndian32(at: 8))
            return
        }
        var offset = 0
        while offset < end {
            let kind = area.byte(at: offset)
            if kind == 0 { return }
            if kind == 1 {
                offset &+= 1
                continue
            }
            guard offset &+ 1 < end else { return }
            let length = Int(area.byte(at: offset &+ 1))
            guard length >= 2, offset &+ length <= end else { return }
            switch (kind, length) {
            case (2, 4): maximumSegmentSize = area.bigEndian16(at: offset &+ 2)
            case (3, 3): windowScale = area.byte(at: offset &+ 2)
            case (4, 2): isSACKPermitted = true
            case (8, 10):
                timestamps = Timestamps(value: area.bigEndian32(at: offset &+ 2), echoReply: area.bigEndian32(at: offset &+ 6))
            case (5, 10...34) where (length &- 2) % 8 == 0:
                var block = offset &+ 2
                while block < offset &+ length {
                    sack.append(
                        SequenceRange(SequenceNumber(area.bigEndian32(at: block)), SequenceNumber(area.bigEndian32(at: block &+ 4))))
                    block &+= 8
                }
            default: break
            }
            offset &+= length
        }
    }

    /// Bytes on the wire, padded to a multiple of four.
    package var encodedLength: Int {
        var length = 0
        if maximumSegmentSize != nil { length &+= 4 }
        if windowScale != nil { length &+= 4 }
        if timestamps != nil { length &+= 12 } else if isSACKPermitted { length &+= 4 }
        if sack.count > 0 { length &+= 4 &+ 8 &* sack.count }
        return length
    }

    package func write(into packet: inout MutableRawSpan, at start: Int) {
        var offset = start
        if let maximumSegmentSize {
            packet.storeBigEndian(0x0204_0000 | UInt32(maximumSegmentSize), at: offset)
            offset &+= 4
        }
        if isSACKPermitted {
            // SACK permitted takes the place of the two no-ops in front of the timestamps.
            packet.storeBigEndian(UInt16(0x0402), at: offset)
            if timestamps == nil { packet.storeBigEndian(UInt16(0x0101), at: offset &+ 2) }
        } else if timestamps != nil {
            packet.storeBigEndian(UInt16(0x0101), at: offset)
        }
        if let timestamps {
            packet.storeBigEndian(UInt16(0x080A), at: offset &+ 2)
            packet.storeBigEndian(timestamps.value, at: offset &+ 4)
            packet.storeBigEndian(timestamps.echoReply, at: offset &+ 8)
            offset &+= 12
        } else if isSACKPermitted {
            offset &+= 4
        }
        if let windowScale {
            packet.storeBigEndian(0x0103_0300 | UInt32(windowScale), at: offset)
            offset &+= 4
        }
        if sack.count > 0 {
            packet.storeBigEndian(0x0101_0500 | UInt32(2 &+ 8 &* sack.count), at: offset)
            offset &+= 4
            for index in 0..<sack.count {
                packet.storeBigEndian(sack[index].start.rawValue, at: offset)
                packet.storeBigEndian(sack[index].end.rawValue, at: offset &+ 4)
                offset &+= 8
            }
        }
    }
}

/// Up to four SACK blocks, held inline.
package struct SACKBlocks: Sendable {
    package private(set) var count = 0
    private var blocks = InlineArray<4, SequenceRange>(repeating: SequenceRange(SequenceNumber(0), SequenceNumber(0)))

    package init() {}

    package subscript(index: Int) -> SequenceRange {
        precondition(index < count, "no such SACK block")
        return blocks[index]
    }

    /// Adds a block; a fifth one is ignored.
    package mutating func append(_ block: SequenceRange) {
        guard count < 4 else { return }
        blocks[count] = block
        count &+= 1
    }

    package func contains(_ block: SequenceRange) -> Bool {
        for index in 0..<count where blocks[index] == block { return true }
        return false
    }
}
