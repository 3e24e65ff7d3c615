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
        let judgement = Self.judge(held)
        guard judgement != .undecided else { return }
        do {
            try service.configure(context.channel, scheme: scheme, speaks: judgement == .http2 ? .http2 : .http1)
        } catch {
            context.close(promise: nil)
            return
        }
        context.fireChannelRead(wrapInboundOut(held))
        held = ByteBuffer()
        context.fireChannelReadComplete()
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    enum Judgement { case undecided, http1, http2 }

    /// What a connection speaks that begins with these bytes.
    static func judge(_ bytes: ByteBuffer) -> Judgement {
        let preface = Self.preface.readableBytesView
        let count = min(bytes.readableBytes, preface.count)
        guard bytes.readableBytesView.prefix(count).elementsEqual(preface.prefix(count)) else { return .http1 }
        return count == preface.count ? .http2 : .undecided
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
