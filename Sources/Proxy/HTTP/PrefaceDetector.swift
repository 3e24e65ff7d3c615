import NIOCore

/// First in the pipeline of a connection that may speak either version: HTTP/2 begins with a preface that HTTP/1.1 would refuse,
/// RFC 9113 §3.4. Leaves when it knows.
final class PrefaceDetector: ChannelInboundHandler, RemovableChannelHandler, ClockWatcher {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let service: ProxyService
    private let scheme: ClientIdentity.Scheme
    private let clock: ConnectionClock
    private var held = ByteBuffer()
    private var context: ChannelHandlerContext?
    private(set) var deadline: NIODeadline

    init(service: ProxyService, scheme: ClientIdentity.Scheme, clock: ConnectionClock) {
        self.service = service
        self.scheme = scheme
        self.clock = clock
        deadline = clock.deadline(after: service.limits.keepAliveIdle)
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        clock.add(self)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        clock.remove(self)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        held.writeBuffer(&bytes)
        let preface = Self.preface.readableBytesView
        let count = min(held.readableBytes, preface.count)
        let isHTTP2 = held.readableBytesView.prefix(count).elementsEqual(preface.prefix(count))
        guard !isHTTP2 || count == preface.count else { return }
        do {
            try service.configure(context.channel, scheme: scheme, speaks: isHTTP2 ? .http2 : .http1)
        } catch {
            context.close(promise: nil)
            return
        }
        context.fireChannelRead(wrapInboundOut(held))
        held = ByteBuffer()
        context.fireChannelReadComplete()
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // Nothing was asked yet.
        if event is ChannelShouldQuiesceEvent || event as? ChannelEvent == .inputClosed { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelInactive(context: ChannelHandlerContext) {
        clock.remove(self)
        context.fireChannelInactive()
    }

    func deadlineReached() { context?.close(promise: nil) }

    private static let preface = ByteBuffer(string: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
}
