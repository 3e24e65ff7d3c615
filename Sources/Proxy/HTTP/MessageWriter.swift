import NIOCore

/// Requests as bytes of HTTP/1.1.
package enum RequestWriter {
    package static func write(_ outgoing: OutgoingRequest, into bytes: inout ByteBuffer) {
        let request = outgoing.request
        if outgoing.upgrade != nil, request.version == .http2 {
            bytes.writeStaticString("GET")
        } else {
            request.section.withBytes(request.methodName) { _ = bytes.writeBytes($0) }
        }
        bytes.writeStaticString(" ")
        request.writeTarget(into: &bytes)
        bytes.writeStaticString(" HTTP/1.1\r\nHost: ")
        bytes.writeString(outgoing.host)
        bytes.writeStaticString("\r\n")
        request.section.write(into: &bytes)
        bytes.writeImmutableBuffer(outgoing.added)
        if let token = outgoing.upgrade {
            if let key = outgoing.webSocketKey {
                bytes.writeStaticString("Sec-WebSocket-Key: ")
                bytes.writeString(key)
                bytes.writeStaticString("\r\n")
            }
            bytes.writeStaticString("Connection: Upgrade\r\nUpgrade: ")
            bytes.writeString(token)
            bytes.writeStaticString("\r\n\r\n")
            return
        }
        switch request.framing {
        case .none: break
        case .length(let length): ChunkFraming.writeField("Content-Length: ", length, into: &bytes)
        case .chunked: bytes.writeStaticString("Transfer-Encoding: chunked\r\n")
        }
        if request.expectsContinue { bytes.writeStaticString("Expect: 100-continue\r\n") }
        if request.acceptsTrailers { bytes.writeStaticString("TE: trailers\r\nConnection: TE\r\n") }
        bytes.writeStaticString("\r\n")
    }
}

/// RFC 9112 §7.1.
enum ChunkFraming {
    static let end = ByteBuffer(string: "\r\n")

    static func writeSize(_ count: Int, into bytes: inout ByteBuffer) {
        bytes.writeString(String(count, radix: 16))
        bytes.writeStaticString("\r\n")
    }

    static func writeEnd(_ trailers: FieldSection?, into bytes: inout ByteBuffer) {
        bytes.writeStaticString("0\r\n")
        trailers?.write(into: &bytes)
        bytes.writeStaticString("\r\n")
    }

    static func writeField(_ name: StaticString, _ number: Int, into bytes: inout ByteBuffer) {
        bytes.writeStaticString(name)
        writeDecimal(number, into: &bytes)
        bytes.writeStaticString("\r\n")
    }

    static func writeDecimal(_ number: Int, into bytes: inout ByteBuffer) {
        if number >= 0, number < 1000 {
            if number >= 100 { bytes.writeInteger(UInt8(truncatingIfNeeded: number / 100) &+ 0x30) }
            if number >= 10 { bytes.writeInteger(UInt8(truncatingIfNeeded: number / 10 % 10) &+ 0x30) }
            bytes.writeInteger(UInt8(truncatingIfNeeded: number % 10) &+ 0x30)
        } else {
            bytes.writeString(String(number))
        }
    }
}

/// Turns responses into bytes of HTTP/1.1 for one client connection. What belongs together leaves as one buffer, because TLS makes a
/// record of each buffer: a head and a small body are one record.
package struct ResponseWriter {
    package enum Framing: Equatable {
        /// Nothing, or bytes counted by Content-Length or ended by the connection, or chunks that have their framing already.
        case plain
        case rawChunks
        case chunked
    }

    private let allocator: ByteBufferAllocator
    private var buffer: ByteBuffer?
    private var framing = Framing.plain

    package init(allocator: ByteBufferAllocator) { self.allocator = allocator }

    var isEmpty: Bool { buffer == nil }

    /// - Parameters:
    ///   - reason: the upstream's own words, of `section`.
    ///   - length: of a body that follows, or would follow if this were not the answer to HEAD.
    package mutating func writeHead(
        code: Int, reason: FieldSection.Span = .empty, section: FieldSection, fields: [(String, String)] = [], length: Int?,
        connection: StaticString?, upgrade: String? = nil, framing: Framing
    ) {
        self.framing = framing
        var bytes = takeBuffer(atLeast: 1024)
        bytes.writeStaticString("HTTP/1.1 ")
        ChunkFraming.writeDecimal(code, into: &bytes)
        bytes.writeStaticString(" ")
        if reason.isEmpty { bytes.writeString(StatusText.phrase(code)) } else { section.withBytes(reason) { _ = bytes.writeBytes($0) } }
        bytes.writeStaticString("\r\n")
        section.write(into: &bytes)
        for (name, value) in fields {
            bytes.writeString(name)
            bytes.writeStaticString(": ")
            bytes.writeString(value)
            bytes.writeStaticString("\r\n")
        }
        if let length { ChunkFraming.writeField("Content-Length: ", length, into: &bytes) }
        if framing != .plain { bytes.writeStaticString("Transfer-Encoding: chunked\r\n") }
        if let upgrade {
            bytes.writeStaticString("Upgrade: ")
            bytes.writeString(upgrade)
            bytes.writeStaticString("\r\n")
        }
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
        if framing == .chunked { ChunkFraming.writeSize(count, into: &bytes) }
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

    mutating func writeEnd(trailers: FieldSection?) {
        guard framing != .plain else { return }
        var bytes = takeBuffer(atLeast: 16)
        ChunkFraming.writeEnd(trailers, into: &bytes)
        buffer = bytes
    }

    /// What is left to be written before a flush.
    package mutating func take() -> ByteBuffer? {
        defer { buffer = nil }
        return buffer
    }

    /// Leaves `buffer` empty, so that the bytes are not copied when they are written to.
    private mutating func takeBuffer(atLeast capacity: Int) -> ByteBuffer {
        defer { buffer = nil }
        return buffer ?? allocator.buffer(capacity: capacity)
    }

    /// One TLS record. Beyond it a copy costs more than a record.
    static let copyLimit = 16 * 1024
}
