/// The header fields that a proxy has to know; everything else passes.
enum HeaderKind: UInt8 {
    case other
    case host, contentLength, transferEncoding, connection, proxyConnection, te, upgrade, expect, webSocketVersion, webSocketKey
    /// Meant for one hop only, and of no use to us: RFC 9110 §7.6.1.
    case hopByHop
    /// Said by a proxy about the client: a client's own word is not passed on.
    case forwarded
    /// `Proxy` (it becomes the variable HTTP_PROXY of a CGI program), and names with `_` that such programs cannot tell from one above.
    case dangerous

    init(_ name: String) {
        let kind = Self.classify(name)
        if kind != .other, name.utf8.contains(UInt8(ascii: "_")) { self = .dangerous } else { self = kind }
    }

    private static func classify(_ name: String) -> HeaderKind {
        let name = name.utf8
        switch name.count {
        case 2: return matches(name, "te") ? .te : .other
        case 4: return matches(name, "host") ? .host : .other
        case 5: return matches(name, "proxy") ? .dangerous : .other
        case 6: return matches(name, "expect") ? .expect : .other
        case 7: return matches(name, "upgrade") ? .upgrade : .other
        case 9: return matches(name, "forwarded") || matches(name, "x-real-ip") ? .forwarded : .other
        case 10:
            if matches(name, "connection") { return .connection }
            return matches(name, "keep-alive") ? .hopByHop : .other
        case 14:
            if matches(name, "content-length") { return .contentLength }
            if matches(name, "http2-settings") { return .hopByHop }
        case 16 where matches(name, "proxy-connection"): return .proxyConnection
        case 17:
            if matches(name, "transfer-encoding") { return .transferEncoding }
            if matches(name, "sec-websocket-key") { return .webSocketKey }
        case 18 where matches(name, "proxy-authenticate"): return .hopByHop
        case 19 where matches(name, "proxy-authorization"): return .hopByHop
        case 21 where matches(name, "sec-websocket-version"): return .webSocketVersion
        default: break
        }
        return name.count > 12 && matches(name.prefix(12), "x-forwarded-") ? .forwarded : .other
    }

    /// Without regard to case, and `_` taken for `-`.
    private static func matches(_ name: some Collection<UInt8>, _ lowercase: StaticString) -> Bool {
        lowercase.withUTF8Buffer { expected in
            var index = 0
            for byte in name {
                let folded = byte == UInt8(ascii: "_") ? UInt8(ascii: "-") : (0x41...0x5A).contains(byte) ? byte | 0x20 : byte
                guard folded == expected[index] else { return false }
                index += 1
            }
            return true
        }
    }
}

/// Values that are lists of tokens.
enum HeaderTokens {
    /// Lower case, without blanks and empty members.
    static func list(_ value: String) -> [String] {
        value.utf8.split(separator: UInt8(ascii: ",")).compactMap { part in
            let token = trimmed(Substring(part))
            return token.isEmpty ? nil : token.lowercased()
        }
    }

    /// Whether a `Connection` value names `upgrade` so that NIO's parser sees it, too, which takes no tab for a blank. If it did not
    /// stop there, what follows would leave it as parsed messages in the midst of a relay of bytes.
    static func namesUpgrade(_ value: String) -> Bool {
        value.utf8.split(separator: UInt8(ascii: ",")).contains { part in
            guard let start = part.firstIndex(where: { $0 != 0x20 }), let end = part.lastIndex(where: { $0 != 0x20 }) else { return false }
            return Substring(part[start...end]).lowercased() == "upgrade"
        }
    }

    static func equals(_ value: String, _ lowercase: String) -> Bool {
        value == lowercase || trimmed(value[...]).lowercased() == lowercase
    }

    static func trimmed(_ value: Substring) -> Substring {
        func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
        guard let start = value.utf8.firstIndex(where: { !isBlank($0) }), let end = value.utf8.lastIndex(where: { !isBlank($0) })
        else { return "" }
        return value[start...end]
    }

    /// A number of octets: digits only, and small enough for all arithmetic. Nil for everything else.
    static func length(_ value: String) -> Int? {
        guard (1...18).contains(value.utf8.count), value.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int(value)
    }
}
