import NIOCore

/// What a request needs before it may be passed on, and the fields that may travel.
package struct CheckedRequest {
    package enum Framing: Equatable, Sendable {
        case none
        case length(Int)
        case chunked
    }

    /// RFC 9110 §9, as far as a proxy has to tell them apart.
    package enum Method: Equatable, Sendable {
        case get, head, options, put, delete, trace, connect, other
    }

    package enum Version: Equatable, Sendable {
        case http10, http11, http2

        var name: StaticString {
            switch self {
            case .http10: "HTTP/1.0"
            case .http11: "HTTP/1.1"
            case .http2: "HTTP/2"
            }
        }
    }

    /// RFC 9112 §3.2. Bytes are in the section's buffer.
    enum Target: Equatable {
        /// As it came; it begins with `/`.
        case origin(FieldSection.Span)
        /// A query without a path: `/` goes before it.
        case query(FieldSection.Span)
        case root, asterisk
    }

    package internal(set) var method: Method
    var methodName: FieldSection.Span
    var target: Target
    /// Of the URI if that is in absolute form, else of the Host field; not normalised. Empty if there was none.
    var authority: FieldSection.Span
    package internal(set) var framing: Framing
    package internal(set) var version: Version
    package internal(set) var keepAlive: Bool
    /// The one protocol that the client would change to, if it may be asked for in this request at all. In HTTP/2 it is `:protocol`.
    var upgrade: FieldSection.Span?
    /// The request is what RFC 6455 §4.1 or RFC 8441 §5 demand of a handshake, the protocol's name apart.
    var isWebSocket = false
    var expectsContinue: Bool
    var acceptsTrailers: Bool
    /// End-to-end fields, without Host, framing, and what we set ourselves.
    package internal(set) var section: FieldSection
    /// What the client says of itself, for clients that are trusted to know.
    var forwardedFor: [FieldSection.Span] = []
    var forwardedProto: FieldSection.Span?
    var requestID: FieldSection.Span?

    package var hasBody: Bool { framing != .none && framing != .length(0) }
    package var isHTTP10: Bool { version == .http10 }

    /// Method and target for logs, byte-exact as far as text can be.
    package var methodText: String { section.text(methodName) }
    package var targetText: String {
        switch target {
        case .origin(let span): section.text(span)
        case .query(let span): "/" + section.text(span)
        case .root: "/"
        case .asterisk: "*"
        }
    }
    package var authorityText: String { section.text(authority) }
    /// Without what might be somebody's password.
    var hostForLogs: String { authorityText.split(separator: "@", omittingEmptySubsequences: false).last.map { String($0) } ?? "" }

    /// RFC 9110 §9.2.2.
    var isIdempotent: Bool {
        switch method {
        case .get, .head, .options, .put, .delete, .trace: true
        case .connect, .other: false
        }
    }

    /// The protocol to change to, in lower case, if the route lets it pass.
    func upgradeToken(allowed: [String]) -> String? {
        guard let upgrade else { return nil }
        let token = section.text(upgrade).lowercased()
        return allowed.contains(token) && (token != "websocket" || isWebSocket) ? token : nil
    }

    func writeTarget(into buffer: inout ByteBuffer) {
        switch target {
        case .origin(let span): section.withBytes(span) { _ = buffer.writeBytes($0) }
        case .query(let span):
            buffer.writeStaticString("/")
            section.withBytes(span) { _ = buffer.writeBytes($0) }
        case .root: buffer.writeStaticString("/")
        case .asterisk: buffer.writeStaticString("*")
        }
    }
}

extension CheckedRequest.Method {
    init(_ name: UnsafeRawBufferPointer) {
        func equals(_ text: StaticString) -> Bool {
            name.elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
        }
        switch name.count {
        case 3: self = equals("GET") ? .get : equals("PUT") ? .put : .other
        case 4: self = equals("HEAD") ? .head : .other
        case 5: self = equals("TRACE") ? .trace : .other
        case 6: self = equals("DELETE") ? .delete : .other
        case 7: self = equals("OPTIONS") ? .options : equals("CONNECT") ? .connect : .other
        default: self = .other
        }
    }
}

/// Why a request is answered by the proxy itself.
package struct RequestRefusal: Error, Equatable, Sendable {
    package var status: Int
    package var reason: String
    package var allow: String?

    static func bad(_ reason: String) -> RequestRefusal { RequestRefusal(status: 400, reason: reason) }
}
