/// An IPv4 or IPv6 address. An IPv4-mapped IPv6 address stays IPv6 until `unmapped` is asked for.
public struct IPAddress: Hashable, Sendable {
    public enum Family: UInt8, Hashable, Sendable {
        case v4 = 4
        case v6 = 6
    }

    public let family: Family
    /// The upper 64 bits of an IPv6 address; 0 for IPv4.
    public let high: UInt64
    /// The lower 64 bits of an IPv6 address; the 32 bits of an IPv4 address.
    public let low: UInt64

    @inlinable public init(v4: UInt32) {
        family = .v4
        high = 0
        low = UInt64(v4)
    }

    @inlinable public init(v4 a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
        self.init(v4: UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d))
    }

    @inlinable public init(v6High high: UInt64, low: UInt64) {
        family = .v6
        self.high = high
        self.low = low
    }

    public static let anyV4 = IPAddress(v4: 0)
    public static let anyV6 = IPAddress(v6High: 0, low: 0)

    /// 32 or 128.
    @inlinable public var bitWidth: Int { family == .v4 ? 32 : 128 }
    /// 4 or 16.
    @inlinable public var byteCount: Int { family == .v4 ? 4 : 16 }
    /// The 32 bits of an IPv4 address (the low 32 bits of an IPv6 one).
    @inlinable public var v4Bits: UInt32 { UInt32(truncatingIfNeeded: low) }

    /// The IPv4 address inside `::ffff:0:0/96`, else the address itself.
    public var unmapped: IPAddress {
        family == .v6 && high == 0 && low >> 32 == 0xFFFF ? IPAddress(v4: UInt32(truncatingIfNeeded: low)) : self
    }

    public var isUnspecified: Bool { high == 0 && low == 0 }

    public var isLoopback: Bool {
        family == .v4 ? low >> 24 == 127 : (high == 0 && low == 1) || (unmapped.family == .v4 && unmapped.isLoopback)
    }

    /// 224.0.0.0/4 or ff00::/8.
    public var isMulticast: Bool { family == .v4 ? low >> 28 == 0xE : high >> 56 == 0xFF }

    /// 255.255.255.255.
    public var isLimitedBroadcast: Bool { family == .v4 && low == 0xFFFF_FFFF }

    /// Whether the address may stand as the source or destination of a unicast packet inside a tunnel.
    public var isUnicastInsideTunnel: Bool {
        !isUnspecified && !isLoopback && !isMulticast && !isLimitedBroadcast
    }

    /// The address with all bits after `length` cleared. `length` is clamped to the width.
    public func masked(to length: Int) -> IPAddress {
        let length = Swift.max(0, Swift.min(length, bitWidth))
        if family == .v4 {
            return IPAddress(v4: length == 0 ? 0 : v4Bits & (UInt32.max << UInt32(32 - length)))
        }
        if length == 0 { return .anyV6 }
        if length <= 64 { return IPAddress(v6High: high & (UInt64.max << UInt64(64 - length)), low: 0) }
        return IPAddress(v6High: high, low: low & (UInt64.max << UInt64(128 - length)))
    }

    /// Reads the address that stands in network order at `offset`.
    @inlinable public init(_ family: Family, in bytes: RawSpan, at offset: Int) {
        switch family {
        case .v4: self.init(v4: bytes.bigEndian32(at: offset))
        case .v6: self.init(v6High: bytes.bigEndian64(at: offset), low: bytes.bigEndian64(at: offset + 8))
        }
    }

    /// Writes `byteCount` bytes in network order.
    @inlinable public func write(into bytes: inout MutableRawSpan, at offset: Int) {
        switch family {
        case .v4: bytes.storeBigEndian(v4Bits, at: offset)
        case .v6:
            bytes.storeBigEndian(high, at: offset)
            bytes.storeBigEndian(low, at: offset + 8)
        }
    }
}

extension IPAddress: CustomStringConvertible, LosslessStringConvertible {
    /// Dotted quad, or RFC 5952 text, the last 32 bits of an IPv4-mapped or IPv4-compatible address dotted as inet_ntop(3) does.
    public var description: String {
        if family == .v4 {
            return "\(low >> 24 & 0xFF).\(low >> 16 & 0xFF).\(low >> 8 & 0xFF).\(low & 0xFF)"
        }
        if high == 0 && low >> 32 == 0xFFFF { return "::ffff:\(unmapped)" }
        if high == 0 && low >> 32 == 0 && low >> 16 != 0 { return "::\(IPAddress(v4: v4Bits))" }
        let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 % 4))) }
        var best = 0..<0
        var start = 0
        while start < 8 {
            var end = start
            while end < 8 && groups[end] == 0 { end += 1 }
            if end - start > best.count && end - start >= 2 { best = start..<end }
            start = Swift.max(end, start + 1)
        }
        func text(_ range: Range<Int>) -> String {
            range.map { String(groups[$0], radix: 16) }.joined(separator: ":")
        }
        return best.isEmpty ? text(0..<8) : text(0..<best.lowerBound) + "::" + text(best.upperBound..<8)
    }

    /// Parses a dotted quad without leading zeros, or RFC 4291 text without a zone. `nil` for anything else.
    public init?(_ text: String) {
        guard text.utf8.count <= 45 else { return nil }
        if text.utf8.contains(UInt8(ascii: ":")) {
            guard let groups = Self.parseIPv6(text[...]) else { return nil }
            var (high, low): (UInt64, UInt64) = (0, 0)
            for group in groups[0..<4] { high = high << 16 | UInt64(group) }
            for group in groups[4..<8] { low = low << 16 | UInt64(group) }
            self.init(v6High: high, low: low)
        } else {
            guard let bits = Self.parseIPv4(text[...]) else { return nil }
            self.init(v4: bits)
        }
    }

    private static func parseIPv4(_ text: Substring) -> UInt32? {
        let parts = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var bits: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.count), part.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            guard part.count == 1 || part.first != UInt8(ascii: "0") else { return nil }
            let value = part.reduce(0) { $0 * 10 + UInt32($1 - 0x30) }
            guard value <= 255 else { return nil }
            bits = bits << 8 | value
        }
        return bits
    }

    /// Eight groups, or `nil`.
    private static func parseIPv6(_ text: Substring) -> [UInt16]? {
        func groups(_ text: Substring, mayEndInIPv4: Bool) -> [UInt16]? {
            if text.isEmpty { return [] }
            var result: [UInt16] = []
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            for (index, part) in parts.enumerated() {
                if index == parts.count - 1, mayEndInIPv4, part.utf8.contains(UInt8(ascii: ".")) {
                    guard let bits = parseIPv4(part) else { return nil }
                    result += [UInt16(bits >> 16), UInt16(truncatingIfNeeded: bits)]
                    continue
                }
                guard (1...4).contains(part.utf8.count), part.utf8.allSatisfy({ isHexadecimalDigit($0) }),
                    let value = UInt16(part, radix: 16)
                else { return nil }
                result.append(value)
            }
            return result
        }
        guard let gap = firstGap(in: text) else {
            guard let all = groups(text, mayEndInIPv4: true), all.count == 8 else { return nil }
            return all
        }
        guard let head = groups(text[..<gap.lowerBound], mayEndInIPv4: false),
            let tail = groups(text[gap.upperBound...], mayEndInIPv4: true), head.count + tail.count <= 7
        else { return nil }
        return head + [UInt16](repeating: 0, count: 8 - head.count - tail.count) + tail
    }

    private static func firstGap(in text: Substring) -> Range<Substring.Index>? {
        var index = text.startIndex
        while index < text.endIndex {
            let next = text.index(after: index)
            if text[index] == ":", next < text.endIndex, text[next] == ":" { return index..<text.index(after: next) }
            index = next
        }
        return nil
    }

    private static func isHexadecimalDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
    }
}
