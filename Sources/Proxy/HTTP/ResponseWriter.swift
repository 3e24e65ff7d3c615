import NIOCore
import NIOHTTP1

/// Turns responses into bytes for one client connection. What belongs together leaves as one buffer, because TLS makes a record of
/// each buffer: a head and a small body are one record.
struct ResponseWriter {
    enum Framing: Equatable {
        /// Nothing, or bytes counted by Content-Length or ended by the connection.
        case plain
        case chunked
    }

    private let allocator: ByteBufferAllocator
    private var buffer: ByteBuffer?
    private var framing = Framing.plain

    init(allocator: ByteBufferAllocator) { self.allocator = allocator }

    var isEmpty: Bool { buffer == nil }

    /// - Parameter length: of a body that follows, or would follow if this were not the answer to HEAD.
    mutating func writeHead(
        status: HTTPResponseStatus, fields: [(String, String)], length: Int?, connection: StaticString?, framing: Framing
    ) {
        self.framing = framing
        var bytes = takeBuffer(atLeast: 512)
        bytes.writeStaticString("HTTP/1.1 ")
        Self.writeDecimal(Int(clamping: status.code), into: &bytes)
        bytes.writeStaticString(" ")
        // RFC 8297; NIO has no name for it, and drops the one that was received.
        bytes.writeString(status.code == 103 ? "Early Hints" : status.reasonPhrase)
        bytes.writeStaticString("\r\n")
        for (name, value) in fields {
            bytes.writeString(name)
            bytes.writeStaticString(": ")
            bytes.writeString(value)
            bytes.writeStaticString("\r\n")
        }
        if let length {
            bytes.writeStaticString("Content-Length: ")
            Self.writeDecimal(length, into: &bytes)
            bytes.writeStaticString("\r\n")
        }
        if framing == .chunked { bytes.writeStaticString("Transfer-Encoding: chunked\r\n") }
        if let connection {
            bytes.writeStaticString("Connection: ")
            bytes.writeStaticString(connection)
            bytes.writeStaticString("\r\n")
        }
        bytes.writeStaticString("\r\n")
        buffer = bytes
    }

    /// - Parameter write: takes buffers that are complete; not flushed.
    mutating func writeBody(_ body: ByteBuffer, write: (ByteBuffer) -> Void) {
        let count = body.readableBytes
        guard count > 0 else { return }
        var bytes = takeBuffer(atLeast: 16 + min(count, Self.copyLimit))
        if framing == .chunked {
            bytes.writeString(String(count, radix: 16))
            bytes.writeStaticString("\r\n")
        }
        if bytes.readableBytes &+ count <= Self.copyLimit {
            bytes.writeImmutableBuffer(body)
        } else {
            if bytes.readableBytes > 0 { write(bytes) }
            write(body)
            bytes = framing == .chunked ? allocator.buffer(capacity: 32) : ByteBuffer()
        }
        if framing == .chunked { bytes.writeStaticString("\r\n") }
        buffer = bytes.readableBytes > 0 ? bytes : nil
    }

    mutating func writeEnd(trailers: HTTPHeaders?) {
        guard framing == .chunked else { return }
        var bytes = takeBuffer(atLeast: 16)
        bytes.writeStaticString("0\r\n")
        if let trailers {
            for (name, value) in trailers {
                bytes.writeString(name)
                bytes.writeStaticString(": ")
                bytes.writeString(value)
                bytes.writeStaticString("\r\n")
            }
        }
        bytes.writeStaticString("\r\n")
        buffer = bytes
    }

    /// What is left to be written before a flush.
    mutating func take() -> ByteBuffer? {
        defer { buffer = nil }
        return buffer
    }

    /// Leaves `buffer` empty, so that the bytes are not copied when they are written to.
    private mutating func takeBuffer(atLeast capacity: Int) -> ByteBuffer {
        defer { buffer = nil }
        return buffer ?? allocator.buffer(capacity: capacity)
    }

    private static func writeDecimal(_ number: Int, into bytes: inout ByteBuffer) {
        if number >= 0, number < 10 {
            bytes.writeInteger(UInt8(truncatingIfNeeded: number) &+ 0x30)
        } else {
            bytes.writeString(String(number))
        }
    }

    /// One TLS record. Beyond it a copy costs more than a record.
    static let copyLimit = 16 * 1024
}
