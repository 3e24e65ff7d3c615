import NIOCore

/// A response head that may be passed on.
package struct CheckedResponse {
    package enum Framing: Equatable, Sendable {
        /// HEAD, 204, 304: no body, whatever the fields say.
        case none
        case length(Int)
        /// `isRaw`: the body's bytes come with their chunk framing.
        case chunked(isRaw: Bool)
        /// Ends with the connection.
        case untilClose
    }

    package internal(set) var code: Int
    /// The upstream's own reason phrase; empty in HTTP/2.
    var reason: FieldSection.Span
    package internal(set) var framing: Framing
    /// The upstream will take another request.
    package internal(set) var keepAlive: Bool
    /// The protocol that a 101 changes to.
    var upgrade: FieldSection.Span?
    /// End-to-end fields, without framing.
    package internal(set) var section: FieldSection
    /// Kept for HEAD and 304, where it frames nothing.
    var statedLength: Int?
}

/// Why a response is not passed on; the client sees 502.
package enum ResponseFault: Error, Equatable, Sendable {
    case malformed(HeadFault)
    case lengthAndTransferEncoding, differingLengths, badLength, unknownTransferEncoding, tooManyConnectionOptions
    case unaskedUpgrade, wrongWebSocketAccept, webSocketNotOpened, tooManyInformational, badStatus, unexpectedPart

    package var reason: String {
        switch self {
        case .malformed(let fault): "response: \(fault.reason)"
        case .lengthAndTransferEncoding: "response with Content-Length and Transfer-Encoding"
        case .differingLengths: "response with more than one Content-Length"
        case .badLength: "response with a bad Content-Length"
        case .unknownTransferEncoding: "response with an unknown transfer coding"
        case .tooManyConnectionOptions: "response with too many options in Connection"
        case .unaskedUpgrade: "response 101 that was not asked for"
        case .wrongWebSocketAccept: "response 101 with a wrong Sec-WebSocket-Accept"
        case .webSocketNotOpened: "response 2xx where a WebSocket was asked for"
        case .tooManyInformational: "too many 1xx responses"
        case .badStatus: "response with a status that is no status"
        case .unexpectedPart: "response out of order"
        }
    }
}

/// The rules for response heads. Pure; the same for HTTP/1.1 and HTTP/2.
package enum ResponseRules {
    /// - Parameters:
    ///   - rawChunks: whether chunks are passed on with their framing.
    ///   - untilClose: whether a body without stated length ends with the connection (HTTP/1.1) or is framed otherwise (HTTP/2).
    package static func check(
        code: Int, reason: FieldSection.Span, isHTTP10: Bool, _ section: FieldSection, isHEAD: Bool, rawChunks: Bool,
        untilClose: Bool = true
    ) -> Result<CheckedResponse, ResponseFault> {
        var kept = FieldSection(bytes: section.bytes)
        kept.lines.reserveCapacity(section.lines.count)
        var length: Int?
        var isChunked = false
        var connection: [String] = []
        var upgrade: FieldSection.Span?
        guard code >= 100, code < 600 else { return .failure(.badStatus) }
        for line in section.lines {
            switch line.kind {
            case .contentLength:
                guard length == nil else { return .failure(.differingLengths) }
                guard let number = section.withBytes(line.value, { HeaderTokens.length($0) }) else { return .failure(.badLength) }
                length = number
            case .transferEncoding:
                guard !isChunked, section.withBytes(line.value, { HeaderTokens.equals($0, "chunked") }) else {
                    return .failure(.unknownTransferEncoding)
                }
                isChunked = true
            case .connection:
                guard HeaderTokens.addConnection(section, line.value, to: &connection) else { return .failure(.tooManyConnectionOptions) }
            case .upgrade: upgrade = line.value
            case .hopByHop, .te: break
            case .other, .accept, .host, .expect, .webSocketKey, .webSocketVersion, .webSocketAccept, .forwarded, .forwardedFor, .requestID,
                .dangerous:
                kept.lines.append(line)
            }
        }
        if isChunked, length != nil { return .failure(.lengthAndTransferEncoding) }
        kept.remove(named: connection.filter { $0 != "close" && $0 != "keep-alive" && $0 != "upgrade" })

        let isBodiless = isHEAD || code == 204 || code == 304 || code < 200
        let framing: CheckedResponse.Framing =
            if isBodiless { .none } else if isChunked { .chunked(isRaw: rawChunks) } else if let length { .length(length) } else {
                untilClose ? .untilClose : .chunked(isRaw: false)
            }
        let keepAlive = connection.contains("close") ? false : !isHTTP10 || connection.contains("keep-alive")
        // RFC 9110 §8.6 and RFC 9112 §6.1 forbid it: the body may yet come, and would be the answer to the next request.
        let announcesBody = code == 204 && (isChunked || length ?? 0 > 0)
        return .success(
            CheckedResponse(
                code: code, reason: reason, framing: framing, keepAlive: keepAlive && framing != .untilClose && !announcesBody,
                upgrade: code == 101 && connection.contains("upgrade") ? upgrade : nil,
                section: kept, statedLength: code == 204 || code < 200 ? nil : length))
    }
}
