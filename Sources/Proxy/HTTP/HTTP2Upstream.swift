import NIOCore
import NIOHPACK
import NIOHTTP2

/// A connection to an upstream that speaks HTTP/2 with prior knowledge, RFC 9113 §3.3: an agent of ours, or a service behind one.
///
///     open ──GOAWAY, idle──► leaving ──no streams──► closed
final class HTTP2Upstream: ChannelDuplexHandler, ClockWatcher {
    typealias InboundIn = HTTP2Frame
    typealias OutboundIn = Never
    typealias OutboundOut = HTTP2Frame

    let target: UpstreamTarget
    let pool: UpstreamPool
    let limits: ProxyLimits
    private var context: ChannelHandlerContext?
    private var streams: [HTTP2StreamID: HTTP2UpstreamStream] = [:]
    private var nextStream = HTTP2StreamID(1)
    private var maximumStreams = 100
    private(set) var peerLimits = HTTP2PeerLimits()
    var indexing = HeaderIndexing()
    private let frames = HTTP2FrameWatch()
    private var order = HTTP2FrameOrder()
    /// No stream's window may be below zero: see ``HTTP2WindowGuard``.
    private(set) var takesEmptyData = true
    /// Bytes by which streams may still grow their windows.
    private var growth = HTTP2Window.sharedGrowth
    /// Who waits for the upstream's SETTINGS: before them nobody knows what it takes.
    private var onBegin: ((UpstreamFailure?) -> Void)?
    /// Opened, without a frame yet.
    private var unsent = 0
    private var isLeaving = false
    private var hasBegun = false
    private var isClosed = false
    private var isFlushDue = false
    private var lastError: (any Error)?
    private(set) var deadline = NIODeadline.distantFuture

    init(target: UpstreamTarget, pool: UpstreamPool, limits: ProxyLimits) {
        self.target = target
        self.pool = pool
        self.limits = limits
    }

    static func configure(_ channel: any Channel, target: UpstreamTarget, pool: UpstreamPool, limits: ProxyLimits) throws -> HTTP2Upstream {
        let settings = [
            HTTP2Setting(parameter: .enablePush, value: 0), HTTP2Setting(parameter: .maxConcurrentStreams, value: 0),
            HTTP2Setting(parameter: .initialWindowSize, value: min(HTTP2Window.shared, limits.streamWindow)),
            HTTP2Setting(parameter: .maxHeaderListSize, value: limits.headerListSize),
        ]
        let connection = HTTP2Upstream(target: target, pool: pool, limits: limits)
        let operations = channel.pipeline.syncOperations
        try operations.addHandler(FrameCoalescer())
        try operations.addHandler(HTTP2WindowGuard(.client) { [weak connection] in connection?.windowsShrink() })
        try operations.addHandler(HTTP2Setup.handler(.client, settings: settings, isShared: true, frames: connection.frames))
        try operations.addHandler(connection)
        return connection
    }

    var hasRoom: Bool {
        hasBegun && !isLeaving && !isClosed && streams.count + unsent < maximumStreams && context?.channel.isActive ?? false
    }

    /// - Parameter body: called once, when the upstream's SETTINGS are there or will never be; perhaps before this returns.
    func whenBegun(_ body: @escaping (UpstreamFailure?) -> Void) {
        if isClosed { return body(.broken("the upstream closed the connection")) }
        if hasBegun { return body(nil) }
        onBegin = body
        deadline = pool.clock.deadline(after: limits.connect)
    }

    private func tellBegin(_ failure: UpstreamFailure?) {
        let body = onBegin
        onBegin = nil
        body?(failure)
    }

    /// A stream whose bytes are taken at once may have more on their way; all of them together not without a bound.
    /// - Parameter count: negative gives back.
    func grow(by count: Int) -> Int {
        let granted = min(count, growth)
        growth -= granted
        return granted
    }

    func open(isReused: Bool) -> HTTP2UpstreamStream {
        unsent += 1
        deadline = .distantFuture
        return HTTP2UpstreamStream(connection: self, isReused: isReused)
    }

    /// The id of a stream whose first frame is about to be written.
    func begin(_ stream: HTTP2UpstreamStream) -> HTTP2StreamID? {
        unsent -= 1
        guard !isClosed, context != nil else { return nil }
        let id = nextStream
        // Ids are odd and end at 2^31 - 1: long before, the connection is left for a new one.
        nextStream = id.advanced(by: 2)
        if Int(nextStream) > Self.lastStream { leave() }
        streams[id] = stream
        return id
    }

    /// A stream whose first frame was never sent.
    func forget(_ id: HTTP2StreamID) {
        streams[id] = nil
        settle()
    }

    /// A stream that was never used.
    func discard() {
        unsent -= 1
        settle()
    }

    func write(_ id: HTTP2StreamID, _ payload: HTTP2Frame.FramePayload, promise: EventLoopPromise<Void>? = nil) {
        guard let context else {
            promise?.fail(ChannelError.alreadyClosed)
            return
        }
        context.write(wrapOutboundOut(HTTP2Frame(streamID: id, payload: payload)), promise: promise)
        if case .headers = payload, order.isAtRisk(context.channel) { flush() }
    }

    private func windowsShrink() {
        takesEmptyData = false
        for (id, stream) in streams where stream.isEmptyEndWaiting { write(id, .rstStream(.flowControlError)) }
        flush()
    }

    /// Marks what was written as ready to leave, RFC 9113 §5.1.
    func flush() {
        guard let context else { return }
        context.flush()
        order.flushed(context.channel)
    }

    var eventLoop: (any EventLoop)? { context?.eventLoop }
    var closeFuture: EventLoopFuture<Void>? { context?.channel.closeFuture }

    /// No new exchanges.
    func leave() {
        guard !isLeaving else { return }
        isLeaving = true
        pool.remove(self)
        settle()
    }

    private func settle() {
        guard streams.isEmpty, unsent == 0 else { return }
        if isLeaving {
            context?.close(promise: nil)
        } else {
            deadline = pool.clock.deadline(after: limits.poolIdle)
        }
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        pool.clock.add(self)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        // A channel that closes as it opens is never inactive.
        end()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        switch frame.payload {
        case .headers(let content): streams[frame.streamID]?.receive(content.headers, endStream: content.endStream)
        case .data(let content):
            guard case .byteBuffer(let bytes) = content.data else { return }
            let padding = content.paddingBytes.map { $0 + 1 } ?? 0
            streams[frame.streamID]?.receive(bytes, padding: padding, endStream: content.endStream)
        case .settings(.settings(let settings)):
            if !hasBegun {
                hasBegun = true
                let growth = limits.connectionWindow - HTTP2Window.standard
                if growth > 0 { write(.rootStream, .windowUpdate(windowSizeIncrement: growth)) }
                flush()
            }
            for setting in settings {
                if setting.parameter == .maxConcurrentStreams { maximumStreams = setting.value }
                peerLimits.take(setting)
            }
            tellBegin(nil)
        case .goAway(let last, let code, _):
            // Before the requests are tried again, so that they go elsewhere.
            leave()
            for (id, stream) in streams where id > last {
                streams[id] = nil
                // NIO's handler names stream 0 after errors, whatever it has served.
                stream.lost(.broken("the upstream turned the request away"), wasUnprocessed: code == .noError)
            }
            settle()
        case .settings(.ack), .rstStream, .priority, .ping, .windowUpdate, .pushPromise, .alternativeService, .origin: break
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        for stream in streams.values { stream.readComplete() }
        context.fireChannelReadComplete()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case let closed as StreamClosedEvent:
            if let stream = streams.removeValue(forKey: closed.streamID) {
                stream.closed(closed.reason)
                settle()
            }
        case let window as NIOHTTP2WindowUpdatedEvent where window.streamID == .rootStream: giveCredit(window.inboundWindowSize)
        case ChannelEvent.inputClosed: context.close(promise: nil)
        default: break
        }
        context.fireUserInboundEventTriggered(event)
    }

    /// One stream that nobody reads must not stop the others: a stream's own window bounds what it keeps. NIO's handler tells of every
    /// byte, also of those for streams that are no more, and after it has passed them on.
    private func giveCredit(_ size: Int?) {
        guard hasBegun, let size, limits.connectionWindow - size > limits.connectionWindow / 4 else { return }
        write(.rootStream, .windowUpdate(windowSizeIncrement: limits.connectionWindow - size))
        flush()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        order.writabilityChanged(context.channel)
        for stream in streams.values { stream.connectionWritabilityChanged() }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard frames.endsConnection(error) else { return context.flush() }
        lastError = error
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    private func end() {
        isClosed = true
        deadline = .distantFuture
        pool.remove(self)
        pool.clock.remove(self)
        let all = streams
        streams = [:]
        let failure = lastError.map { UpstreamFailure($0) } ?? .broken("the upstream closed the connection")
        for stream in all.values { stream.lost(failure, wasUnprocessed: false) }
        tellBegin(failure)
    }

    func deadlineReached() {
        if !hasBegun { lastError = UpstreamFailure.unreachable("the upstream sends no SETTINGS") }
        leave()
    }

    private static let lastStream = 1 << 30
}
