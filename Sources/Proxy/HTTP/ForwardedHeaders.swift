import Inet
import NIOCore

/// What we say about the client to the next hop; the only place where X-Forwarded-*, X-Real-IP and Forwarded are made.
///
/// A client's own values were removed before (``HeaderKind/forwarded``): no peer is trusted to name another client.
package struct ClientIdentity: Sendable {
    package enum Scheme: String, Sendable {
        case http, https
    }

    /// Without port; an IPv4-mapped address as IPv4.
    package let address: String
    package let scheme: Scheme
    private let node: String
    /// The fields for the last host: a client seldom asks for a second one on its connection.
    private var cached: (host: String, fields: [(String, String)]) = ("", [])

    package init(_ remote: SocketAddress?, scheme: Scheme) {
        self.scheme = scheme
        let text = remote?.ipAddress ?? "unknown"
        guard let ip = IPAddress(text)?.unmapped else {
            address = text
            node = "unknown"
            return
        }
        address = "\(ip)"
        node = ip.family == .v4 ? address : "\"[\(address)]\""
    }

    /// RFC 7239 and the older fields. `host` is normalised: its letters need no quoting, except in an IPv6 literal.
    mutating func fields(host: String) -> [(String, String)] {
        if cached.host == host, !cached.fields.isEmpty { return cached.fields }
        let quoted = host.utf8.first == UInt8(ascii: "[") ? "\"\(host)\"" : host
        let fields = [
            ("X-Forwarded-For", address), ("X-Forwarded-Host", host), ("X-Forwarded-Proto", scheme.rawValue), ("X-Real-IP", address),
            ("Forwarded", host.isEmpty ? "for=\(node);proto=\(scheme)" : "for=\(node);host=\(quoted);proto=\(scheme)"),
        ]
        cached = (host, fields)
        return fields
    }
}
