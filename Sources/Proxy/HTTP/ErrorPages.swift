import NIOCore

/// The answers that the proxy gives itself: short, typed, and without a word about the inside. The only place that maps faults to statuses.
package struct ErrorPage: Equatable, Sendable {
    package var status: Int
    package var text: String
    package var fields: [(String, String)] = []
    /// The text is the body as it is, whatever the client likes.
    var isVerbatim = false
    /// How it is counted, if it is the client's fault.
    var refusal: HTTPCounters.Refusal?

    init(status: Int, text: String, fields: [(String, String)] = [], refusal: HTTPCounters.Refusal? = nil) {
        self.status = status
        self.text = text
        self.fields = fields
        self.refusal = refusal
    }

    package static func == (one: ErrorPage, other: ErrorPage) -> Bool {
        one.status == other.status && one.text == other.text && one.fields.elementsEqual(other.fields, by: ==)
    }

    package static let tunnelNotFound = ErrorPage(status: 404, text: "Tunnel not found", refusal: .unknownHost)
    package static let tunnelDisabled = ErrorPage(status: 503, text: "Tunnel disabled", refusal: .disabled)
    package static let badGateway = ErrorPage(status: 502, text: "Bad Gateway")
    package static let gatewayTimeout = ErrorPage(status: 504, text: "Gateway Timeout")
    package static let misdirected = ErrorPage(status: 421, text: "Misdirected Request", refusal: .misdirected)
    package static let headerTooLarge = ErrorPage(status: 431, text: "Request Header Fields Too Large", refusal: .headerTooLarge)
    package static let requestLineTooLong = ErrorPage(status: 414, text: "URI Too Long", refusal: .headerTooLarge)

    static func requestTimeout(_ refusal: HTTPCounters.Refusal) -> ErrorPage {
        ErrorPage(status: 408, text: "Request Timeout", refusal: refusal)
    }

    package static func tooManyRequests(retryAfter: Int) -> ErrorPage {
        ErrorPage(status: 429, text: "Too Many Requests", fields: [("Retry-After", "\(retryAfter)")], refusal: .clientLimit)
    }

    package static func unavailable(retryAfter: Int) -> ErrorPage {
        ErrorPage(status: 503, text: "Service Unavailable", fields: [("Retry-After", "\(retryAfter)")])
    }

    package static func refusal(_ refusal: RequestRefusal) -> ErrorPage {
        let fields = refusal.allow.map { [("Allow", $0)] } ?? []
        let kind: HTTPCounters.Refusal =
            switch refusal.status {
            case 405: .methodNotAllowed
            case 501: .notImplemented
            default: .badRequest
            }
        return ErrorPage(
            status: refusal.status, text: "\(StatusText.phrase(refusal.status)): \(refusal.reason)", fields: fields, refusal: kind)
    }

    /// 301 lets a client turn POST into GET, 308 does not.
    package static func redirect(_ request: CheckedRequest, origin: String) -> ErrorPage {
        let status = request.method == .get || request.method == .head ? 301 : 308
        let target = request.targetText
        return ErrorPage(
            status: status, text: StatusText.phrase(status), fields: [("Location", origin + (target == "*" ? "/" : target))])
    }

    package static func failure(_ failure: UpstreamFailure, limits: ProxyLimits) -> ErrorPage {
        switch failure {
        case .unreachable: .unavailable(retryAfter: limits.retryAfter)
        case .refused, .broken: .badGateway
        }
    }

    static func fault(_ fault: HeadFault) -> ErrorPage {
        switch fault {
        case .version: ErrorPage(status: 505, text: "HTTP Version Not Supported", refusal: .badRequest)
        case .requestLineTooLong: requestLineTooLong
        case .fieldTooLong, .sectionTooLong, .tooManyFields: headerTooLarge
        case .lineEnd, .requestLine, .statusLine, .obsoleteFold, .fieldName, .fieldValue, .chunkSize, .chunkExtension, .chunkEnd,
            .chunkOverhead:
            refusal(.bad(fault.reason))
        }
    }

    /// Fields and body in the form the client likes: plain text unless `Accept` prefers JSON or HTML.
    /// - Parameter requestID: maybe of another's making.
    package func render(accept: String?, requestID: String) -> (fields: [(String, String)], body: String) {
        let type: String
        let body: String
        switch isVerbatim ? nil : AcceptField.preferred(accept) {
        case nil:
            type = "application/octet-stream"
            body = text
        case .text:
            type = "text/plain; charset=utf-8"
            body = text + "\n"
        case .json:
            type = "application/json"
            body = "{\"status\":\(status),\"error\":\"\(text)\",\"requestID\":\(JSONText.quoted(requestID))}\n"
        case .html:
            type = "text/html; charset=utf-8"
            body =
                "<!doctype html><meta charset=\"utf-8\"><title>\(status) \(StatusText.phrase(status))</title>"
                + "<h1>\(text)</h1><p>\(status) \(StatusText.phrase(status))</p><p><small>Request \(Self.html(requestID))</small></p>\n"
        }
        let own = [
            ("Content-Type", type), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"), ("X-Request-Id", requestID),
        ]
        return (own + fields, body)
    }

    private static func html(_ text: String) -> String {
        text.unicodeScalars.reduce(into: "") { result, scalar in
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            default: result.unicodeScalars.append(scalar)
            }
        }
    }
}

/// Reason phrases, RFC 9110 §15, for what came without one.
enum StatusText {
    static func phrase(_ code: Int) -> String { phrases[code] ?? "Unknown" }

    private static let phrases: [Int: String] = [
        100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints", 200: "OK", 201: "Created", 202: "Accepted",
        203: "Non-Authoritative Information", 204: "No Content", 205: "Reset Content", 206: "Partial Content", 207: "Multi-Status",
        300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect",
        308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
        405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout", 409: "Conflict",
        410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large", 414: "URI Too Long",
        415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed", 421: "Misdirected Request",
        422: "Unprocessable Content", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
        431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons", 500: "Internal Server Error", 501: "Not Implemented",
        502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
        507: "Insufficient Storage", 508: "Loop Detected", 511: "Network Authentication Required",
    ]
}
