import Glibc
import NIOCore
import NIOExtras
import NIOWireGuard

/// One half of a relay; each is the only handler of its channel, both on one loop.
///
///     alone ──join──► joined ──a channel closed──► left
///
/// | event here | there |
/// |---|---|
/// | bytes | the same buffers, flushed once a read |
/// | not writable | nothing is read |
/// | end of input | FIN behind the last bytes |
/// | reset | reset; that of a target does not overtake what it has said: a server that does not want a body answers, closes, and resets |
///
/// Bound to its event loop.
final class RelayHalf: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Side { case tunnel, origin }

    private let side: Side
    private var peer: RelayHalf?
    private var context: ChannelHandlerContext?
    private var isJoined = false
    private var isReadHeld = false
    private var isInputClosed = false
    private var isOutputClosed = false
    private var hasFailed = false
    private var hasEnded = false
    /// Buffers read from this side; wraps.
    private var reads: UInt64 = 0
    /// Whether this side has spoken last: if it is the gateway, a request may be with the target.
    private var hasLastWord = false
    private var isDraining = false

    init(_ side: Side) { self.side = side }

    /// The target has answered the connect of this half's relay.
    func join(_ origin: any Channel) {
        let other = RelayHalf(.origin)
        guard !hasEnded, let context, (try? origin.pipeline.syncOperations.addHandler(other)) != nil else {
            // The gateway has gone meanwhile.
            return Self.reset(origin)
        }
        (peer, other.peer) = (other, self)
        (isJoined, other.isJoined) = (true, true)
        if context.channel.isActive { resumeReading() }
        if !origin.isActive { other.end() }
    }

    /// Nothing more goes through: the channel is reset.
    func abort() {
        guard let channel = context?.channel else { return }
        Self.reset(channel)
    }

    // MARK: Handler

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        end()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        reads &+= 1
        hasLastWord = true
        // Without a peer the target has gone, and the gateway has not heard of it yet.
        guard let peer else { return }
        peer.hasLastWord = false
        peer.context?.write(data, promise: nil)
    }

    func channelReadComplete(context: ChannelHandlerContext) { peer?.context?.flush() }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { isReadHeld = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { peer?.resumeReading() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case is ChannelShouldQuiesceEvent:
            guard !isDraining else { return }
            isDraining = true
            closeWhenQuiet(reads: .max, quietTicks: 0)
        case ChannelEvent.inputClosed as ChannelEvent:
            isInputClosed = true
            peer?.closeOutput()
        case ChannelEvent.outputClosed as ChannelEvent: isOutputClosed = true
        default: break
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        hasFailed = true
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { end() }

    // MARK: Ends

    /// The FIN goes behind what was written. NIO would close a socket whose input has ended without waiting for that.
    private func closeOutput() {
        guard let context else { return }
        guard isInputClosed else { return context.close(mode: .output, promise: nil) }
        let written = context.eventLoop.makePromise(of: Void.self)
        let channel = context.channel
        written.futureResult.whenComplete { _ in channel.close(mode: .output, promise: nil) }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: written)
    }

    /// The channel is closed.
    private func end() {
        guard !hasEnded else { return }
        hasEnded = true
        guard let peer else { return }
        if isOutputClosed, !isInputClosed, !hasFailed {
            // NIO does not say that a socket's input has ended if that closes it.
            isInputClosed = true
            peer.closeOutput()
        }
        self.peer = nil
        peer.peer = nil
        switch side {
        // It has got its FIN, behind what was written to it.
        case .tunnel where isInputClosed && peer.isInputClosed && !hasFailed: break
        // What the gateway still sends is thrown away until it has heard of the end.
        case .origin where isInputClosed: peer.resumeReading()
        case .origin:
            peer.resumeReading()
            peer.context?.eventLoop.assumeIsolated().scheduleTask(in: Self.lastWords) { peer.abort() }
        case .tunnel: peer.abort()
        }
    }

    private static func reset(_ channel: any Channel) {
        if let socket = channel as? any SocketOptionProvider {
            socket.setSoLinger(linger(l_onoff: 1, l_linger: 0)).assumeIsolated().whenComplete { _ in channel.close(promise: nil) }
        } else {
            channel.triggerUserOutboundEvent(WireGuardChannel.AbortEvent(), promise: nil)
        }
    }

    // MARK: Draining

    /// On the way down a relay ends when the target has spoken last and both are silent for a second: no request is in hand then, and
    /// no response that makes progress. Others are left to their ends.
    private func closeWhenQuiet(reads last: UInt64, quietTicks: Int) {
        guard !hasEnded, let context else { return }
        let now = reads &+ (peer?.reads ?? 0)
        let isIdle = peer != nil && now == last && !hasLastWord && mayRead && peer?.mayRead == true
        let ticks = isIdle ? quietTicks + 1 : 0
        if ticks == Self.quietTicks {
            let other = peer
            peer = nil
            other?.peer = nil
            other?.context?.close(promise: nil)
            context.close(promise: nil)
        } else {
            context.eventLoop.assumeIsolated().scheduleTask(in: Self.quietTick) {
                self.closeWhenQuiet(reads: now, quietTicks: ticks)
            }
        }
    }

    /// A turn of the tunnel sends what it has taken, as far as its windows allow; a reset would throw that away.
    private static let lastWords = TimeAmount.milliseconds(10)
    private static let quietTick = TimeAmount.milliseconds(250)
    private static let quietTicks = 4

    // MARK: Reading

    private var mayRead: Bool { peer?.context?.channel.isWritable ?? isJoined }

    private func resumeReading() {
        guard isReadHeld, mayRead else { return }
        isReadHeld = false
        context?.read()
    }
}
