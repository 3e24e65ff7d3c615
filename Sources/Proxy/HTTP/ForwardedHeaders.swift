import Inet
import NIOCore

/// What we say about the client to the next hop; the only place where X-Forwarded-*, X-Real-IP, Forwarded and X-Request-Id are made.
///
/// A client's own values were removed before (``HeaderKind/forwarded``). Only a peer that is trusted may name the client that it speaks
/// for: its X-Forwarded-For is walked from the right to the first address that is not trusted itself.
package struct ClientIdentity: Sendable {
    package enum Scheme: String, Sendable {
        case http, https
    }

    package let scheme: Scheme
    /// "1.2" or "1.3"; `nil` without TLS, or where nobody asks.
    var tlsVersion: String?
    let isTrusted: Bool
    private let trusted: TrustedProxies
    private let peer: Client
    private let isGateway: Bool
    /// The lines for the last host: a client seldom asks for a second one on its connection.
    private var cached: (host: String, lines: ByteBuffer) = ("", ByteBuffer())

    /// Whom a request is from.
    struct Visitor: Sendable {
        /// The peer unless that is trusted.
        fileprivate var client: Client
        /// The addresses that it came through.
        fileprivate var chain: String
        /// Limits for one client are not for a proxy that is trusted.
        var isTrusted: Bool
        /// If the peer gave one, and may.
        var requestID: String?

        var address: String { client.address }
        var ip: IPAddress? { client.ip }
    }

    fileprivate struct Client: Sendable {
        /// An IPv4-mapped address as IPv4.
        var ip: IPAddress?
        /// Without port.
        var address: String
        var node: String

        init(_ ip: IPAddress) {
            self.ip = ip
            address = "\(ip)"
            node = ip.family == .v4 ? address : "\"[\(address)]\""
        }

        init(unknown text: String) {
            address = text
            node = "unknown"
        }
    }

    /// - Parameter isGateway: the peer is a gateway of ours, which names each request.
    package init(_ remote: SocketAddress?, scheme: Scheme, trusted: TrustedProxies = TrustedProxies(), isGateway: Bool = false) {
        self.scheme = scheme
        self.trusted = trusted
        self.isGateway = isGateway
        let text = remote?.ipAddress ?? "unknown"
        let ip = IPAddress(text)?.unmapped
        peer = ip.map { Client($0) } ?? Client(unknown: text)
        isTrusted = ip.map { trusted.contains($0) } ?? false
    }

    /// - Parameter request: nil if there is none to speak of.
    func visitor(of request: CheckedRequest?) -> Visitor {
        guard isTrusted || isGateway, let request else {
            return Visitor(client: peer, chain: peer.address, isTrusted: isTrusted, requestID: nil)
        }
        let givenID = request.requestID.flatMap { span in
            (1...Self.maximumRequestID).contains(span.count) ? request.section.text(span) : nil
        }
        guard isTrusted else { return Visitor(client: peer, chain: peer.address, isTrusted: false, requestID: givenID) }
        let (named, chain) = self.named(by: request)
        let client = named ?? peer
        return Visitor(client: client, chain: chain, isTrusted: client.ip.map { trusted.contains($0) } ?? false, requestID: givenID)
    }

    /// Writes the field lines that tell of the client. `host` is normalised: its letters need no quoting, except in an IPv6 literal.
    mutating func write(
        _ visitor: Visitor, host: String, request: CheckedRequest, requestID: RequestID, into buffer: inout ByteBuffer
    ) {
        if let given = visitor.requestID { buffer.writeString("X-Request-Id: \(given)\r\n") } else { requestID.write(into: &buffer) }
        if isTrusted {
            let proto = request.forwardedProto.map { request.section.text($0).lowercased() }
            let lines = Self.lines(
                visitor.client, chain: visitor.chain, host: host, scheme: proto.flatMap { Scheme(rawValue: $0) } ?? scheme)
            buffer.writeImmutableBuffer(lines)
        } else {
            if cached.host != host || cached.lines.readableBytes == 0 {
                cached = (host, Self.lines(peer, chain: peer.address, host: host, scheme: scheme))
            }
            buffer.writeImmutableBuffer(cached.lines)
        }
    }

    /// The client that a trusted peer speaks for, and the chain with that peer at its end.
    private func named(by request: CheckedRequest) -> (client: Client?, chain: String) {
        let members = request.forwardedFor.flatMap { request.section.text($0).split(separator: ",") }.map { HeaderTokens.trimmed($0) }
        var client: Client?
        for member in members.reversed() {
            guard let ip = Self.address(member)?.unmapped else { break }
            client = Client(ip)
            if !trusted.contains(ip) { break }
        }
        return (client, (members.map { String($0) } + [peer.address]).joined(separator: ", "))
    }

    /// Some balancers write a port, too, and what RFC 7239 §6 would have in quotes.
    private static func address(_ member: Substring) -> IPAddress? {
        var text = member
        if text.count > 2, text.first == "\"", text.last == "\"" { text = text.dropFirst().dropLast() }
        if let address = IPAddress(String(text)) { return address }
        let host: Substring
        let rest: Substring
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]") else { return nil }
            (host, rest) = (text[text.index(after: text.startIndex)..<end], text[text.index(after: end)...])
        } else {
            let end = text.firstIndex(of: ":") ?? text.endIndex
            (host, rest) = (text[..<end], text[end...])
        }
        let port = rest.dropFirst()
        guard rest.isEmpty || (rest.first == ":" && port.utf8.allSatisfy(HeaderBytes.isDigit) && UInt16(port) != nil) else { return nil }
        let address = IPAddress(String(host))
        return text.first == "[" && address?.family != .v6 ? nil : address
    }

    /// RFC 7239 and the older fields.
    private static func lines(_ client: Client, chain: String, host: String, scheme: Scheme) -> ByteBuffer {
        let quoted = host.utf8.first == UInt8(ascii: "[") ? "\"\(host)\"" : host
        let forwarded = host.isEmpty ? "for=\(client.node);proto=\(scheme)" : "for=\(client.node);host=\(quoted);proto=\(scheme)"
        return ByteBuffer(
            string:
                "X-Forwarded-For: \(chain)\r\nX-Forwarded-Host: \(host)\r\nX-Forwarded-Proto: \(scheme)\r\nX-Real-IP: \(client.address)\r\n"
                + "Forwarded: \(forwarded)\r\n")
    }

    private static let maximumRequestID: UInt32 = 128
}

/// Names one request in logs, error pages and towards the service.
struct RequestID: Sendable {
    let number: UInt64

    var text: String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }

    /// Writes the field line.
    func write(into buffer: inout ByteBuffer) {
        buffer.writeStaticString("X-Request-Id: ")
        var shift: UInt64 = 64
        while shift > 0 {
            shift &-= 4
            let digit = UInt8(truncatingIfNeeded: number >> shift & 15)
            buffer.writeInteger(digit < 10 ? digit &+ 0x30 : digit &+ 0x57)
        }
        buffer.writeStaticString("\r\n")
    }
}
