import FoundationEssentials
import Inet

/// A URL that a CA or the operator gave, kept byte for byte, since requests are signed over it.
///
/// `https` only; plain `http` is taken for loopback addresses, where test servers are. No user, no fragment, no character that a
/// URL cannot have.
///
/// Source: RFC 8555 §6.1.
package struct ACMEURL: Hashable, Sendable, CustomStringConvertible {
    package let text: String

    package init(_ text: String) throws(ACMEFault) {
        guard text.utf8.count <= Self.maximumLength else { throw ACMEFault("a URL is longer than \(Self.maximumLength) bytes") }
        let isWritable = text.utf8.allSatisfy { (0x21...0x7E).contains($0) && !#""<>\^`{|}#"#.utf8.contains($0) }
        guard isWritable, let colon = text.firstIndex(of: ":"), text[colon...].hasPrefix("://") else {
            throw ACMEFault("not a URL: \(Self.withoutPassword(text))")
        }
        let authority = text[colon...].dropFirst(3).prefix { $0 != "/" && $0 != "?" }
        guard !authority.isEmpty, !authority.contains("@"), let host = Self.host(of: authority) else {
            throw ACMEFault("not a URL of a host: \(Self.withoutPassword(text))")
        }
        switch text[..<colon].lowercased() {
        case "https": break
        case "http" where Self.isLoopback(host): break
        default: throw ACMEFault("not an https URL: \(text)")
        }
        self.text = text
    }

    package var description: String { text }
    var isSecure: Bool { text.prefix(6).lowercased() == "https:" }

    /// This URL with one more segment, as RFC 9773 §4.1 makes them.
    func appending(_ segment: String) throws(ACMEFault) -> ACMEURL {
        try ACMEURL(text.hasSuffix("/") ? text + segment : text + "/" + segment)
    }

    /// A `Location` or `Link` may be relative to the URL of the request: only a path from the root is taken as such.
    func resolving(_ reference: String) throws(ACMEFault) -> ACMEURL {
        guard reference.hasPrefix("/"), !reference.hasPrefix("//"), let scheme = text.firstIndex(of: ":") else {
            return try ACMEURL(reference)
        }
        let origin = text.index(scheme, offsetBy: 3)
        let end = text[origin...].firstIndex { $0 == "/" || $0 == "?" } ?? text.endIndex
        return try ACMEURL(text[..<end] + reference)
    }

    /// Of a URL with a user and a password, its scheme and host.
    private static func withoutPassword(_ text: String) -> String {
        guard let at = text.lastIndex(of: "@") else { return text }
        let host = text[text.index(after: at)...].prefix { $0 != "/" && $0 != "?" }
        guard let scheme = text.firstRange(of: "://"), scheme.upperBound <= at else { return "...@\(host)" }
        return "\(text[..<scheme.upperBound])...@\(host), with a user's name or a password"
    }

    private static func host(of authority: Substring) -> Substring? {
        if authority.hasPrefix("[") {
            guard let end = authority.firstIndex(of: "]") else { return nil }
            let port = authority[end...].dropFirst()
            guard IPAddress(String(authority[..<end].dropFirst()))?.family == .v6, port.isEmpty || isPort(port) else { return nil }
            return authority[authority.startIndex...end]
        }
        let parts = authority.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count <= 2, !parts[0].isEmpty, parts.count == 1 || isPort(":" + parts[1]) else { return nil }
        // Letters, digits, hyphens, underscores, dots. A client decodes `%5B` to a bracket, and ends the process over the empty address.
        return Base64URL.isAlphabetic(parts[0].filter { $0 != "." }) ? parts[0] : nil
    }

    private static func isPort(_ text: some StringProtocol) -> Bool {
        text.hasPrefix(":") && text.utf8.count > 1 && UInt16(text.dropFirst()) != nil
            && text.utf8.dropFirst().allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
    }

    private static func isLoopback(_ host: Substring) -> Bool {
        if host.lowercased() == "localhost" || host == "[::1]" { return true }
        let numbers = host.split(separator: ".", omittingEmptySubsequences: false)
        return numbers.count == 4 && numbers[0] == "127" && numbers.allSatisfy { UInt8($0) != nil }
    }

    package static let maximumLength = 2_048
}

extension ACMEURL: Codable {
    package init(from decoder: any Decoder) throws { try self.init(String(from: decoder)) }
    package func encode(to encoder: any Encoder) throws { try text.encode(to: encoder) }
}
