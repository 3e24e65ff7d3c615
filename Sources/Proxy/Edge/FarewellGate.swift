import NIOCore

/// Between a socket and its TLS handler: holds back what the last writes of a connection would flush one by one, so that the end of an
/// answer and the `close_notify` behind it leave as one segment. It also ends a connection without a `close_notify`.
package final class FarewellGate: ChannelOutboundHandler {
    package typealias OutboundIn = ByteBuffer

    /// Trigger it outbound before the last writes. It holds until output is closed, at most until the turn of the loop ends.
    package struct Hold: Sendable {
        package init() {}
    }

    /// Trigger it outbound to end the connection with a TCP reset: TLS says nothing more.
    package struct Reset: Sendable {
        package init() {}
    }

    private var isHolding = false

    package init() {}

    package func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        switch event {
        case is Hold:
            isHolding = true
            promise?.succeed()
            context.eventLoop.assumeIsolated().execute { [self] in release(context) }
        case is Reset:
            promise?.succeed()
            ConnectionReset.send(on: context.channel) { context.close(promise: nil) }
        default: context.triggerUserOutboundEvent(event, promise: promise)
        }
    }

    package func flush(context: ChannelHandlerContext) {
        if !isHolding { context.flush() }
    }

    package func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        release(context)
        context.close(mode: mode, promise: promise)
    }

    private func release(_ context: ChannelHandlerContext) {
        guard isHolding else { return }
        isHolding = false
        context.flush()
    }
}
