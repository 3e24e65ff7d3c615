import Glibc
import Logging
import NIOCore

/// The first handler of a listening socket: accepts nothing while there is no room for a connection. Clients then wait in the kernel's
/// queue, and are served when others have gone.
///
///     accepting ──as many as there may be──► full ──one has closed──► accepting
///         └──────the system is out of descriptors or memory──────► starved ──a second later──► accepting
///
/// The kernel's queue is read in batches: each listener may be some connections over the maximum, which `DescriptorLimit.reserve` has
/// room for. Bound to its event loop.
package final class AcceptPause: ChannelDuplexHandler {
    package typealias InboundIn = any Channel
    package typealias InboundOut = any Channel
    package typealias OutboundIn = Never

    private enum State {
        case accepting
        case paused(isReadHeld: Bool, isSaid: Bool)
        case closed
    }

    package static let retry = TimeAmount.seconds(1)
    private let limiter: ConnectionLimiter
    private let logger: Logger
    private var state = State.accepting

    package init(limiter: ConnectionLimiter, logger: Logger) {
        self.limiter = limiter
        self.logger = logger
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let (limiter, child) = (limiter, unwrapInboundIn(data))
        let hasRoom = limiter.enter()
        child.closeFuture.whenComplete { _ in limiter.leave() }
        if !hasRoom, pause(context, "there are as many connections as there may be") {
            let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
            limiter.whenRoom {
                bound.eventLoop.execute {
                    let (handler, context) = bound.value
                    handler.resume(context)
                }
            }
        }
        context.fireChannelRead(data)
    }

    package func read(context: ChannelHandlerContext) {
        switch state {
        case .accepting: context.read()
        case .paused(_, let isSaid): state = .paused(isReadHeld: true, isSaid: isSaid)
        case .closed: break
        }
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError, Self.isShortage(error.errnoCode) else { return context.fireErrorCaught(error) }
        guard pause(context, systemMessage(error.errnoCode)) else { return }
        context.eventLoop.assumeIsolated().scheduleTask(in: Self.retry) { self.resume(context) }
    }

    package func channelInactive(context: ChannelHandlerContext) {
        state = .closed
        context.fireChannelInactive()
    }

    /// - Returns: whether it was not paused before: then somebody has to see to it that it goes on.
    private func pause(_ context: ChannelHandlerContext, _ reason: String) -> Bool {
        guard case .accepting = state else { return false }
        var isSaid = false
        if case .write(let omitted) = limiter.logBudget.take(.acceptPaused, now: .now()) {
            isSaid = true
            var metadata: Logger.Metadata = ["reason": "\(reason)", "connections": .stringConvertible(limiter.open)]
            if omitted > 0 { metadata["omitted"] = .stringConvertible(omitted) }
            logger.warning("No connection is accepted for now: new ones wait", metadata: metadata)
        }
        state = .paused(isReadHeld: false, isSaid: isSaid)
        return true
    }

    private func resume(_ context: ChannelHandlerContext) {
        guard case .paused(let isReadHeld, let isSaid) = state else { return }
        state = .accepting
        if isSaid {
            logger.notice("Connections are accepted again", metadata: ["connections": .stringConvertible(limiter.open)])
        }
        if isReadHeld { context.read() }
    }

    /// What the system may have again a moment later (accept(2)).
    private static func isShortage(_ code: CInt) -> Bool { [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(code) }
}
