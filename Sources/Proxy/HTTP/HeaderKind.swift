/// The header fields that a proxy has to know; everything else passes.
package enum HeaderKind: UInt8, Sendable {
    case other
    case host, contentLength, transferEncoding, connection, te, upgrade, expect, accept, webSocketVersion, webSocketKey, webSocketAccept
    /// Meant for one hop only, and of no use to us: RFC 9110 §7.6.1.
    case hopByHop
    /// Said by a proxy about the client: the word of a client that is not trusted is not passed on.
    case forwarded, forwardedFor, requestID
    /// `Proxy` (it becomes the variable HTTP_PROXY of a CGI program), and names with `_` that such programs cannot tell from one above.
    case dangerous

    /// By the bytes of a name.
    init(_ name: UnsafeRawBufferPointer) {
        let kind = Self.classify(name)
        if kind != .other, kind != .accept, name.contains(UInt8(ascii: "_")) { self = .dangerous } else { self = kind }
    }

    private static func classify(_ name: UnsafeRawBufferPointer) -> HeaderKind {
        switch name.count {
        case 2: return matches(name, "te") ? .te : .other
        case 4: return matches(name, "host") ? .host : .other
        case 5: return matches(name, "proxy") ? .dangerous : .other
        case 6:
            if matches(name, "accept") { return .accept }
            return matches(name, "expect") ? .expect : .other
        case 7: return matches(name, "upgrade") ? .upgrade : .other
        case 9: return matches(name, "forwarded") || matches(name, "x-real-ip") ? .forwarded : .other
        case 10:
            if matches(name, "connection") { return .connection }
            return matches(name, "keep-alive") ? .hopByHop : .other
        case 12: return matches(name, "x-request-id") ? .requestID : .other
        case 14:
            if matches(name, "content-length") { return .contentLength }
            if matches(name, "http2-settings") { return .hopByHop }
        case 15 where matches(name, "x-forwarded-for"): return .forwardedFor
        case 16 where matches(name, "proxy-connection"): return .hopByHop
        case 17:
            if matches(name, "transfer-encoding") { return .transferEncoding }
            if matches(name, "sec-websocket-key") { return .webSocketKey }
        case 18 where matches(name, "proxy-authenticate"): return .hopByHop
        case 19 where matches(name, "proxy-authorization"): return .hopByHop
        case 20 where matches(name, "sec-websocket-accept"): return .webSocketAccept
        case 21 where matches(name, "sec-websocket-version"): return .webSocketVersion
        default: break
        }
        guard name.count > 12, name[0] | 0x20 == UInt8(ascii: "x") else { return .other }
        return matches(UnsafeRawBufferPointer(rebasing: name[..<12]), "x-forwarded-") ? .forwarded : .other
    }

    /// Without regard to case, and `_` taken for `-`. The lengths are equal.
    static func matches(_ name: UnsafeRawBufferPointer, _ lowercase: StaticString) -> Bool {
        let expected = lowercase.utf8Start
        for index in 0..<min(name.count, lowercase.utf8CodeUnitCount) {
            let byte = name[index]
            let folded = byte == UInt8(ascii: "_") ? UInt8(ascii: "-") : byte &- 0x41 < 26 ? byte | 0x20 : byte
            guard folded == expected[index] else { return false }
        }
        return true
    }
}

/// Values that are lists of tokens.
enum HeaderTokens {
    /// Lower case, without blanks and empty members.
    static func list(_ value: String) -> [String] {
        tokens(value.utf8.split(separator: UInt8(ascii: ",")))
    }

    private static func tokens(_ parts: [Substring.UTF8View]) -> [String] {
        parts.compactMap { part in
            let token = trimmed(Substring(part))
            return token.isEmpty ? nil : token.lowercased()
        }
    }

    /// Adds the tokens of a `Connection` value. The two most frequent ones cost nothing.
    /// - Returns: false if there are more than ``maximumConnectionOptions``, in one field or in all.
    static func addConnection(_ section: FieldSection, _ value: FieldSection.Span, to options: inout [String]) -> Bool {
        let added: [String]? = section.withBytes(value) { bytes in
            if equals(bytes, "keep-alive") { return keepAlive }
            if equals(bytes, "close") { return close }
            let text = String(decoding: bytes, as: UTF8.self)
            let parts = text.utf8.split(separator: UInt8(ascii: ","), maxSplits: maximumConnectionOptions)
            return parts.count > maximumConnectionOptions ? nil : tokens(parts)
        }
        guard let added else { return false }
        options += added
        return options.count <= maximumConnectionOptions
    }

    static func equals(_ value: UnsafeRawBufferPointer, _ lowercase: StaticString) -> Bool {
        value.count == lowercase.utf8CodeUnitCount && HeaderKind.matches(value, lowercase) && !value.contains(UInt8(ascii: "_"))
    }

    static func trimmed(_ value: Substring) -> Substring {
        guard let start = value.utf8.firstIndex(where: { !HeaderBytes.isBlank($0) }),
            let end = value.utf8.lastIndex(where: { !HeaderBytes.isBlank($0) })
        else { return "" }
        return value[start...end]
    }

    /// A number of octets: digits only, and small enough for all arithmetic. Nil for everything else.
    static func length(_ value: UnsafeRawBufferPointer) -> Int? {
        guard (1...18).contains(value.count) else { return nil }
        var result = 0
        for byte in value {
            guard HeaderBytes.isDigit(byte) else { return nil }
            result = result &* 10 &+ Int(byte & 15)
        }
        return result
    }

    /// Each is compared with the name of each field; nobody has use for more than a handful.
    static let maximumConnectionOptions = 64
    private static let keepAlive = ["keep-alive"]
    private static let close = ["close"]
}
