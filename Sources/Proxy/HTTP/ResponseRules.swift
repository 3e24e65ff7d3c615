import NIOHTTP1

/// A response head that may be passed on.
package struct CheckedResponse {
    package enum Framing: Equatable, Sendable {
        /// HEAD, 204, 304: no body, whatever the fields say.
        case none
        case length(Int)
        case chunked
        /// Ends with the connection.
        case untilClose
    }

    package var status: HTTPResponseStatus
    package var framing: Framing
    /// The upstream will take another request.
    package var keepAlive: Bool
    /// A 101 that agrees to WebSocket.
    package var acceptsWebSocket: Bool
    /// End-to-end fields, without framing.
    package var fields: [(String, String)]
    /// Kept for HEAD and 304, where it frames nothing.
    package var statedLength: Int?
}

/// Why a response is not passed on; the client sees 502.
package enum ResponseFault: String, Error, Sendable, CaseIterable {
    case lengthAndTransferEncoding = "response with Content-Length and Transfer-Encoding"
    case differingLengths = "response with more than one Content-Length"
    case badLength = "response with a bad Content-Length"
    case unknownTransferEncoding = "response with an unknown transfer coding"
    case controlCharacter = "control character in a response field"
    case unaskedUpgrade = "response 101 that was not asked for"
    case tooManyInformational = "too many 1xx responses"
    case badStatus = "response with a status that is no status"
    case unexpectedPart = "response out of order"
}

/// The rules for response heads. Pure.
package enum ResponseRules {
    package static func check(_ head: HTTPResponseHead, isHEAD: Bool) -> Result<CheckedResponse, ResponseFault> {
        var fields: [(String, String)] = []
        fields.reserveCapacity(head.headers.count + 3)
        var length: Int?
        var isChunked = false
        var connection: [String] = []
        var namesUpgrade = false
        var upgrade: String?
        guard head.status.code >= 100 else { return .failure(.badStatus) }
        for (name, value) in head.headers {
            if RequestRules.containsControl(value) { return .failure(.controlCharacter) }
            switch HeaderKind(name) {
            case .contentLength:
                guard length == nil else { return .failure(.differingLengths) }
                guard let number = HeaderTokens.length(value) else { return .failure(.badLength) }
                length = number
            case .transferEncoding:
                guard !isChunked, HeaderTokens.equals(value, "chunked") else { return .failure(.unknownTransferEncoding) }
                isChunked = true
            case .connection:
                connection += HeaderTokens.list(value)
                if HeaderTokens.namesUpgrade(value) { namesUpgrade = true }
            case .upgrade: upgrade = value
            case .hopByHop, .proxyConnection, .te: break
            case .other, .host, .expect, .webSocketKey, .webSocketVersion, .forwarded, .dangerous: fields.append((name, value))
            }
        }
        if isChunked, length != nil { return .failure(.lengthAndTransferEncoding) }
        let named = connection.filter { $0 != "close" && $0 != "keep-alive" && $0 != "upgrade" }
        if !named.isEmpty { fields.removeAll { field in named.contains(field.0.lowercased()) } }

        let code = head.status.code
        let isBodiless = isHEAD || code == 204 || code == 304 || code < 200
        let framing: CheckedResponse.Framing =
            if isBodiless { .none } else if isChunked { .chunked } else if let length { .length(length) } else { .untilClose }
        let isHTTP10 = head.version.minor == 0
        let keepAlive = connection.contains("close") ? false : !isHTTP10 || connection.contains("keep-alive")
        return .success(
            CheckedResponse(
                status: head.status, framing: framing, keepAlive: keepAlive && framing != .untilClose,
                acceptsWebSocket: code == 101 && namesUpgrade && HeaderTokens.equals(upgrade ?? "", "websocket"),
                fields: fields, statedLength: code == 204 || code < 200 ? nil : length))
    }
}
