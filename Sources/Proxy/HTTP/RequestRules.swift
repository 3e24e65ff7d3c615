import NIOHTTP1

/// What a request needs before it may be passed on, and the fields that may travel.
package struct CheckedRequest {
    package enum Framing: Equatable, Sendable {
        case none
        case length(Int)
        case chunked
    }

    package var method: HTTPMethod
    /// In origin form, or `*`; byte-exact.
    package var target: String
    /// Of the URI if that is in absolute form, else of the Host field; not normalised. Empty if there was none.
    package var authority: String
    package var framing: Framing
    package var isHTTP10: Bool
    package var keepAlive: Bool
    /// A WebSocket handshake that may be passed on.
    package var wantsWebSocket: Bool
    /// NIO's parser stops behind a request with `Upgrade` that `Connection` or `Proxy-Connection` names: the connection carries no other one.
    package var endsParsing: Bool
    package var expectsContinue: Bool
    package var acceptsTrailers: Bool
    /// End-to-end fields, without Host, framing, and what we set ourselves.
    package var fields: [(String, String)]

    package var hasBody: Bool { framing != .none && framing != .length(0) }
}

/// Why a request is answered by the proxy itself.
package struct RequestRefusal: Equatable, Sendable {
    package var status: HTTPResponseStatus
    package var reason: String
    package var allow: String?

    static func bad(_ reason: String) -> RequestRefusal { RequestRefusal(status: .badRequest, reason: reason) }
}

/// The rules for request heads: what is refused, what is removed. Pure.
package enum RequestRules {
    package enum Forwarded: Sendable, Equatable {
        /// At the edge: what the client says about itself is dropped.
        case drop
        /// Behind a gateway of ours: what it said passes.
        case keep
    }

    package static func check(_ head: HTTPRequestHead, forwarded: Forwarded) -> Result<CheckedRequest, RefusedRequest> {
        let isHTTP10 = head.version.minor == 0
        var fields: [(String, String)] = []
        fields.reserveCapacity(head.headers.count + 10)
        var host: String?
        var length: Int?
        var isChunked = false
        var connection: [String] = []
        var namesUpgrade = false
        var stopsParser = false
        var upgrade: String?
        var expect: String?
        var hasTE = false
        var acceptsTrailers = false
        var webSocketVersion: String?
        var hasWebSocketKey = false

        for (name, value) in head.headers {
            if containsControl(value) { return .failure(.init(.bad("control character in a header field"))) }
            switch HeaderKind(name) {
            case .other: fields.append((name, value))
            case .host:
                guard host == nil else { return .failure(.init(.bad("more than one Host"))) }
                host = value
            case .contentLength:
                guard length == nil else { return .failure(.init(.bad("more than one Content-Length"))) }
                guard let number = HeaderTokens.length(value) else { return .failure(.init(.bad("bad Content-Length"))) }
                length = number
            case .transferEncoding:
                guard !isHTTP10 else { return .failure(.init(.bad("Transfer-Encoding in HTTP/1.0"))) }
                guard !isChunked, HeaderTokens.equals(value, "chunked") else {
                    return .failure(
                        .init(RequestRefusal(status: .notImplemented, reason: "only the chunked transfer coding is understood")))
                }
                isChunked = true
            case .connection:
                connection += HeaderTokens.list(value)
                if HeaderTokens.namesUpgrade(value) { namesUpgrade = true }
            case .proxyConnection: if HeaderTokens.list(value).contains("upgrade") { stopsParser = true }
            case .te:
                hasTE = true
                if HeaderTokens.list(value).contains("trailers") { acceptsTrailers = true }
            case .upgrade: upgrade = upgrade.map { "\($0),\(value)" } ?? value
            case .expect: expect = value
            case .webSocketVersion:
                webSocketVersion = value
                fields.append((name, value))
            case .webSocketKey:
                hasWebSocketKey = true
                fields.append((name, value))
            case .hopByHop, .dangerous: break
            case .forwarded: if forwarded == .keep { fields.append((name, value)) }
            }
        }
        if isChunked, length != nil { return .failure(.init(.bad("Content-Length and Transfer-Encoding"))) }
        if !isHTTP10, host == nil { return .failure(.init(.bad("no Host"))) }
        if head.method == .TRACE || head.method == .CONNECT {
            return .failure(
                .init(RequestRefusal(status: .methodNotAllowed, reason: "\(head.method.rawValue) is not allowed", allow: allowed)))
        }
        guard let (target, authority) = requestTarget(head, host: host ?? "") else { return .failure(.init(.bad("bad request target"))) }

        let framing: CheckedRequest.Framing = isChunked ? .chunked : length.map { .length($0) } ?? .none
        let endsParsing = upgrade != nil && (stopsParser || connection.contains("upgrade"))
        let wantsWebSocket =
            namesUpgrade && head.method == .GET && !isHTTP10 && (framing == .none || framing == .length(0)) && hasWebSocketKey
            && webSocketVersion == "13" && HeaderTokens.equals(upgrade ?? "", "websocket")
        let named = connection.filter { !ours.contains($0) }
        if !named.isEmpty { fields.removeAll { field in named.contains(field.0.lowercased()) } }
        var expectsContinue = false
        if let expect, !isHTTP10 {
            guard HeaderTokens.equals(expect, "100-continue") else {
                return .failure(.init(RequestRefusal(status: .expectationFailed, reason: "unknown expectation")))
            }
            expectsContinue = true
        }
        let keepAlive = connection.contains("close") ? false : !isHTTP10 || connection.contains("keep-alive")
        return .success(
            CheckedRequest(
                method: head.method, target: target, authority: authority, framing: framing, isHTTP10: isHTTP10,
                keepAlive: keepAlive && !endsParsing, wantsWebSocket: wantsWebSocket, endsParsing: endsParsing,
                expectsContinue: expectsContinue, acceptsTrailers: hasTE && acceptsTrailers, fields: fields))
    }

    /// The head for the next hop. `host` is what is sent as Host, `added` goes behind the client's fields.
    package static func upstreamHead(_ request: CheckedRequest, host: String, added: [(String, String)]) -> HTTPRequestHead {
        var fields: [(String, String)] = []
        fields.reserveCapacity(request.fields.count + added.count + 4)
        fields.append(("Host", host))
        fields.append(contentsOf: request.fields)
        fields.append(contentsOf: added)
        switch request.framing {
        case .none: break
        case .length(let length): fields.append(("Content-Length", String(length)))
        case .chunked: fields.append(("Transfer-Encoding", "chunked"))
        }
        if request.expectsContinue { fields.append(("Expect", "100-continue")) }
        if request.wantsWebSocket {
            fields.append(("Connection", "Upgrade"))
            fields.append(("Upgrade", "websocket"))
        } else if request.acceptsTrailers {
            fields.append(("TE", "trailers"))
            fields.append(("Connection", "TE"))
        }
        return HTTPRequestHead(version: .http1_1, method: request.method, uri: request.target, headers: HTTPHeaders(fields))
    }

    /// Trailer fields that may travel: none that frames, routes or authenticates, RFC 9110 §6.5.1. The same both ways.
    package static func trailers(_ trailers: HTTPHeaders?) -> HTTPHeaders? {
        guard let trailers else { return nil }
        let kept = trailers.filter { name, value in
            HeaderKind(name) == .other && !containsControl(value) && !forbiddenTrailers.contains(name.lowercased())
        }
        return kept.isEmpty ? nil : HTTPHeaders(kept.map { ($0.name, $0.value) })
    }

    /// NUL, CR, LF and other controls, but tab: the parser has not refused all of them.
    static func containsControl(_ value: String) -> Bool {
        value.utf8.contains { ($0 < 0x20 && $0 != 0x09) || $0 == 0x7F }
    }

    /// RFC 9112 §3.2: origin form, absolute form (its authority wins over Host), and `*` for OPTIONS.
    private static func requestTarget(_ head: HTTPRequestHead, host: String) -> (target: String, authority: String)? {
        let uri = head.uri
        guard !uri.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7F || $0 == UInt8(ascii: "#") }) else { return nil }
        if uri.utf8.first == UInt8(ascii: "/") { return (uri, host) }
        if uri == "*" { return head.method == .OPTIONS ? (uri, host) : nil }
        guard let colon = uri.utf8.firstIndex(of: UInt8(ascii: ":")), uri[colon...].hasPrefix("://") else { return nil }
        let scheme = uri[..<colon].lowercased()
        guard scheme == "http" || scheme == "https" else { return nil }
        let rest = uri[colon...].dropFirst(3)
        let end = rest.utf8.firstIndex { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") } ?? rest.endIndex
        let authority = rest[..<end]
        guard !authority.isEmpty else { return nil }
        if end == rest.endIndex { return (head.method == .OPTIONS ? "*" : "/", String(authority)) }
        let path = rest[end...]
        return (path.utf8.first == UInt8(ascii: "?") ? "/" + path : String(path), String(authority))
    }

    /// Names in `Connection` that mean something else than a field to remove, or that we frame and set ourselves.
    private static let ours: Set<String> = ["close", "keep-alive", "upgrade", "te"]
    private static let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    private static let forbiddenTrailers: Set<String> = [
        "authorization", "cookie", "set-cookie", "content-type", "content-encoding", "content-range", "trailer", "cache-control",
        "max-forwards",
        "www-authenticate", "location", "range", "if-match", "if-none-match", "date", "expires", "age", "vary", "pragma", "warning",
    ]
}

/// A refusal as the failure of a `Result`.
package struct RefusedRequest: Error, Equatable {
    package var refusal: RequestRefusal
    init(_ refusal: RequestRefusal) { self.refusal = refusal }
}
