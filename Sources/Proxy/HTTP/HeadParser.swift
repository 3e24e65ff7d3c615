import Glibc
import NIOCore

/// Strict parsing of heads and trailers that are complete: RFC 9112 §3 to §5. Nothing is repaired.
package enum HeadParser {
    package struct RequestLine: Equatable {
        package var method: FieldSection.Span
        package var target: FieldSection.Span
        package var minorVersion: UInt8
    }

    package struct StatusLine: Equatable {
        package var code: Int
        package var reason: FieldSection.Span
        package var minorVersion: UInt8
    }

    package struct Limits {
        package var fieldSize: Int
        package var fieldCount: Int

        package init(fieldSize: Int, fieldCount: Int) {
            self.fieldSize = fieldSize
            self.fieldCount = fieldCount
        }
    }

    /// - Parameter bytes: the head with its empty line, without empty lines before it.
    package static func request(_ bytes: ByteBuffer, limits: Limits) throws(HeadFault) -> (line: RequestLine, section: FieldSection) {
        try head(bytes, limits, requestLine)
    }

    /// Of a head that has a fault or is not whole: its request line, if there is one, and the fields before the fault.
    package static func beginning(_ bytes: ByteBuffer, limits: Limits) -> (line: RequestLine, section: FieldSection)? {
        var section = FieldSection(bytes: bytes)
        let line = bytes.withUnsafeReadableBytes { all -> RequestLine? in
            let pointer = wholeLines(all)
            let end = lineEnd(pointer, from: 0)
            guard case .success(let line) = requestLine(pointer, end) else { return nil }
            _ = fields(pointer, from: end &+ 2, limits, into: &section.lines)
            return line
        }
        return line.map { ($0, section) }
    }

    package static func response(_ bytes: ByteBuffer, limits: Limits) throws(HeadFault) -> (line: StatusLine, section: FieldSection) {
        try head(bytes, limits, statusLine)
    }

    private static func head<Line>(
        _ bytes: ByteBuffer, _ limits: Limits, _ startLine: (UnsafeRawBufferPointer, Int) -> Result<Line, HeadFault>
    ) throws(HeadFault) -> (line: Line, section: FieldSection) {
        var section = FieldSection(bytes: bytes)
        let result: Result<Line, HeadFault> = bytes.withUnsafeReadableBytes { pointer in
            let end = lineEnd(pointer, from: 0)
            return startLine(pointer, end).flatMap { line in
                fields(pointer, from: end &+ 2, limits, into: &section.lines).map { line }
            }
        }
        return (try result.get(), section)
    }

    /// - Parameter bytes: the trailer section with its empty line.
    package static func trailers(_ bytes: ByteBuffer, limits: Limits) throws(HeadFault) -> FieldSection {
        var section = FieldSection(bytes: bytes)
        let result: Result<Void, HeadFault> = bytes.withUnsafeReadableBytes { fields($0, from: 0, limits, into: &section.lines) }
        try result.get()
        return section
    }

    /// The CR of the line that begins at `start`; the scanner has found each LF to have one before it.
    private static func lineEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        guard let base = bytes.baseAddress, let found = memchr(base + start, 0x0A, bytes.count &- start) else { return start }
        return base.distance(to: UnsafeRawPointer(found)) &- 1
    }

    /// Up to the first line that does not end as it must.
    private static func wholeLines(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        var end = 0
        while let found = bytes[end...].firstIndex(of: 0x0A), found > end, bytes[found &- 1] == 0x0D { end = found &+ 1 }
        return UnsafeRawBufferPointer(rebasing: bytes[..<end])
    }

    /// `method SP request-target SP HTTP-version`, RFC 9112 §3.
    private static func requestLine(_ bytes: UnsafeRawBufferPointer, _ end: Int) -> Result<RequestLine, HeadFault> {
        var index = 0
        while index < end, HeaderBytes.isToken(bytes[index]) { index &+= 1 }
        guard index > 0, index < end, bytes[index] == 0x20 else { return .failure(.requestLine) }
        let method = FieldSection.Span(0, index)
        index &+= 1
        let start = index
        while index < end, bytes[index] > 0x20, bytes[index] < 0x7F { index &+= 1 }
        guard index > start, index < end, bytes[index] == 0x20 else { return .failure(.requestLine) }
        let target = FieldSection.Span(start, index)
        guard end &- index == 9, matches(bytes, at: index &+ 1, "HTTP/") else { return .failure(.requestLine) }
        guard let minor = minorVersion(bytes, at: index &+ 6) else { return .failure(.version) }
        return .success(RequestLine(method: method, target: target, minorVersion: minor))
    }

    /// `HTTP-version SP status-code SP [reason-phrase]`, RFC 9112 §4. The blank before an empty reason may be missing.
    private static func statusLine(_ bytes: UnsafeRawBufferPointer, _ end: Int) -> Result<StatusLine, HeadFault> {
        guard end >= 12, matches(bytes, at: 0, "HTTP/"), bytes[8] == 0x20 else { return .failure(.statusLine) }
        guard let minor = minorVersion(bytes, at: 5) else { return .failure(.version) }
        guard HeaderBytes.isDigit(bytes[9]), HeaderBytes.isDigit(bytes[10]), HeaderBytes.isDigit(bytes[11]) else {
            return .failure(.statusLine)
        }
        let code = Int(bytes[9] & 15) &* 100 &+ Int(bytes[10] & 15) &* 10 &+ Int(bytes[11] & 15)
        guard end > 12 else { return .success(StatusLine(code: code, reason: .empty, minorVersion: minor)) }
        guard bytes[12] == 0x20, bytes[13..<end].allSatisfy(HeaderBytes.isValue) else { return .failure(.statusLine) }
        return .success(StatusLine(code: code, reason: FieldSection.Span(13, end), minorVersion: minor))
    }

    private static func minorVersion(_ bytes: UnsafeRawBufferPointer, at index: Int) -> UInt8? {
        guard bytes[index] == 0x31, bytes[index &+ 1] == 0x2E else { return nil }
        switch bytes[index &+ 2] {
        case 0x30: return 0
        case 0x31: return 1
        default: return nil
        }
    }

    /// `field-name ":" OWS field-value OWS`, RFC 9112 §5, up to the empty line.
    private static func fields(
        _ bytes: UnsafeRawBufferPointer, from first: Int, _ limits: Limits, into lines: inout [FieldSection.Line]
    ) -> Result<Void, HeadFault> {
        lines.reserveCapacity(16)
        var start = first
        while true {
            let end = lineEnd(bytes, from: start)
            if end <= start { return .success(()) }
            guard lines.count < limits.fieldCount else { return .failure(.tooManyFields) }
            var index = start
            while index < end, HeaderBytes.isToken(bytes[index]) { index &+= 1 }
            guard index > start, index < end, bytes[index] == UInt8(ascii: ":") else {
                return .failure(HeaderBytes.isBlank(bytes[start]) ? .obsoleteFold : .fieldName)
            }
            let name = FieldSection.Span(start, index)
            index &+= 1
            while index < end, HeaderBytes.isBlank(bytes[index]) { index &+= 1 }
            var valueEnd = end
            while valueEnd > index, HeaderBytes.isBlank(bytes[valueEnd &- 1]) { valueEnd &-= 1 }
            for position in index..<valueEnd where !HeaderBytes.isValue(bytes[position]) { return .failure(.fieldValue) }
            guard name.count <= limits.fieldSize, valueEnd &- index <= limits.fieldSize else { return .failure(.fieldTooLong) }
            let kind = HeaderKind(UnsafeRawBufferPointer(rebasing: bytes[name.lower..<name.upper]))
            // What frames a message must look the same to everybody, and not all take a tab for a blank.
            if kind == .contentLength || kind == .transferEncoding, bytes[name.upper..<end].contains(0x09) { return .failure(.fieldValue) }
            let isUsual = valueEnd == end && index == name.upper &+ 2 && bytes[index &- 1] == 0x20
            lines.append(
                FieldSection.Line(
                    name: name, value: FieldSection.Span(index, valueEnd), line: isUsual ? FieldSection.Span(start, end &+ 2) : .empty,
                    kind: kind))
            start = end &+ 2
        }
    }

    private static func matches(_ bytes: UnsafeRawBufferPointer, at index: Int, _ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        guard index &+ count <= bytes.count, let base = bytes.baseAddress else { return false }
        return memcmp(base + index, text.utf8Start, count) == 0
    }
}
