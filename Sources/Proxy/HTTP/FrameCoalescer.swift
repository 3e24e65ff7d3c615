import NIOCore

/// Puts what a connection of HTTP/2 writes between two flushes into as few buffers as TLS records can hold: frame heads and payloads come one
/// by one, and each buffer would become a record.
///
/// What is written may be accepted at once, and whoever waited for that writes in his turn, before the first write has returned: bytes go
/// into one queue, which the outermost call empties.
final class FrameCoalescer: ChannelOutboundHandler {
    typealias OutboundIn = IOData
    typealias OutboundOut = ByteBuffer

    private struct Piece {
        var bytes: ByteBuffer
        var promises: [EventLoopPromise<Void>] = []
    }

    /// What is not full yet, and what is.
    private var open = Piece(bytes: ByteBuffer())
    private var full: CircularBuffer<Piece> = []
    private var isEmitting = false
    private var isFlushWanted = false
    private var records = RecordSizer()

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard case .byteBuffer(var bytes) = unwrapOutboundIn(data) else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        let room = Self.recordSize - open.bytes.readableBytes
        if bytes.readableBytes > room {
            if let piece = bytes.readSlice(length: room) { open.bytes.writeImmutableBuffer(piece) }
            closePiece()
            while bytes.readableBytes >= Self.recordSize, let piece = bytes.readSlice(length: Self.recordSize) {
                full.append(Piece(bytes: piece))
            }
        }
        if bytes.readableBytes > 0 {
            if open.bytes.capacity == 0 { open.bytes = context.channel.allocator.buffer(capacity: 1024) }
            open.bytes.writeBuffer(&bytes)
        }
        // With its last byte.
        if let promise {
            if open.bytes.readableBytes == 0, let last = full.indices.last {
                full[last].promises.append(promise)
            } else {
                open.promises.append(promise)
            }
        }
        emit(context)
    }

    /// A frame that NIO's handler shall not know of, behind all that it has written.
    func send(_ frame: ByteBuffer, _ context: ChannelHandlerContext) {
        write(context: context, data: NIOAny(IOData.byteBuffer(frame)), promise: nil)
        flush(context: context)
    }

    func flush(context: ChannelHandlerContext) {
        closePiece()
        isFlushWanted = true
        emit(context)
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        flush(context: context)
        context.close(mode: mode, promise: promise)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        closePiece()
        let waiting = full
        full = []
        for piece in waiting { for promise in piece.promises { promise.fail(ChannelError.ioOnClosedChannel) } }
    }

    private func closePiece() {
        guard open.bytes.readableBytes > 0 || !open.promises.isEmpty else { return }
        full.append(open)
        open = Piece(bytes: ByteBuffer())
    }

    private func emit(_ context: ChannelHandlerContext) {
        guard !isEmitting else { return }
        isEmitting = true
        defer { isEmitting = false }
        repeat {
            while let piece = full.popFirst() { write(piece, context) }
            guard isFlushWanted else { return }
            isFlushWanted = false
            context.flush()
        } while !full.isEmpty || isFlushWanted
    }

    private func write(_ piece: Piece, _ context: ChannelHandlerContext) {
        var promise: EventLoopPromise<Void>?
        if !piece.promises.isEmpty {
            let whole = context.eventLoop.makePromise(of: Void.self)
            for promise in piece.promises { whole.futureResult.cascade(to: promise) }
            promise = whole
        }
        guard piece.bytes.readableBytes > 0 else {
            promise?.succeed()
            return
        }
        var parts: [ByteBuffer] = []
        records.split(piece.bytes, now: context.eventLoop.now) { parts.append($0) }
        for (index, part) in parts.enumerated() {
            context.write(wrapOutboundOut(part), promise: index == parts.count - 1 ? promise : nil)
        }
    }

    private static let recordSize = 16 * 1024
}
