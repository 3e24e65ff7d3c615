/// Why bytes are no message of HTTP/1.1. A request with such a fault is answered, a response with one is 502.
package enum HeadFault: Error, Equatable, Sendable, CaseIterable {
    /// A line that ends with LF alone, or has a CR elsewhere: RFC 9112 §2.2.
    case lineEnd
    case requestLine, statusLine
    /// Not HTTP/1.0 or HTTP/1.1.
    case version
    /// A line that begins with a blank: RFC 9112 §5.2.
    case obsoleteFold
    /// No token before the colon, or a blank between them: RFC 9112 §5.1.
    case fieldName
    /// A control character other than tab: RFC 9110 §5.5.
    case fieldValue
    case requestLineTooLong
    case fieldTooLong, sectionTooLong, tooManyFields
    case chunkSize, chunkExtension, chunkEnd
    /// Far more framing than data.
    case chunkOverhead

    var reason: String {
        switch self {
        case .lineEnd: "bad line end"
        case .requestLine: "bad request line"
        case .statusLine: "bad status line"
        case .version: "unknown version"
        case .obsoleteFold: "folded header field"
        case .fieldName: "bad header field name"
        case .fieldValue: "control character in a header field"
        case .requestLineTooLong: "request line too long"
        case .fieldTooLong: "header field too long"
        case .sectionTooLong: "header section too long"
        case .tooManyFields: "too many header fields"
        case .chunkSize: "bad chunk size"
        case .chunkExtension: "bad chunk extension"
        case .chunkEnd: "bad end of a chunk"
        case .chunkOverhead: "chunks too small"
        }
    }
}
