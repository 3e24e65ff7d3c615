import NIOCore
import NIOEmbedded

/// The socket under an embedded channel: it takes as much as it is told, says when it is full, fails what has not left when it closes, and
/// gives what has arrived only to who reads.
final class ScriptedWire: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer

    /// Bytes that the peer takes before it takes nothing more.
    var room = Int.max
    /// Joins what has arrived, as one read of a socket does.
    var joins = false
    /// Gets what has left.
    var onSend: (ByteBuffer) -> Void = { _ in }
    /// Written when nothing could leave any more.
    private(set) var lateWrites = 0
    private(set) var delivered = 0
    private(set) var queued = 0
    private var waiting: CircularBuffer<(bytes: ByteBuffer, promise: EventLoopPromise<Void>?)> = []
    /// Of those that wait, how many are flushed.
    private var flushed = 0
    private var arrived: CircularBuffer<ByteBuffer> = []
    private var context: ChannelHandlerContext?
    private var isPushing = false
    private var isReadWanted = false
    private var hasEnded = false
    private var hasToldEnd = false
    private var isOutputClosed = false
    private(set) var isClosed = false

    static func channel(on loop: EmbeddedEventLoop, peer: String) -> (EmbeddedChannel, ScriptedWire) {
        let wire = ScriptedWire()
        let channel = EmbeddedChannel(handler: wire, loop: loop)
        if let address = try? SocketAddress(ipAddress: peer, port: 443) {
            channel.remoteAddress = address
            channel.connect(to: address, promise: nil)
        }
        channel.read()
        return (channel, wire)
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    // MARK: What the script does

    func receive(_ bytes: ByteBuffer) {
        if !hasEnded, !isClosed, bytes.readableBytes > 0 { arrived.append(bytes) }
    }

    /// The peer has said all.
    func receiveEnd() { hasEnded = true }

    func breakOff(_ error: any Error) {
        guard let context, !isClosed else { return }
        context.fireErrorCaught(error)
        close(context: context, mode: .all, promise: nil)
    }

    /// - Returns: whether there was something to be read, by somebody who reads.
    func deliver() -> Bool {
        guard let context, isReadWanted, !isClosed else { return false }
        if var bytes = arrived.popFirst() {
            while joins, let more = arrived.first, bytes.readableBytes + more.readableBytes <= Self.high {
                arrived.removeFirst()
                bytes.writeImmutableBuffer(more)
            }
            isReadWanted = false
            delivered += bytes.readableBytes
            // As a read of a socket does, which shares nothing.
            context.fireChannelRead(wrapInboundOut(ByteBuffer(bytes: bytes.readableBytesView)))
            context.fireChannelReadComplete()
            if !isClosed { context.channel.read() }
            return true
        }
        guard hasEnded, !hasToldEnd else { return false }
        hasToldEnd = true
        context.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        closeIfOver(context)
        return true
    }

    func push() {
        guard let context, !isPushing, !isClosed else { return }
        isPushing = true
        while flushed > 0, room > 0, let first = waiting.first {
            var bytes = first.bytes
            let part = bytes.readSlice(length: min(room, bytes.readableBytes)) ?? ByteBuffer()
            queued -= part.readableBytes
            if room < .max { room -= part.readableBytes }
            if bytes.readableBytes > 0 {
                waiting[waiting.startIndex].bytes = bytes
            } else {
                waiting.removeFirst()
                flushed -= 1
            }
            if part.readableBytes > 0 { onSend(part) }
            if bytes.readableBytes == 0 { first.promise?.succeed() }
        }
        isPushing = false
        if queued < Self.low { setWritable(true) }
        closeIfOver(context)
    }

    // MARK: What the pipeline does

    func read(context: ChannelHandlerContext) { isReadWanted = true }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard !isClosed, !isOutputClosed else {
            if isClosed { lateWrites += 1 }
            promise?.fail(isClosed ? ChannelError.ioOnClosedChannel : ChannelError.outputClosed)
            return
        }
        let bytes = unwrapOutboundIn(data)
        waiting.append((bytes, promise))
        queued += bytes.readableBytes
        require(queued <= Self.bound, "\(queued) bytes wait for the socket")
        if queued > Self.high { setWritable(false) }
    }

    func flush(context: ChannelHandlerContext) {
        flushed = waiting.count
        push()
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        guard mode == .all else {
            if mode == .output { isOutputClosed = true }
            promise?.succeed()
            return closeIfOver(context)
        }
        guard !isClosed else {
            promise?.fail(ChannelError.alreadyClosed)
            return
        }
        isClosed = true
        let lost = waiting
        (waiting, arrived, flushed, queued) = ([], [], 0, 0)
        for (_, promise) in lost { promise?.fail(ChannelError.ioOnClosedChannel) }
        context.close(mode: .all, promise: promise)
    }

    private func closeIfOver(_ context: ChannelHandlerContext) {
        guard isOutputClosed, hasToldEnd, flushed == 0, !isClosed else { return }
        close(context: context, mode: .all, promise: nil)
    }

    private func setWritable(_ isWritable: Bool) {
        guard let context, let channel = context.channel as? EmbeddedChannel, channel.isWritable != isWritable else { return }
        channel.isWritable = isWritable
        context.fireChannelWritabilityChanged()
    }

    private static let high = 64 * 1024
    private static let low = 32 * 1024
    /// Frames that a peer asks for, and the last of what many streams had written when it became full.
    private static let bound = 16 << 20
}
