import NIOCore
import NIOExtras
import NIOWireGuard

/// One half of a relay; each is the only handler of its channel, both on one loop.
///
///     tunnel: opening ──first bytes──► dialing ──the target answers──► joined ──a channel closes──► left
///     origin:                                                          joined
///
/// | event here | there |
/// |---|---|
/// | bytes | the same buffers, flushed once a read |
/// | not writable | nothing is read |
/// | end of input | FIN behind the last bytes |
/// | reset by the gateway | reset |
/// | reset by the target | reset behind the last bytes: a server that does not want a request's body answers, closes, and so resets |
///
/// An answer that was cut never looks complete: where that may be, the tunnel's connection ends with a reset. Bound to its event loop.
final class RelayHalf: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Side { case tunnel, origin }

    private enum Phase {
        /// What has come does not tell yet what is spoken.
        case opening(ByteBuffer)
        /// What has come waits for the target.
        case dialing(ByteBuffer)
        case joined(RelayHalf)
        case left
    }

    private let side: Side
    private let relay: TunnelRelay
    private var phase = Phase.opening(ByteBuffer())
    private var context: ChannelHandlerContext?
    private var isReadHeld = false
    private var isInputClosed = false
    private var isOutputClosed = false
    private var hasFailed = false
    private var hasEnded = false

    // Kept by the tunnel's half for both.
    private var begun = NIODeadline.uptimeNanoseconds(0)
    private var received: UInt64 = 0
    private var sent: UInt64 = 0
    /// Whether the gateway has spoken last: a request may be with the target.
    private var isAnswerOwed = false
    private var isRetiring = false
    /// The target was told that nothing more comes, though the gateway has not said so.
    private var hasRetired = false

    init(_ side: Side, relay: TunnelRelay) {
        self.side = side
        self.relay = relay
    }

    /// The target has answered the connect of this half's relay.
    func join(_ origin: any Channel) {
        let other = RelayHalf(.origin, relay: relay)
        // The gateway may have gone meanwhile.
        guard case .dialing(let held) = phase else { return Self.reset(origin) }
        guard (try? origin.pipeline.syncOperations.addHandler(other)) != nil else {
            Self.reset(origin)
            return abort()
        }
        (phase, other.phase) = (.joined(other), .joined(self))
        other.context?.writeAndFlush(wrapOutboundOut(held), promise: nil)
        if isInputClosed { other.closeOutput() }
        resumeReading()
        if !origin.isActive { other.end() }
    }

    /// Nothing more goes through: the channel is reset now.
    func abort() {
        if let channel = context?.channel { Self.reset(channel) }
    }

    // MARK: Handler

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        begun = context.eventLoop.now
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        end()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch phase {
        case .joined(let peer):
            switch side {
            case .tunnel:
                received &+= UInt64(unwrapInboundIn(data).readableBytes)
                isAnswerOwed = true
                // The target would never see it.
                if hasRetired { return part(from: peer) }
            case .origin:
                peer.sent &+= UInt64(unwrapInboundIn(data).readableBytes)
                peer.isAnswerOwed = false
            }
            peer.context?.write(data, promise: nil)
        case .opening(var held):
            held.writeImmutableBuffer(unwrapInboundIn(data))
            open(with: held, context)
        case .dialing(var held):
            held.writeImmutableBuffer(unwrapInboundIn(data))
            phase = .dialing(held)
        // Nobody is there to hear it, and the other side will know soon.
        case .left: break
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if case .joined(let peer) = phase { peer.context?.flush() }
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { isReadHeld = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable, case .joined(let peer) = phase { peer.resumeReading() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case is ChannelShouldQuiesceEvent: retire(looking: Self.drainTick, until: .distantFuture)
        case let event as RelayRetires where event.relay === relay:
            retire(looking: Self.retirementTick, until: context.eventLoop.now + event.limit)
        case ChannelEvent.inputClosed as ChannelEvent: inputClosed(context)
        case ChannelEvent.outputClosed as ChannelEvent: isOutputClosed = true
        default: break
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        hasFailed = true
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { end() }

    // MARK: The beginning

    private func open(with bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        received = UInt64(bytes.readableBytes)
        isAnswerOwed = true
        switch PrefaceDetector.judge(bytes) {
        case .undecided: phase = .opening(bytes)
        case .http1:
            phase = .dialing(bytes)
            relay.dial(for: self, on: context.eventLoop)
        case .http2:
            phase = .left
            guard relay.handOver(context.channel) else { return abort() }
            hasEnded = true
            context.fireChannelRead(wrapInboundOut(bytes))
            context.fireChannelReadComplete()
            context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
        }
    }

    // MARK: Ends

    private func inputClosed(_ context: ChannelHandlerContext) {
        isInputClosed = true
        switch phase {
        case .joined(let peer): peer.closeOutput()
        // Nothing was asked yet.
        case .opening: context.close(promise: nil)
        case .dialing, .left: break
        }
    }

    /// The FIN goes behind what was written. NIO would close a socket whose input has ended without waiting for that.
    private func closeOutput() {
        // It is not the target who chose to end here.
        if hasRetired { return abortBehindOutput() }
        guard let context else { return }
        guard isInputClosed else { return context.close(mode: .output, promise: nil) }
        let written = context.eventLoop.makePromise(of: Void.self)
        let channel = context.channel
        written.futureResult.assumeIsolated().whenComplete { result in
            if case .success = result { self.isOutputClosed = true }
            channel.close(mode: .output, promise: nil)
        }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: written)
    }

    /// The channel is closed.
    private func end() {
        guard !hasEnded else { return }
        hasEnded = true
        if side == .tunnel, let loop = context?.eventLoop { relay.ended(received: received, sent: sent, after: loop.now - begun) }
        guard case .joined(let peer) = phase else {
            phase = .left
            return
        }
        if side == .origin, isOutputClosed, !isInputClosed, !hasFailed {
            // NIO does not say that a socket's input has ended if that closes it.
            isInputClosed = true
            peer.closeOutput()
        }
        (phase, peer.phase) = (.left, .left)
        switch side {
        case .tunnel:
            // The target has got its FIN, behind what was written to it.
            if isInputClosed, peer.isInputClosed, !hasFailed { peer.watchOutput() } else { peer.abort() }
        case .origin:
            peer.resumeReading()
            // After both ends of its stream nothing can be cut any more.
            if !isInputClosed || !isOutputClosed { peer.abortBehindOutput() }
        }
    }

    /// There is something for the target that it will not see.
    private func part(from peer: RelayHalf) {
        (phase, peer.phase) = (.left, .left)
        peer.abort()
        abortBehindOutput()
    }

    /// The tunnel's channel is reset once the gateway has acknowledged all that was written.
    private func abortBehindOutput() {
        let patience = hasRetired ? min(relay.patience, Self.patienceWhenRetired) : relay.patience
        context?.channel.triggerUserOutboundEvent(WireGuardChannel.AbortEvent(onceAcknowledgedWithin: patience), promise: nil)
    }

    /// A target that takes nothing more of what it is owed is not waited for.
    private func watchOutput(left before: Int = .max) {
        guard !hasEnded, let context else { return }
        let left = DrainWatch.buffered(context.channel)
        guard left < before else { return abort() }
        context.eventLoop.assumeIsolated().scheduleTask(in: relay.patience) { self.watchOutput(left: left) }
    }

    private static func reset(_ channel: any Channel) { ConnectionReset.send(on: channel) { channel.close(promise: nil) } }

    // MARK: Retirement

    /// The tunnel's half ends as soon as it seems to be idle: when the target has spoken last, and both have been silent for some looks.
    private func retire(looking interval: TimeAmount, until deadline: NIODeadline) {
        guard side == .tunnel, !isRetiring else { return }
        isRetiring = true
        retire(looking: interval, until: deadline, moved: .max, silence: 0)
    }

    private func retire(looking interval: TimeAmount, until deadline: NIODeadline, moved before: UInt64, silence: Int) {
        guard !hasEnded, let context else { return }
        let moved = received &+ sent
        var silence = moved == before ? silence + 1 : 0
        switch phase {
        case .opening: return context.close(promise: nil)
        case .left: return
        case .dialing: break
        case .joined(let peer):
            if context.eventLoop.now >= deadline { return part(from: peer) }
            if isAnswerOwed || !mayRead || !peer.mayRead { silence = 0 }
            if silence >= Self.silentLooks, !hasRetired {
                // An idle server closes then. One in the midst of an answer may come to its end.
                peer.closeOutput()
                hasRetired = true
            }
        }
        context.eventLoop.assumeIsolated().scheduleTask(in: interval) {
            self.retire(looking: interval, until: deadline, moved: moved, silence: silence)
        }
    }

    /// On the way down an answer may pause for a second.
    private static let drainTick = TimeAmount.milliseconds(250)
    /// With another target in use nobody should wait for long.
    private static let retirementTick = TimeAmount.milliseconds(25)
    private static let silentLooks = 4
    /// A gateway that has vanished does not hold up the way down.
    private static let patienceWhenRetired = TimeAmount.seconds(2)

    // MARK: Reading

    private var mayRead: Bool {
        switch phase {
        case .opening, .left: true
        case .dialing: false
        case .joined(let peer): peer.context?.channel.isWritable ?? false
        }
    }

    private func resumeReading() {
        guard isReadHeld, mayRead else { return }
        isReadHeld = false
        context?.read()
    }
}
