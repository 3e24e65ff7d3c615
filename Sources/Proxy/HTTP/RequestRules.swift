import NIOCore

/// The rules for request heads: what is refused, what is removed. Pure; the same for HTTP/1.1 and HTTP/2.
package enum RequestRules {
    package enum Forwarded: Sendable, Equatable {
        /// What the client says about itself is dropped.
        case drop
        /// Behind a gateway of ours: what it said passes.
        case keep
    }

    /// A request of HTTP/1.0 or HTTP/1.1.
    package static func check(
        _ line: HeadParser.RequestLine, _ section: FieldSection, forwarded: Forwarded
    ) -> Result<CheckedRequest, RequestRefusal> {
        let method = section.withBytes(line.method) { CheckedRequest.Method($0) }
        let version: CheckedRequest.Version = line.minorVersion == 0 ? .http10 : .http11
        var request = CheckedRequest(
            method: method, methodName: line.method, target: .root, authority: .empty, framing: .none, version: version, keepAlive: true,
            expectsContinue: false, acceptsTrailers: false, section: FieldSection(bytes: section.bytes))
        var found = Found()
        if let refusal = sort(section, into: &request, &found, forwarded: forwarded) { return .failure(refusal) }

        if found.isChunked, found.length != nil { return .failure(.bad("Content-Length and Transfer-Encoding")) }
        if version == .http11, found.host == nil { return .failure(.bad("no Host")) }
        if method == .trace || method == .connect {
            return .failure(RequestRefusal(status: 405, reason: "\(method == .trace ? "TRACE" : "CONNECT") is not allowed", allow: allowed))
        }
        guard let (target, authority) = requestTarget(section, line.target, method, host: found.host ?? .empty) else {
            return .failure(.bad("bad request target"))
        }
        request.target = target
        request.authority = authority
        request.framing = found.isChunked ? .chunked : found.length.map { .length($0) } ?? .none
        if found.connection.contains("upgrade"), version == .http11, !request.hasBody, !found.hasSeveralUpgrades {
            request.upgrade = found.upgrade
            request.isWebSocket = method == .get && found.hasWebSocketKey && found.isWebSocketVersion13
        }
        request.section.remove(named: found.connection.filter { !ours.contains($0) })
        request.keepAlive = found.connection.contains("close") ? false : version == .http11 || found.connection.contains("keep-alive")
        return finish(&request, found)
    }

    /// A request of HTTP/2: its pseudo-header fields are known to be there once each, and its fields to be none of one connection.
    package static func check(
        method: FieldSection.Span, path: FieldSection.Span, authority: FieldSection.Span?, protocol: FieldSection.Span?,
        _ section: FieldSection, endStream: Bool, forwarded: Forwarded
    ) -> Result<CheckedRequest, RequestRefusal> {
        guard section.withBytes(method, { !$0.isEmpty && $0.allSatisfy(HeaderBytes.isToken) }) else { return .failure(.bad("bad :method")) }
        let kind = section.withBytes(method) { CheckedRequest.Method($0) }
        var request = CheckedRequest(
            method: kind, methodName: method, target: .root, authority: .empty, framing: .none, version: .http2, keepAlive: true,
            expectsContinue: false, acceptsTrailers: false, section: FieldSection(bytes: section.bytes))
        var found = Found()
        if let refusal = sort(section, into: &request, &found, forwarded: forwarded) { return .failure(refusal) }
        if found.isChunked { return .failure(.bad("Transfer-Encoding in HTTP/2")) }
        // RFC 9113 §8.3.1: Host must not differ from :authority.
        if let authority, let host = found.host, section.text(authority).lowercased() != section.text(host).lowercased() {
            return .failure(.bad(":authority and Host differ"))
        }
        guard let named = authority ?? found.host, !named.isEmpty else { return .failure(.bad("no :authority")) }
        if kind == .connect {
            guard let `protocol` else {
                return .failure(RequestRefusal(status: 405, reason: "CONNECT is not allowed", allow: allowed))
            }
            guard section.withBytes(`protocol`, { HeaderTokens.equals($0, "websocket") }) else {
                return .failure(RequestRefusal(status: 501, reason: "unknown :protocol"))
            }
            guard found.isWebSocketVersion13 else { return .failure(.bad("bad Sec-WebSocket-Version")) }
            request.upgrade = `protocol`
            request.isWebSocket = true
        } else if `protocol` != nil {
            return .failure(.bad(":protocol without CONNECT"))
        }
        if kind == .trace { return .failure(RequestRefusal(status: 405, reason: "TRACE is not allowed", allow: allowed)) }
        // RFC 9113 §8.3.1: the absolute form is none of HTTP/2.
        guard section.withBytes(path, { $0.first == UInt8(ascii: "/") || $0.elementsEqual("*".utf8) }),
            let (target, _) = requestTarget(section, path, kind, host: named)
        else { return .failure(.bad("bad :path")) }
        request.target = target
        request.authority = named
        if request.upgrade == nil {
            request.framing = endStream ? found.length.map { .length($0) } ?? .none : found.length.map { .length($0) } ?? .chunked
            if endStream, let length = found.length, length > 0 { return .failure(.bad("Content-Length without a body")) }
        }
        return finish(&request, found)
    }

    /// Trailer fields that may travel: none that frames, routes or authenticates, RFC 9110 §6.5.1. The same both ways.
    package static func trailers(_ section: FieldSection?) -> FieldSection? {
        guard var section else { return nil }
        let whole = section
        section.lines.removeAll { line in
            (line.kind != .other && line.kind != .accept) || forbiddenTrailers.contains(whole.text(line.name).lowercased())
        }
        return section.isEmpty ? nil : section
    }

    /// What the fields say that do not travel as they are.
    private struct Found {
        var host: FieldSection.Span?
        var length: Int?
        var isChunked = false
        var connection: [String] = []
        var upgrade: FieldSection.Span?
        var hasSeveralUpgrades = false
        var expect: FieldSection.Span?
        var isWebSocketVersion13 = false
        var hasWebSocketKey = false
    }

    private static func sort(
        _ section: FieldSection, into request: inout CheckedRequest, _ found: inout Found, forwarded: Forwarded
    ) -> RequestRefusal? {
        request.section.lines.reserveCapacity(section.lines.count)
        for line in section.lines {
            switch line.kind {
            case .other, .accept: request.section.lines.append(line)
            case .host:
                guard found.host == nil else { return .bad("more than one Host") }
                found.host = line.value
            case .contentLength:
                guard found.length == nil else { return .bad("more than one Content-Length") }
                guard let number = section.withBytes(line.value, { HeaderTokens.length($0) }) else { return .bad("bad Content-Length") }
                found.length = number
            case .transferEncoding:
                guard request.version != .http10 else { return .bad("Transfer-Encoding in HTTP/1.0") }
                guard !found.isChunked, section.withBytes(line.value, { HeaderTokens.equals($0, "chunked") }) else {
                    return RequestRefusal(status: 501, reason: "only the chunked transfer coding is understood")
                }
                found.isChunked = true
            case .connection:
                guard HeaderTokens.addConnection(section, line.value, to: &found.connection) else {
                    return .bad("too many options in Connection")
                }
            case .te: if HeaderTokens.list(section.text(line.value)).contains("trailers") { request.acceptsTrailers = true }
            case .upgrade:
                found.hasSeveralUpgrades = found.upgrade != nil
                found.upgrade = line.value
            case .expect: found.expect = line.value
            case .webSocketVersion:
                found.isWebSocketVersion13 = section.withBytes(line.value) { HeaderTokens.equals($0, "13") }
                request.section.lines.append(line)
            case .webSocketKey:
                found.hasWebSocketKey = true
                if request.method != .connect { request.section.lines.append(line) }
            // RFC 8441 §5: neither is used in HTTP/2. The key that goes on is ours.
            case .webSocketAccept: if request.method != .connect { request.section.lines.append(line) }
            case .hopByHop, .dangerous: break
            case .forwarded:
                if forwarded == .keep { request.section.lines.append(line) }
                if section.withBytes(line.name, { HeaderTokens.equals($0, "x-forwarded-proto") }) { request.forwardedProto = line.value }
            case .forwardedFor:
                if forwarded == .keep { request.section.lines.append(line) }
                request.forwardedFor.append(line.value)
            case .requestID:
                if forwarded == .keep { request.section.lines.append(line) }
                request.requestID = line.value
            }
        }
        return nil
    }

    private static func finish(_ request: inout CheckedRequest, _ found: Found) -> Result<CheckedRequest, RequestRefusal> {
        if let expect = found.expect, request.version != .http10 {
            guard request.section.withBytes(expect, { HeaderTokens.equals($0, "100-continue") }) else {
                return .failure(RequestRefusal(status: 417, reason: "unknown expectation"))
            }
            request.expectsContinue = true
        }
        return .success(request)
    }

    /// RFC 9112 §3.2: origin form, absolute form (its authority wins over Host), and `*` for OPTIONS.
    static func requestTarget(
        _ section: FieldSection, _ span: FieldSection.Span, _ method: CheckedRequest.Method, host: FieldSection.Span
    ) -> (target: CheckedRequest.Target, authority: FieldSection.Span)? {
        section.withBytes(span) { uri in
            guard let first = uri.first, uri.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") }) else { return nil }
            if first == UInt8(ascii: "/") { return (.origin(span), host) }
            if uri.count == 1, first == UInt8(ascii: "*") { return method == .options ? (.asterisk, host) : nil }
            let prefix = uri.prefix(8)
            let scheme: Int
            if prefix.count > 7, HeaderKind.matches(UnsafeRawBufferPointer(rebasing: prefix[..<7]), "http://") {
                scheme = 7
            } else if uri.count > 8, HeaderKind.matches(UnsafeRawBufferPointer(rebasing: prefix), "https://") {
                scheme = 8
            } else {
                return nil
            }
            let rest = uri[scheme...]
            let end = rest.firstIndex { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") } ?? rest.endIndex
            guard end > scheme else { return nil }
            let authority = FieldSection.Span(span.lower + scheme, span.lower + end)
            guard end < rest.endIndex else { return (method == .options ? .asterisk : .root, authority) }
            let path = FieldSection.Span(span.lower + end, span.upper)
            return (rest[end] == UInt8(ascii: "?") ? .query(path) : .origin(path), authority)
        }
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
