import Inet

/// What IPv6 extension headers and IPv4 options ask of us. `IPHeader` has found where they end; this says whether we may go on.
///
/// ```
///  Hop-by-Hop 0, Destination 60   0 Next Header  1 Length in 8 bytes, less one  2 options: type, length, data ...
///  Routing 43                     0 Next Header  1 Length  2 Routing Type  3 Segments Left
///  Fragment 44                    0 Next Header  1 reserved  2 Offset|M  4 Identification
/// ```
/// Source: RFC 8200 §4; RFC 791 §3.1 (options).
enum ExtensionHeaders {
    enum Judgment: Equatable {
        case fine
        case discarded(DropReason)
        /// Dropped, and answered by an ICMPv6 parameter problem (RFC 4443 §3.4).
        case problem(code: UInt8, pointer: Int)
    }

    /// - Parameter packet: a packet that parses as `header`.
    static func judge(_ packet: RawSpan, header: IPHeader) -> Judgment {
        switch header.source.family {
        case .v4: judgeIPv4Options(packet, end: header.headerLength)
        case .v6: judgeIPv6(packet, end: header.headerLength)
        }
    }

    private static func judgeIPv6(_ packet: RawSpan, end: Int) -> Judgment {
        var next = packet.byte(at: 6)
        var offset = IPHeader.ipv6Length
        while offset < end {
            let length = next == fragment ? fragmentLength : (Int(packet.byte(at: offset + 1)) + 1) * 8
            switch next {
            case hopByHop, destinationOptions:
                let judgment = judgeOptions(packet, offset + 2..<min(offset + length, end))
                guard judgment == .fine else { return judgment }
            case routing:
                // RFC 8200 §4.4, RFC 5095: we are nobody's waypoint.
                if packet.byte(at: offset + 3) != 0 { return .problem(code: 0, pointer: offset + 2) }
            default: break
            }
            next = packet.byte(at: offset)
            offset += length
        }
        return .fine
    }

    /// RFC 8200 §4.2: the upper two bits of an unknown option's type say what to do with its packet.
    private static func judgeOptions(_ packet: RawSpan, _ range: Range<Int>) -> Judgment {
        var offset = range.lowerBound
        var count = 0
        while offset < range.upperBound {
            let type = packet.byte(at: offset)
            if type == 0 {
                offset += 1
                continue
            }
            guard offset + 1 < range.upperBound else { return .discarded(.malformedPacket) }
            let length = 2 + Int(packet.byte(at: offset + 1))
            guard offset + length <= range.upperBound else { return .discarded(.malformedPacket) }
            if type != padN {
                count += 1
                guard count <= maximumOptions else { return .discarded(.refusedOption) }
                switch type >> 6 {
                case 0: break
                case 1: return .discarded(.refusedOption)
                default: return .problem(code: 2, pointer: offset)
                }
            }
            offset += length
        }
        return .fine
    }

    /// A source route that goes on behind us is not followed (RFC 1122 §3.3.5 lets a host choose); the others are skipped.
    private static func judgeIPv4Options(_ packet: RawSpan, end: Int) -> Judgment {
        var offset = IPHeader.minimumIPv4Length
        while offset < end {
            let type = packet.byte(at: offset)
            if type == 0 { return .fine }
            if type == 1 {
                offset += 1
                continue
            }
            guard offset + 1 < end else { return .discarded(.malformedPacket) }
            let length = Int(packet.byte(at: offset + 1))
            guard length >= 2, offset + length <= end else { return .discarded(.malformedPacket) }
            if type == looseSourceRoute || type == strictSourceRoute {
                guard length >= 3 else { return .discarded(.malformedPacket) }
                if Int(packet.byte(at: offset + 2)) <= length { return .discarded(.refusedOption) }
            }
            offset += length
        }
        return .fine
    }

    /// Where the Next Header field stands that names the header at `end`. For IPv4, the Protocol field.
    static func nextHeaderPosition(in packet: RawSpan, before end: Int) -> Int {
        guard packet.byte(at: 0) >> 4 == 6 else { return 9 }
        var field = 6
        var offset = IPHeader.ipv6Length
        while offset < end, offset + 8 <= packet.byteCount {
            let length = packet.byte(at: field) == fragment ? fragmentLength : (Int(packet.byte(at: offset + 1)) + 1) * 8
            field = offset
            offset += length
        }
        return field
    }

    /// Whether `IPHeader` walks over a header of this type.
    static func isWalked(_ type: UInt8) -> Bool { type == hopByHop || type == routing || type == destinationOptions || type == fragment }

    /// 59: nothing follows (RFC 8200 §4.7).
    static let noNextHeader = IPProtocol(rawValue: 59)
    static let fragmentLength = 8
    /// In one header (RFC 8504 §5.3).
    static let maximumOptions = 8
    private static let hopByHop: UInt8 = 0
    private static let routing: UInt8 = 43
    private static let fragment: UInt8 = 44
    private static let destinationOptions: UInt8 = 60
    private static let padN: UInt8 = 1
    private static let looseSourceRoute: UInt8 = 131
    private static let strictSourceRoute: UInt8 = 137
}
