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

    /// Of the peer: without port; an IPv4-mapped address as IPv4.
    package let address: String
    package let scheme: Scheme
    /// "1.2" or "1.3"; `nil` without TLS, or where nobody asks.
    var tlsVersion: String?
    let ip: IPAddress?
    let isTrusted: Bool
    private let trusted: TrustedProxies
    private let peer: Client
    /// The lines for the last host: a client seldom asks for a second one on its connection.
    private var cached: (host: String, lines: ByteBuffer) = ("", ByteBuffer())

    struct Told {
        /// The client's: the peer's unless that is trusted.
        var address: String
        /// If the peer gave one, and is trusted.
        var requestID: String?
    }

    private struct Client: Sendable {
        var address: String
        var node: String

        init(_ ip: IPAddress) {
            address = "\(ip)"
            node = ip.family == .v4 ? address : "\"[\(address)]\""
        }

        init(unknown text: String) {
            address = text
            node = "unknown"
        }
    }

    package init(_ remote: SocketAddress?, scheme: Scheme, trusted: TrustedProxies = TrustedProxies()) {
        self.scheme = scheme
        self.trusted = trusted
        let text = remote?.ipAddress ?? "unknown"
        ip = IPAddress(text)?.unmapped
        peer = ip.map { Client($0) } ?? Client(unknown: text)
        address = peer.address
        isTrusted = ip.map { trusted.contains($0) } ?? false
    }

    /// Writes the field lines that tell of the client. `host` is normalised: its letters need no quoting, except in an IPv6 literal.
    @discardableResult
    mutating func write(host: String, request: CheckedRequest, requestID: RequestID, into buffer: inout ByteBuffer) -> Told {
        var givenID: String?
        if isTrusted, let span = request.requestID, (1...Self.maximumRequestID).contains(span.count) {
            let text = request.section.text(span)
            buffer.writeString("X-Request-Id: \(text)\r\n")
            givenID = text
        } else {
            requestID.write(into: &buffer)
        }
        var client = peer
        if isTrusted {
            let (named, chain) = self.named(by: request)
            client = named ?? peer
            let proto = request.forwardedProto.map { request.section.text($0).lowercased() }
            let lines = Self.lines(
                client, chain: chain, host: host, scheme: proto.flatMap { Scheme(rawValue: $0) } ?? scheme)
            buffer.writeImmutableBuffer(lines)
        } else {
            if cached.host != host || cached.lines.readableBytes == 0 {
                cached = (host, Self.lines(peer, chain: peer.address, host: host, scheme: scheme))
            }
            buffer.writeImmutableBuffer(cached.lines)
        }
        return Told(address: client.address, requestID: givenID)
    }

    /// The client that a trusted peer speaks for, and the chain with that peer at its end.
    private func named(by request: CheckedRequest) -> (client: Client?, chain: String) {
        let members = request.forwardedFor.flatMap { request.section.text($0).split(separator: ",") }.map { HeaderTokens.trimmed($0) }
        var client: Client?
        for member in members.reversed() {
            guard let ip = IPAddress(String(member))?.unmapped else { break }
            client = Client(ip)
            if !trusted.contains(ip) { break }
        }
        return (client, (members.map { String($0) } + [peer.address]).joined(separator: ", "))
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
