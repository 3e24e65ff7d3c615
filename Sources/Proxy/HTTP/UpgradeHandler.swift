import NIOCore
import NIOHTTP1

/// One half of a relay of raw bytes between a client and an upstream that agreed to another protocol. Each half is the last handler
/// of its channel; a half closed for reading closes the other for writing.
///
///     opening ──both decoders gone──► open ──a channel closed──► closed
///
/// While opening, bytes that the decoders had already taken in are held: at most what one read gave, because no more is read.
final class UpgradeHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var peer: UpgradeHandler?
    private var context: ChannelHandlerContext?
    private var isOpen = false
    private var held: [ByteBuffer] = []
    private var isReadHeld = false
    private var isInputClosed = false
    private var isOutputClosed = false
    private let clock: ConnectionClock
    /// How long an end may take nothing of the last bytes.
    private let stall: TimeAmount

    private init(clock: ConnectionClock, stall: TimeAmount) {
        self.clock = clock
        self.stall = stall
    }

    /// Puts a relay in the place of the HTTP handlers of two channels of one loop.
    static func join(
        client: any Channel, proxy: ProxyHandler, upstream: any Channel, connection: UpstreamConnection, isClientInputClosed: Bool
    ) throws {
        let clientHalf = UpgradeHandler(clock: proxy.loop.clock, stall: proxy.service.limits.bodyIdle)
        let upstreamHalf = UpgradeHandler(clock: proxy.loop.clock, stall: proxy.service.limits.bodyIdle)
        clientHalf.peer = upstreamHalf
        upstreamHalf.peer = clientHalf
        clientHalf.isInputClosed = isClientInputClosed
        try? upstream.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)

        let clientOperations = client.pipeline.syncOperations
        let upstreamOperations = upstream.pipeline.syncOperations
        let clientDecoder = try clientOperations.context(handlerType: ByteToMessageHandler<HTTPRequestDecoder>.self)
        let upstreamDecoder = try upstreamOperations.context(handlerType: ByteToMessageHandler<HTTPResponseDecoder>.self)
        let encoder = try upstreamOperations.context(handlerType: HTTPRequestEncoder.self)
        upstream.triggerUserOutboundEvent(RelayBegins(), promise: nil)
        try clientOperations.addHandler(clientHalf)
        try upstreamOperations.addHandler(upstreamHalf)
        clientOperations.removeHandler(proxy, promise: nil)
        upstreamOperations.removeHandler(connection, promise: nil)
        upstreamOperations.removeHandler(context: encoder, promise: nil)
        // Decoders leave on a later tick, and pass on what they hold.
        let clientDone = client.eventLoop.makePromise(of: Void.self)
        let upstreamDone = client.eventLoop.makePromise(of: Void.self)
        clientOperations.removeHandler(context: clientDecoder, promise: clientDone)
        upstreamOperations.removeHandler(context: upstreamDecoder, promise: upstreamDone)
        clientDone.futureResult.and(upstreamDone.futureResult).assumeIsolated().whenComplete { result in
            switch result {
            case .success:
                clientHalf.open()
                upstreamHalf.open()
            case .failure:
                client.close(promise: nil)
                upstream.close(promise: nil)
            }
        }
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        peer = nil
        held = []
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        if isOpen { peer?.write(bytes) } else { held.append(bytes) }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if isOpen { peer?.context?.flush() }
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { isReadHeld = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { peer?.resumeReading() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ChannelShouldQuiesceEvent {
            // A relay has no end of its own: the client connects again, elsewhere.
            finish()
            peer?.finish()
            return
        }
        guard event as? ChannelEvent == .inputClosed else { return context.fireUserInboundEventTriggered(event) }
        isInputClosed = true
        if isOpen { closePeerOutput() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelInactive(context: ChannelHandlerContext) {
        let peer = peer
        self.peer = nil
        peer?.peer = nil
        peer?.finish()
        context.fireChannelInactive()
    }

    private func open() {
        isOpen = true
        if !held.isEmpty {
            for bytes in held { peer?.write(bytes) }
            held = []
            peer?.context?.flush()
        }
        if isInputClosed { closePeerOutput() } else { context?.read() }
    }

    private func write(_ bytes: ByteBuffer) { context?.write(wrapOutboundOut(bytes), promise: nil) }

    private func closePeerOutput() {
        guard let peer, let peerContext = peer.context, !peer.isOutputClosed else { return }
        peer.isOutputClosed = true
        if peer.isInputClosed {
            // Both ends have said all: the first to be closed ends the other.
            peer.finish()
        } else {
            peerContext.close(mode: .output, promise: nil)
        }
    }

    /// Closes behind the last bytes.
    private func finish() {
        guard let channel = context?.channel else { return }
        channel.flush()
        DrainWatch.start(channel, clock: clock, stall: stall) { channel.close(promise: nil) }
    }

    private var mayRead: Bool { isOpen && (peer?.context?.channel.isWritable ?? true) }

    private func resumeReading() {
        guard isReadHeld, mayRead else { return }
        isReadHeld = false
        context?.read()
    }
}

/// Goes out through an upstream's pipeline when it stops to be HTTP: handlers that wait for responses leave.
struct RelayBegins: Sendable {}
