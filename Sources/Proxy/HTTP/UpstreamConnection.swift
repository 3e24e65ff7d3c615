import NIOCore
import NIOHTTP1

/// The end of the pipeline of a connection to an upstream. Serves one request at a time, then waits in the pool.
///
///     idle ◄──────────── finishing(reuse) ◄──response's end── leased
///       └──lease──────────────────────────────────────────────► ▲
///
/// `finishing` lasts until the end of the read that brought the response's end: bytes behind the response are nobody's answer, and
/// the connection that sent them is not used again.
final class UpstreamConnection: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundIn = HTTPClientRequestPart
    typealias OutboundOut = HTTPClientRequestPart

    private enum Phase {
        case idle
        case leased(ProxyHandler)
        case finishing(reuse: Bool)
        case closed
    }

    let target: UpstreamTarget
    private let pool: UpstreamPool
    private var phase = Phase.idle
    private var context: ChannelHandlerContext?
    private var lastError: (any Error)?
    private var isReadPaused = false
    private var isReadHeld = false
    /// The response in hand has no body, or chunks: a blank line is its end.
    var endsWithBlankLine = false
    /// The last four bytes received.
    private var tail: UInt32 = 0
    /// It has waited in the pool, where the upstream may have closed it.
    var isReused = false
    var idleSince = NIODeadline.uptimeNanoseconds(0)

    init(target: UpstreamTarget, pool: UpstreamPool) {
        self.target = target
        self.pool = pool
    }

    static func configure(_ channel: any Channel, target: UpstreamTarget, pool: UpstreamPool, limits: ProxyLimits) throws
        -> UpstreamConnection
    {
        let connection = UpstreamConnection(target: target, pool: pool)
        var encoder = HTTPRequestEncoder.Configuration()
        encoder.automaticallySetFramingHeaders = false
        let decoder = HTTPResponseDecoder(
            leftOverBytesStrategy: .forwardBytes, informationalResponseStrategy: .forward, limitConfiguration: limits.decoder)
        let operations = channel.pipeline.syncOperations
        try operations.addHandler(HTTPRequestEncoder(configuration: encoder))
        try operations.addHandler(SurplusWatch(connection))
        try operations.addHandler(ByteToMessageHandler(decoder))
        try operations.addHandler(connection)
        return connection
    }

    var isActive: Bool {
        guard case .closed = phase else { return context?.channel.isActive ?? false }
        return false
    }
    var isWritable: Bool { context?.channel.isWritable ?? false }
    var channel: (any Channel)? { context?.channel }

    func lease(to handler: ProxyHandler) { phase = .leased(handler) }

    func send(_ part: HTTPClientRequestPart) { context?.write(wrapOutboundOut(part), promise: nil) }

    func flush() { context?.flush() }

    /// Back-pressure of the client.
    func setReadPaused(_ paused: Bool) {
        isReadPaused = paused
        guard !paused, isReadHeld else { return }
        isReadHeld = false
        context?.read()
    }

    /// The response is complete.
    func finish(reuse: Bool) {
        // Half a head behind it gives no part, but would become the beginning of the next client's response.
        let hasSurplus = endsWithBlankLine && tail != 0x0D0A_0D0A
        phase = .finishing(reuse: reuse && !hasSurplus)
    }

    /// Bytes that the decoder is about to see.
    func willDecode(_ bytes: ByteBuffer) {
        for byte in bytes.readableBytesView.suffix(4) { tail = tail << 8 | UInt32(byte) }
        guard case .idle = phase else { return }
        pool.remove(self)
        closeIdle()
    }

    /// The request is over, the response is not wanted.
    func abandon() {
        phase = .closed
        context?.close(promise: nil)
    }

    /// The pool has too many, or had it too long.
    func closeIdle() {
        phase = .closed
        context?.close(promise: nil)
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch phase {
        case .leased(let handler): handler.receive(unwrapInboundIn(data))
        case .idle:
            pool.remove(self)
            closeIdle()
        case .finishing: phase = .finishing(reuse: false)
        case .closed: break
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        switch phase {
        case .leased(let handler): handler.upstreamReadComplete()
        case .finishing(let reuse):
            if reuse, context.channel.isActive {
                phase = .idle
                setReadPaused(false)
                pool.put(self)
            } else {
                closeIdle()
            }
        case .idle, .closed: break
        }
        context.fireChannelReadComplete()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if case .leased(let handler) = phase { handler.upstreamWritabilityChanged() }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        lastError = error
        switch phase {
        case .leased(let handler):
            phase = .closed
            handler.upstreamLost(self, error: error)
        case .idle:
            pool.remove(self)
            phase = .closed
        case .finishing, .closed: phase = .closed
        }
        context.close(promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event as? ChannelEvent == .inputClosed { lose(context: context) }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        lose(context: context)
        context.fireChannelInactive()
    }

    func read(context: ChannelHandlerContext) {
        if isReadPaused { isReadHeld = true } else { context.read() }
    }

    private func lose(context: ChannelHandlerContext) {
        switch phase {
        case .leased(let handler):
            phase = .closed
            handler.upstreamLost(self, error: lastError)
        case .idle:
            pool.remove(self)
            phase = .closed
        case .finishing, .closed: phase = .closed
        }
        context.close(promise: nil)
    }
}

/// Stands before the decoder, which does not tell what it keeps.
private final class SurplusWatch: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    private let connection: UpstreamConnection

    init(_ connection: UpstreamConnection) { self.connection = connection }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        connection.willDecode(unwrapInboundIn(data))
        context.fireChannelRead(data)
    }
}
