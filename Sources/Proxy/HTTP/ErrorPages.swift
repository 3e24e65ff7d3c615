import NIOCore
import NIOHTTP1

/// The answers that the proxy gives itself: short, typed, and without a word about the inside. The only place that maps faults to statuses.
package struct ErrorPage: Equatable, Sendable {
    package var status: HTTPResponseStatus
    package var text: String
    package var fields: [(String, String)] = []

    package static func == (one: ErrorPage, other: ErrorPage) -> Bool {
        one.status == other.status && one.text == other.text && one.fields.elementsEqual(other.fields, by: ==)
    }

    package static let tunnelNotFound = ErrorPage(status: .notFound, text: "Tunnel not found")
    package static let tunnelDisabled = ErrorPage(status: .serviceUnavailable, text: "Tunnel disabled")
    package static let badGateway = ErrorPage(status: .badGateway, text: "Bad Gateway")
    package static let gatewayTimeout = ErrorPage(status: .gatewayTimeout, text: "Gateway Timeout")
    package static let requestTimeout = ErrorPage(status: .requestTimeout, text: "Request Timeout")
    package static let misdirected = ErrorPage(status: .misdirectedRequest, text: "Misdirected Request")
    package static let headerTooLarge = ErrorPage(status: .requestHeaderFieldsTooLarge, text: "Request Header Fields Too Large")

    package static func unavailable(retryAfter: Int) -> ErrorPage {
        ErrorPage(status: .serviceUnavailable, text: "Service Unavailable", fields: [("Retry-After", "\(retryAfter)")])
    }

    package static func refusal(_ refusal: RequestRefusal) -> ErrorPage {
        let fields = refusal.allow.map { [("Allow", $0)] } ?? []
        return ErrorPage(status: refusal.status, text: "\(refusal.status.reasonPhrase): \(refusal.reason)", fields: fields)
    }

    /// 301 lets a client turn POST into GET, 308 does not.
    package static func redirect(_ request: CheckedRequest, origin: String) -> ErrorPage {
        let status: HTTPResponseStatus = request.method == .GET || request.method == .HEAD ? .movedPermanently : .permanentRedirect
        let location = origin + (request.target == "*" ? "/" : request.target)
        return ErrorPage(status: status, text: status.reasonPhrase, fields: [("Location", location)])
    }

    package static func failure(_ failure: UpstreamFailure, limits: ProxyLimits) -> ErrorPage {
        switch failure {
        case .unreachable: .unavailable(retryAfter: limits.retryAfter)
        case .refused, .broken: .badGateway
        }
    }

    package static func parserError(_ error: any Error) -> ErrorPage {
        switch error {
        case HTTPParserError.headerOverflow: .headerTooLarge
        case HTTPParserError.invalidVersion:
            ErrorPage(status: .httpVersionNotSupported, text: "HTTP Version Not Supported")
        default: ErrorPage(status: .badRequest, text: "Bad Request")
        }
    }

    /// Fields and body in the form the client likes: plain text unless `Accept` names JSON or HTML first.
    package func render(accept: String?, requestID: String) -> (fields: [(String, String)], body: String) {
        let type: String
        let body: String
        switch Self.preferred(accept) {
        case .text:
            type = "text/plain; charset=utf-8"
            body = text + "\n"
        case .json:
            type = "application/json"
            body = "{\"status\":\(status.code),\"error\":\"\(text)\",\"requestID\":\"\(requestID)\"}\n"
        case .html:
            type = "text/html; charset=utf-8"
            body =
                "<!doctype html><meta charset=\"utf-8\"><title>\(status.code) \(status.reasonPhrase)</title>"
                + "<h1>\(text)</h1><p>\(status.code) \(status.reasonPhrase)</p><p><small>Request \(requestID)</small></p>\n"
        }
        let own = [
            ("Content-Type", type), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"), ("X-Request-Id", requestID),
        ]
        return (own + fields, body)
    }

    private enum Form { case text, json, html }

    private static func preferred(_ accept: String?) -> Form {
        guard let accept else { return .text }
        for type in HeaderTokens.list(accept) {
            if type.hasPrefix("text/html") { return .html }
            if type.hasPrefix("application/json") { return .json }
            if type.hasPrefix("text/plain") || type.hasPrefix("*/*") { return .text }
        }
        return .text
    }
}
