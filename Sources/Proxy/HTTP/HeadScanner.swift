import Glibc
import NIOCore

/// Finds the end of a head or of a trailer section in bytes that come in pieces, each byte looked at once: RFC 9112 §2.1 and §2.2.
///
/// Lines end with CR LF and nothing else. Empty lines before a request are skipped, at most two.
package struct HeadScanner {
    /// What a section may measure.
    package struct Limits {
        package var startLine: Int
        package var section: Int

        package init(startLine: Int, section: Int) {
            self.startLine = startLine
            self.section = section
        }
    }

    package enum Progress: Equatable {
        case incomplete
        /// The section is this long, its empty line included.
        case complete(Int)
    }

    private var scanned = 0
    private var lineStart = 0
    private var isInStartLine: Bool
    private var isSkippingEmptyLines: Bool
    package private(set) var skipped = 0

    /// - Parameter startLine: whether the first line is not a field; then empty lines before it are skipped.
    package init(startLine: Bool) {
        isInStartLine = startLine
        isSkippingEmptyLines = startLine
    }

    /// - Parameter buffer: what was not consumed yet, always from the same first byte on.
    package mutating func scan(_ buffer: ByteBuffer, limits: Limits) throws(HeadFault) -> Progress {
        let result: Result<Progress, HeadFault> = buffer.withUnsafeReadableBytes { scan($0, limits) }
        return try result.get()
    }

    private mutating func scan(_ bytes: UnsafeRawBufferPointer, _ limits: Limits) -> Result<Progress, HeadFault> {
        guard let base = bytes.baseAddress else { return .success(.incomplete) }
        let count = bytes.count
        while let found = memchr(base + scanned, 0x0A, count &- scanned) {
            let index = base.distance(to: UnsafeRawPointer(found))
            guard index > lineStart, bytes[index &- 1] == 0x0D else { return .failure(.lineEnd) }
            let length = index &- 1 &- lineStart
            scanned = index &+ 1
            if length == 0 {
                guard isSkippingEmptyLines else {
                    return index < limits.section &+ limits.startLine ? .success(.complete(scanned)) : .failure(.sectionTooLong)
                }
                guard skipped < 4 else { return .failure(.requestLine) }
                skipped &+= 2
            } else if isInStartLine {
                guard length <= limits.startLine else { return .failure(.requestLineTooLong) }
                guard HeaderBytes.isToken(bytes[lineStart]) else { return .failure(.requestLine) }
                isInStartLine = false
                isSkippingEmptyLines = false
            }
            lineStart = scanned
            if count == scanned { break }
        }
        scanned = count
        if isInStartLine {
            // The last byte may be the CR of the line end.
            if count &- lineStart > limits.startLine &+ 1 { return .failure(.requestLineTooLong) }
            // No request begins like this, and nobody should wait for the end of it.
            if count > lineStart, !HeaderBytes.isToken(bytes[lineStart]), bytes[lineStart] != 0x0D { return .failure(.requestLine) }
        } else if count > limits.section &+ limits.startLine {
            return .failure(.sectionTooLong)
        }
        return .success(.incomplete)
    }
}

/// The bytes that names and values are made of: RFC 9110 §5.
enum HeaderBytes {
    /// `tchar`.
    static func isToken(_ byte: UInt8) -> Bool {
        byte < 0x80 && (byte < 64 ? tokens.0 : tokens.1) & 1 << UInt64(byte & 63) != 0
    }

    /// `field-vchar`, blank and tab.
    static func isValue(_ byte: UInt8) -> Bool { (byte >= 0x20 && byte != 0x7F) || byte == 0x09 }

    static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    static func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }

    private static let tokens: (UInt64, UInt64) = {
        var result: (UInt64, UInt64) = (0, 0)
        for byte in Array("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".utf8) {
            if byte < 64 { result.0 |= 1 << UInt64(byte) } else { result.1 |= 1 << UInt64(byte & 63) }
        }
        return result
    }()
}
