import NIOCore

/// The field lines of a message as the bytes that they came in, and where each part lies: RFC 9112 §5. A head that passes through is
/// copied, not rebuilt.
package struct FieldSection {
    /// One field line. Offsets count from the first readable byte of the section's buffer.
    package struct Line: Equatable {
        var name: Span
        /// Without the blanks around it.
        var value: Span
        /// Name to line end, CR LF included; empty if the line is to be written anew, because its blanks are unusual.
        var line: Span
        var kind: HeaderKind
    }

    /// A stretch of bytes, at most 4 GiB.
    package struct Span: Equatable {
        var start: UInt32
        var count: UInt32

        package static let empty = Span(0, 0)

        init(_ start: Int, _ end: Int) {
            self.start = UInt32(truncatingIfNeeded: start)
            count = UInt32(truncatingIfNeeded: end &- start)
        }

        var lower: Int { Int(start) }
        var upper: Int { Int(start) &+ Int(count) }
        var isEmpty: Bool { count == 0 }
    }

    package var bytes: ByteBuffer
    package var lines: [Line]

    package init(bytes: ByteBuffer = ByteBuffer(), lines: [Line] = []) {
        self.bytes = bytes
        self.lines = lines
    }

    package var isEmpty: Bool { lines.isEmpty }

    /// The bytes of a stretch.
    func withBytes<Result>(_ span: Span, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        // A span lies within the buffer: both were made together, and the buffer never shrinks.
        bytes.withUnsafeReadableBytes { body(UnsafeRawBufferPointer(rebasing: $0[span.lower..<span.upper])) }
    }

    package func text(_ span: Span) -> String { withBytes(span) { String(decoding: $0, as: UTF8.self) } }

    /// Name and value as text, for those who do not pass bytes on.
    package var fields: [(name: String, value: String)] { lines.map { (text($0.name), text($0.value)) } }

    /// The first value of a field, by its name in lower case.
    func value(of name: StaticString) -> Span? {
        lines.first { line in
            line.name.count == name.utf8CodeUnitCount && withBytes(line.name) { HeaderKind.matches($0, name) }
        }?.value
    }

    /// Removes the fields with these names, given in lower case.
    mutating func remove(named names: [String]) {
        guard !names.isEmpty else { return }
        let section = self
        lines.removeAll { line in names.contains(section.text(line.name).lowercased()) }
    }

    /// Moves the bytes to a buffer of their own.
    mutating func compact() { bytes = ByteBuffer(bytes: bytes.readableBytesView) }

    /// Copies the lines as they are; what lies side by side in one piece.
    package func write(into buffer: inout ByteBuffer) {
        bytes.withUnsafeReadableBytes { pointer in
            var index = 0
            while index < lines.count {
                guard !lines[index].line.isEmpty else {
                    let line = lines[index]
                    buffer.writeBytes(UnsafeRawBufferPointer(rebasing: pointer[line.name.lower..<line.name.upper]))
                    buffer.writeStaticString(": ")
                    buffer.writeBytes(UnsafeRawBufferPointer(rebasing: pointer[line.value.lower..<line.value.upper]))
                    buffer.writeStaticString("\r\n")
                    index &+= 1
                    continue
                }
                let start = lines[index].line.lower
                var end = lines[index].line.upper
                index &+= 1
                while index < lines.count, !lines[index].line.isEmpty, lines[index].line.lower == end {
                    end = lines[index].line.upper
                    index &+= 1
                }
                buffer.writeBytes(UnsafeRawBufferPointer(rebasing: pointer[start..<end]))
            }
        }
    }

    /// Adds a field of another protocol's making. Bytes that could end the line are the caller's to refuse.
    mutating func append(name: String, value: String) {
        let start = bytes.readableBytes
        bytes.writeString(name)
        let nameEnd = bytes.readableBytes
        bytes.writeStaticString(": ")
        let valueStart = bytes.readableBytes
        bytes.writeString(value)
        let valueEnd = bytes.readableBytes
        bytes.writeStaticString("\r\n")
        let kind = withBytes(Span(start, nameEnd)) { HeaderKind($0) }
        lines.append(
            Line(name: Span(start, nameEnd), value: Span(valueStart, valueEnd), line: Span(start, bytes.readableBytes), kind: kind))
    }
}
