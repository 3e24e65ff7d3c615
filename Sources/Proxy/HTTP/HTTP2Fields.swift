import NIOCore
import NIOHPACK

/// Fields of HTTP/2 as the bytes that HTTP/1.1 would carry, so that one set of rules serves both; and back: RFC 9113 §8.2 and §8.3.
package enum HTTP2Fields {
    /// The pseudo-header fields, as stretches of the section's bytes.
    package struct Pseudo {
        package var method, scheme, path, authority, `protocol`: FieldSection.Span?
        package var status: Int?
    }

    /// - Returns: nil if a value holds what HTTP/1.1 could not carry, or there is too much of it.
    package static func section(_ headers: HPACKHeaders, limits: ProxyLimits) -> Result<(section: FieldSection, pseudo: Pseudo), HeadFault>
    {
        var section = FieldSection(bytes: ByteBuffer())
        section.bytes.reserveCapacity(1024)
        section.lines.reserveCapacity(headers.count)
        var pseudo = Pseudo()
        var cookie: String?
        for (name, value, _) in headers {
            // RFC 9113 §8.2.1: no blank at either end.
            guard value.utf8.allSatisfy(HeaderBytes.isValue), !(value.utf8.first.map(HeaderBytes.isBlank) ?? false),
                !(value.utf8.last.map(HeaderBytes.isBlank) ?? false)
            else { return .failure(.fieldValue) }
            if name.utf8.first == UInt8(ascii: ":") {
                let start = section.bytes.readableBytes
                section.bytes.writeString(value)
                let span = FieldSection.Span(start, section.bytes.readableBytes)
                switch name {
                case ":method": pseudo.method = span
                case ":scheme": pseudo.scheme = span
                case ":path": pseudo.path = span
                case ":authority": pseudo.authority = span
                case ":protocol": pseudo.protocol = span
                case ":status": pseudo.status = status(value)
                default: break
                }
                continue
            }
            guard !name.isEmpty, name.utf8.allSatisfy(HeaderBytes.isToken) else { return .failure(.fieldName) }
            // RFC 9113 §8.2.3: crumbs become one field again.
            if name == "cookie" {
                // In place: a text anew for each crumb would take the square of their number.
                if cookie == nil { cookie = value } else { cookie?.append("; \(value)") }
                continue
            }
            guard section.lines.count < limits.headerFieldCount else { return .failure(.tooManyFields) }
            guard name.utf8.count <= limits.headerFieldSize, value.utf8.count <= limits.headerFieldSize else {
                return .failure(.fieldTooLong)
            }
            section.append(name: name, value: value)
        }
        if let cookie { section.append(name: "cookie", value: cookie) }
        if let path = pseudo.path, path.count > limits.requestLineSize { return .failure(.requestLineTooLong) }
        guard section.bytes.readableBytes <= limits.headerListSize else { return .failure(.sectionTooLong) }
        return .success((section, pseudo))
    }

    /// Three digits, RFC 9110 §15.
    private static func status(_ text: String) -> Int? {
        text.utf8.count == 3 && text.utf8.allSatisfy { $0 &- 0x30 < 10 } ? Int(text) : nil
    }

    static func add(_ section: FieldSection, to headers: inout HPACKHeaders, _ indexing: inout HeaderIndexing) {
        for line in section.lines {
            let name = section.withBytes(line.name) { bytes in
                String(unsafeUninitializedCapacity: bytes.count) { target in
                    for (index, byte) in bytes.enumerated() { target[index] = byte &- 0x41 < 26 ? byte | 0x20 : byte }
                    return bytes.count
                }
            }
            add(name, text(line.value, of: section), to: &headers, &indexing)
        }
    }

    /// NIO's HPACK knows text only. Bytes that are no UTF-8 count as ISO 8859-1, as browsers take them: RFC 9110 §5.5.
    private static func text(_ span: FieldSection.Span, of section: FieldSection) -> String {
        section.withBytes(span) { bytes in
            String(validating: bytes, as: UTF8.self)
                ?? String(String.UnicodeScalarView(bytes.lazy.map { Unicode.Scalar($0) }))
        }
    }

    static func add(_ name: String, _ value: String, to headers: inout HPACKHeaders, _ indexing: inout HeaderIndexing) {
        headers.add(name: name, value: value, indexing: indexing.indexing(name, value))
    }

    static func trailers(_ section: FieldSection, _ indexing: inout HeaderIndexing) -> HPACKHeaders {
        var headers = HPACKHeaders()
        add(section, to: &headers, &indexing)
        return headers
    }
}
