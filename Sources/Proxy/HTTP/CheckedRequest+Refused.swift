import NIOCore
import NIOHPACK

/// What is known of a request that is refused, for the form of its answer and for the log. It is never passed on.
extension CheckedRequest {
    /// Of HTTP/1.0 or HTTP/1.1.
    init(refused line: HeadParser.RequestLine, _ section: FieldSection) {
        let hosts = section.lines.filter { $0.kind == .host }.map(\.value)
        let isConnect = section.withBytes(line.method) { Method($0) } == .connect
        self.init(
            refused: line.method, isConnect ? .empty : line.target,
            authority: isConnect ? line.target : hosts.count == 1 ? hosts[0] : .empty,
            version: line.minorVersion == 0 ? .http10 : .http11, section)
    }

    /// Of HTTP/2. Fields that nobody asks for here are not copied.
    init(refused headers: HPACKHeaders) {
        var section = FieldSection()
        var (method, path, authority) = (FieldSection.Span.empty, FieldSection.Span.empty, FieldSection.Span?.none)
        for (name, value, _) in headers where value.utf8.allSatisfy(HeaderBytes.isValue) {
            guard Self.known.contains(name) else { continue }
            section.append(name: name, value: value)
            guard let line = section.lines.last else { continue }
            switch name {
            case ":method": method = line.value
            case ":path": path = line.value
            case ":authority": authority = line.value
            case "host": authority = authority ?? line.value
            default: continue
            }
        }
        section.lines = section.lines.filter { line in section.withBytes(line.name) { $0.first != UInt8(ascii: ":") } }
        self.init(refused: method, path, authority: authority ?? .empty, version: .http2, section)
    }

    private init(
        refused methodName: FieldSection.Span, _ target: FieldSection.Span, authority: FieldSection.Span, version: Version,
        _ section: FieldSection
    ) {
        let method = section.withBytes(methodName) { Method($0) }
        let found = RequestRules.requestTarget(section, target, method, host: authority) ?? (Self.part(of: target, section), authority)
        self.init(
            method: method, methodName: methodName, target: found.target, authority: found.authority, framing: .none, version: version,
            keepAlive: false, expectsContinue: false, acceptsTrailers: false, section: section)
        for line in section.lines {
            switch line.kind {
            case .forwardedFor: forwardedFor.append(line.value)
            case .requestID: requestID = line.value
            default: continue
            }
        }
    }

    /// What of a bad target is still a path: none of an absolute form, whose authority may hold a password.
    private static func part(of target: FieldSection.Span, _ section: FieldSection) -> Target {
        let count = section.withBytes(target) { uri in
            uri.first == UInt8(ascii: "/") ? uri.prefix { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") }.count : 0
        }
        return .origin(FieldSection.Span(target.lower, target.lower + count))
    }

    /// The field of that name, however many lines it has.
    var accept: String? {
        let values = section.lines.filter { $0.kind == .accept }.map { section.text($0.value) }
        return values.isEmpty ? nil : values.joined(separator: ", ")
    }

    private static let known: Set<String> = [
        ":method", ":path", ":authority", "host", "accept", "content-type", "x-forwarded-for", "x-request-id",
    ]
}
