/// A DNS name as certificates and routes use it: `app.example.com`, or `*.example.com` for every name with one more label.
package struct DomainPattern: Hashable, Sendable, CustomStringConvertible {
    /// Lower case, without a trailing dot; starts with `*.` for a wildcard.
    package let name: String

    /// Nil unless `text` is an A-label host name, or one behind `*.`.
    package init?(_ text: some StringProtocol) {
        let isWildcard = text.hasPrefix("*.")
        guard let host = Self.normalizedHost(isWildcard ? text.dropFirst(2) : text[...]) else { return nil }
        name = isWildcard ? "*." + host : host
    }

    /// Host names are compared in this form: ASCII lower case, one trailing dot removed. Nil if it is no host name
    /// (RFC 1123 §2.1, and `_`, which is seen in practice).
    package static func normalizedHost(_ text: some StringProtocol) -> String? {
        var bytes = Array(text.utf8.prefix(maximumNameLength + 2))
        if bytes.last == UInt8(ascii: ".") { bytes.removeLast() }
        guard !bytes.isEmpty, bytes.count <= maximumNameLength else { return nil }
        var labelLength = 0
        for index in bytes.indices {
            switch bytes[index] {
            case UInt8(ascii: "."):
                guard labelLength > 0, bytes[index - 1] != UInt8(ascii: "-") else { return nil }
                labelLength = 0
                continue
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): bytes[index] |= 0x20
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): break
            case UInt8(ascii: "-"): guard labelLength > 0 else { return nil }
            default: return nil
            }
            labelLength += 1
            guard labelLength <= maximumLabelLength else { return nil }
        }
        guard labelLength > 0, bytes.last != UInt8(ascii: "-") else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }

    package var isWildcard: Bool { name.utf8.first == UInt8(ascii: "*") }

    /// The name without `*.`: what a name constraint can express.
    package var constraint: String { isWildcard ? String(name.dropFirst(2)) : name }

    package var description: String { name }

    /// RFC 9525 §6.3: a wildcard stands for exactly one whole label. `host` is normalised.
    package func covers(_ host: String) -> Bool {
        isWildcard ? Self.parent(of: host).map { $0 == name.dropFirst(2) } ?? false : host == name
    }

    /// Whether every name of this pattern lies in one of the subtrees (RFC 5280 §4.2.1.10).
    package func lies(in subtrees: Set<String>) -> Bool {
        var name: Substring? = constraint[...]
        while let tree = name {
            if subtrees.contains(String(tree)) { return true }
            name = Self.parent(of: String(tree))
        }
        return false
    }

    /// What follows the first label.
    static func parent(of host: String) -> Substring? {
        guard let dot = host.utf8.firstIndex(of: UInt8(ascii: ".")) else { return nil }
        return host[host.utf8.index(after: dot)...]
    }

    private static let maximumNameLength = 253
    private static let maximumLabelLength = 63
}

/// A set of patterns with a value each, found by host in constant time: the exact name first, then the wildcard.
struct DomainTable<Value: Sendable>: Sendable {
    private var values: [String: Value] = [:]

    func value(for host: String) -> (pattern: String, value: Value)? {
        if let value = values[host] { return (host, value) }
        guard let parent = DomainPattern.parent(of: host) else { return nil }
        let pattern = "*." + parent
        return values[pattern].map { (pattern, $0) }
    }

    subscript(pattern: DomainPattern) -> Value? {
        get { values[pattern.name] }
        set { values[pattern.name] = newValue }
    }
}
