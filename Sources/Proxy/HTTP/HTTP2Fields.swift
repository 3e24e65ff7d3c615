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
                case ":status": pseudo.status = Int(value)
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

    static func add(_ section: FieldSection, to headers: inout HPACKHeaders, _ indexing: inout HeaderIndexing) {
        for line in section.lines {
            let name = section.withBytes(line.name) { bytes in
                String(unsafeUninitializedCapacity: bytes.count) { target in
                    for (index, byte) in bytes.enumerated() { target[index] = byte &- 0x41 < 26 ? byte | 0x20 : byte }
                    return bytes.count
                }
            }
            add(name, section.text(line.value), to: &headers, &indexing)
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

/// Puts what a connection of HTTP/2 writes between two flushes into as few buffers as TLS records can hold: frame heads and payloads come one
/// by one, and each buffer would become a record.
final class FrameCoalescer: ChannelOutboundHandler {
    typealias OutboundIn = IOData
    typealias OutboundOut = ByteBuffer

    private var buffer = ByteBuffer()
    private var promises: [EventLoopPromise<Void>] = []
    private var records = RecordSizer()

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard case .byteBuffer(var bytes) = unwrapOutboundIn(data) else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        if let promise { promises.append(promise) }
        let room = Self.recordSize - buffer.readableBytes
        if bytes.readableBytes > room {
            if let piece = bytes.readSlice(length: room) { buffer.writeImmutableBuffer(piece) }
            emit(context)
            while bytes.readableBytes >= Self.recordSize, let piece = bytes.readSlice(length: Self.recordSize) {
                buffer = piece
                emit(context)
            }
        }
        guard bytes.readableBytes > 0 else { return }
        if buffer.capacity == 0 { buffer = context.channel.allocator.buffer(capacity: 1024) }
        buffer.writeBuffer(&bytes)
    }

    func flush(context: ChannelHandlerContext) {
        emit(context)
        context.flush()
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        emit(context)
        context.flush()
        context.close(mode: mode, promise: promise)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        let waiting = promises
        promises = []
        for promise in waiting { promise.fail(ChannelError.ioOnClosedChannel) }
    }

    private func emit(_ context: ChannelHandlerContext) {
        guard buffer.readableBytes > 0 else { return }
        let bytes = buffer
        buffer = ByteBuffer()
        let waiting = promises
        promises = []
        var promise: EventLoopPromise<Void>?
        if !waiting.isEmpty {
            let whole = context.eventLoop.makePromise(of: Void.self)
            for promise in waiting { whole.futureResult.cascade(to: promise) }
            promise = whole
        }
        var pieces: [ByteBuffer] = []
        records.split(bytes, now: context.eventLoop.now) { pieces.append($0) }
        for (index, piece) in pieces.enumerated() {
            context.write(wrapOutboundOut(piece), promise: index == pieces.count - 1 ? promise : nil)
        }
    }

    private static let recordSize = 16 * 1024
}
