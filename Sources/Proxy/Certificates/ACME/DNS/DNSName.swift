/// A name of the DNS: labels of 1 to 63 octets, 255 octets in all. Letters are lower case, for names are compared without regard to it.
///
/// Source: RFC 1035 §2.3.4, §3.1; RFC 4343.
package struct DNSName: Hashable, Sendable, CustomStringConvertible {
    package let labels: [[UInt8]]

    package static let root = DNSName(unchecked: [])

    private init(unchecked labels: [[UInt8]]) { self.labels = labels }

    /// Nil for an empty or long label, or too many of them.
    package init?(labels: [[UInt8]]) {
        guard labels.allSatisfy({ (1...63).contains($0.count) }), labels.reduce(1, { $0 + $1.count + 1 }) <= Self.maximumLength else {
            return nil
        }
        self.labels = labels.map { $0.map { (0x41...0x5A).contains($0) ? $0 | 0x20 : $0 } }
    }

    /// From its text without escapes, with or without a final dot.
    package init?(_ text: String) {
        var text = text[...]
        if text == "." { text = "" }
        if text.hasSuffix(".") { text.removeLast() }
        self.init(
            labels: text.isEmpty ? [] : text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map(Array.init))
    }

    /// RFC 1035 §5.1: what is not printable is `\DDD`. Without a final dot; the root is `.`.
    package var description: String {
        if labels.isEmpty { return "." }
        return labels.map { label in
            label.reduce(into: "") { text, byte in
                switch byte {
                case UInt8(ascii: "."), UInt8(ascii: "\\"): text += "\\" + String(Character(Unicode.Scalar(byte)))
                case 0x21...0x7E: text.unicodeScalars.append(Unicode.Scalar(byte))
                default: text += "\\" + String(repeating: "0", count: byte < 10 ? 2 : byte < 100 ? 1 : 0) + String(byte)
                }
            }
        }.joined(separator: ".")
    }

    /// Nil at the root.
    package var parent: DNSName? { labels.isEmpty ? nil : DNSName(unchecked: Array(labels.dropFirst())) }

    package func lies(in zone: DNSName) -> Bool {
        labels.count >= zone.labels.count && labels.suffix(zone.labels.count) == zone.labels[...]
    }

    /// Without compression.
    package var encoded: [UInt8] { labels.flatMap { [UInt8($0.count)] + $0 } + [0] }

    private static let maximumLength = 255
}
