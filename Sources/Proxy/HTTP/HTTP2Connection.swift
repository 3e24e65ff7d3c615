import NIOCore
import NIOHPACK
import NIOHTTP2

/// A client's connection that speaks HTTP/2, behind NIO's handler, which knows frames, states, HPACK, and limits of what a peer may do
/// (RFC 9113 §4 to §7). Here are the streams: each is an exchange of its own (``HTTP2ServerStream``), without a channel.
///
///     open ──drain, idle, too many requests──► leaving (GOAWAY, twice) ──no streams──► closed
///       └──connection error──► lingering ──► closed
final class HTTP2Connection: ChannelDuplexHandler, ClockWatcher {
    typealias InboundIn = HTTP2Frame
    typealias OutboundIn = Never
    typealias OutboundOut = HTTP2Frame

    private enum Phase: Equatable {
        case open
        /// `isFinal`: the last stream was named.
        case leaving(isFinal: Bool)
        case lingering
        case closed
    }

    let service: ProxyService
    let loop: ProxyLoop
    let hosts: HostCache
    var identity: ClientIdentity
    private var context: ChannelHandlerContext?
    private var phase = Phase.open
    private var streams: [HTTP2StreamID: HTTP2ServerStream] = [:]
    private var lastStream = HTTP2StreamID.rootStream
    private var requests = 0
    private var hasBegun = false
    private var isDeaf = false
    private var ownDeadline = NIODeadline.distantFuture
    private var isFlushDue = false
    /// Received and held back, of all streams; and what the connection's window lacks.
    private var held = 0
    private var credit = 0
    private(set) var peerLimits = HTTP2PeerLimits()
    var indexing = HeaderIndexing()
    private let frames = HTTP2FrameWatch()
    private let coalescer = FrameCoalescer()
    private var order = HTTP2FrameOrder()
    /// No stream's window may be below zero: see ``HTTP2WindowGuard``.
    private(set) var takesEmptyData = true
    /// Bytes by which streams may still grow their windows; without a bound where all of them share one.
    private var growth: Int

    init(service: ProxyService, loop: ProxyLoop, identity: ClientIdentity, coverage: (any HostCoverage)?) {
        self.service = service
        self.loop = loop
        self.identity = identity
        hosts = HostCache(router: service.router, coverage: coverage)
        growth = service.mode == .agent ? HTTP2Window.sharedGrowth : .max
    }

    /// - Parameter count: negative gives back.
    func grow(by count: Int) -> Int {
        guard isShared else { return count }
        let granted = min(count, growth)
        growth -= granted
        return granted
    }

    /// The handlers of a connection, in order.
    static func configure(
        _ channel: any Channel, service: ProxyService, loop: ProxyLoop, identity: ClientIdentity, coverage: (any HostCoverage)?
    ) throws {
        let limits = service.limits
        let connection = HTTP2Connection(service: service, loop: loop, identity: identity, coverage: coverage)
        let settings = [
            HTTP2Setting(parameter: .maxConcurrentStreams, value: max(limits.streamsPerConnection, HTTP2Window.standardStreams)),
            HTTP2Setting(parameter: .initialWindowSize, value: connection.initialWindow),
            // Beyond it the connection ends; up to it, what is beyond the limit is answered.
            HTTP2Setting(parameter: .maxHeaderListSize, value: max(limits.headerListSize * 4, HTTP2Window.standardHeaderList)),
            HTTP2Setting(parameter: .enableConnectProtocol, value: 1),
        ]
        let operations = channel.pipeline.syncOperations
        try operations.addHandler(connection.coalescer)
        try operations.addHandler(HTTP2WindowGuard(.server) { [weak connection] in connection?.windowsShrink() })
        try operations.addHandler(HTTP2OwnSettings())
        try operations.addHandler(
            HTTP2Setup.handler(.server, settings: settings, isShared: connection.isShared, frames: connection.frames))
        try operations.addHandler(connection)
    }

    /// An agent's clients are its gateways: a connection carries the requests of many visitors.
    private var isShared: Bool { service.mode == .agent }
    var initialWindow: Int { min(isShared ? HTTP2Window.shared : HTTP2Window.initial, service.limits.streamWindow) }

    var deadline: NIODeadline { streams.values.reduce(ownDeadline) { min($0, $1.deadline) } }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        loop.clock.add(self)
        loop.counters.connectionOpened(.http2)
        ownDeadline = loop.clock.deadline(after: service.limits.header)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        loop.clock.remove(self)
        loop.counters.connectionClosed(.http2)
    }

    // MARK: Frames from the client

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        guard phase != .lingering, phase != .closed else { return }
        switch frame.payload {
        case .headers(let content):
            if let stream = streams[frame.streamID] {
                stream.receiveTrailers(content.headers)
            } else {
                open(frame.streamID, content)
            }
        case .data(let content):
            guard case .byteBuffer(let bytes) = content.data else { return }
            let padding = content.paddingBytes.map { $0 + 1 } ?? 0
            streams[frame.streamID]?.receive(bytes, padding: padding, endStream: content.endStream)
        case .settings(.settings(let settings)):
            for setting in settings { peerLimits.take(setting) }
            begin()
        case .settings(.ack), .rstStream, .priority, .ping, .goAway, .windowUpdate, .pushPromise, .alternativeService, .origin: break
        }
    }

    /// The client's preface is there. RFC 9113 §3.4: our own SETTINGS went first.
    private func begin() {
        guard !hasBegun else { return }
        hasBegun = true
        if requests == 0 { ownDeadline = loop.clock.deadline(after: service.limits.keepAliveIdle) }
        let growth = service.limits.connectionWindow - HTTP2Window.standard
        if growth > 0 { write(.rootStream, .windowUpdate(windowSizeIncrement: growth)) }
        // Only when the client has acknowledged it: what it has opened before is not too much.
        if service.limits.streamsPerConnection < HTTP2Window.standardStreams {
            let setting = HTTP2Setting(parameter: .maxConcurrentStreams, value: service.limits.streamsPerConnection)
            write(.rootStream, .settings(.settings([setting])))
        }
        flushSoon()
    }

    func read(context: ChannelHandlerContext) {
        if !isDeaf { context.read() }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        for stream in streams.values { stream.exchange.flushUpstream() }
        context.fireChannelReadComplete()
    }

    private func open(_ id: HTTP2StreamID, _ content: HTTP2Frame.FramePayload.Headers) {
        lastStream = max(lastStream, id)
        requests += 1
        ownDeadline = phase == .open ? .distantFuture : ownDeadline
        let stream = HTTP2ServerStream(id, connection: self)
        streams[id] = stream
        loop.counters.streamOpened()
        stream.begin(content.headers, endStream: content.endStream)
        if requests >= service.limits.requestsPerConnection, phase == .open { leave() }
    }

    /// What NIO's handler says of streams and windows.
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case let closed as StreamClosedEvent: streamClosed(closed.streamID)
        case let window as NIOHTTP2WindowUpdatedEvent where window.streamID == .rootStream:
            // Of every byte, also of those for streams that are no more, and after it has been passed on.
            credit = service.limits.connectionWindow - (window.inboundWindowSize ?? service.limits.connectionWindow)
            giveCredit()
        case is ChannelShouldQuiesceEvent: leave()
        case ChannelEvent.inputClosed: close()
        default: break
        }
        context.fireUserInboundEventTriggered(event)
    }

    private func streamClosed(_ id: HTTP2StreamID) {
        guard let stream = streams.removeValue(forKey: id) else { return }
        loop.counters.streamClosed()
        stream.closed()
        guard streams.isEmpty else { return }
        switch phase {
        case .open: ownDeadline = loop.clock.deadline(after: service.limits.keepAliveIdle)
        case .leaving(isFinal: true): linger()
        case .leaving(isFinal: false), .lingering, .closed: break
        }
    }

    // MARK: Called by streams

    func write(_ id: HTTP2StreamID, _ payload: HTTP2Frame.FramePayload, promise: EventLoopPromise<Void>? = nil) {
        guard let context else {
            promise?.fail(ChannelError.alreadyClosed)
            return
        }
        context.write(wrapOutboundOut(HTTP2Frame(streamID: id, payload: payload)), promise: promise)
        if case .headers = payload, order.isAtRisk(context.channel) { flush(context) }
    }

    var eventLoop: any EventLoop { loop.eventLoop }

    /// Answers of one turn leave together.
    func flushSoon() {
        guard !isFlushDue else { return }
        isFlushDue = true
        loop.eventLoop.assumeIsolated().execute { [self] in
            isFlushDue = false
            for stream in streams.values where stream.isFlushDue { stream.writeHeld() }
            if let context { flush(context) }
        }
    }

    private func windowsShrink() {
        takesEmptyData = false
        for stream in streams.values where stream.isEndWaiting { stream.reset(.flowControlError) }
        if let context { flush(context) }
    }

    /// Bytes came that a stream keeps for now.
    func hold(_ count: Int) { held += count }

    /// Bytes that a stream kept have gone on.
    func released(_ count: Int) {
        held -= count
        giveCredit()
    }

    /// One slow body must not stop the others: the window is kept open for them until too much is held.
    private func giveCredit() {
        guard hasBegun else { return }
        // Where many share the connection, bodies that nobody takes are bounded by their streams' windows alone.
        guard credit > service.limits.connectionWindow / 4, isShared || held < service.limits.connectionWindow else { return }
        let increment = credit
        credit = 0
        write(.rootStream, .windowUpdate(windowSizeIncrement: increment))
        flushSoon()
    }

    // MARK: The connection

    /// Marks what was written as ready to leave, RFC 9113 §5.1.
    private func flush(_ context: ChannelHandlerContext) {
        context.flush()
        order.flushed(context.channel)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        order.writabilityChanged(context.channel)
        for stream in streams.values { stream.exchange.clientWritabilityChanged(stream.isWritable) }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A connection may break off, too.
        if error is any NIOHTTP2Error { loop.counters.refused(Self.isFlood(error) ? .http2Flood : .http2Error) }
        // The stream was reset, and the connection goes on.
        guard frames.endsConnection(error) else { return flushSoon() }
        linger(reads: false)
    }

    private static func isFlood(_ error: any Error) -> Bool {
        error is NIOHTTP2Errors.ExcessiveRSTFrames || error is NIOHTTP2Errors.ExcessiveEmptyDataFrames
            || error is NIOHTTP2Errors.ExcessiveContinuationFrames || error is NIOHTTP2Errors.ExcessiveOutboundFrameBuffering
    }

    func channelInactive(context: ChannelHandlerContext) {
        phase = .closed
        ownDeadline = .distantFuture
        let all = streams
        streams = [:]
        for stream in all.values {
            loop.counters.streamClosed()
            stream.closed()
        }
        loop.clock.remove(self)
        context.fireChannelInactive()
    }

    func deadlineReached() {
        for stream in streams.values where stream.deadline <= loop.clock.now { stream.deadlineReached() }
        guard ownDeadline <= loop.clock.now else { return }
        switch phase {
        case .open: streams.isEmpty && requests == 0 ? close() : leave()
        case .leaving(isFinal: false): leaveFinally()
        case .leaving(isFinal: true), .lingering, .closed: close()
        }
    }

    /// RFC 9113 §6.8: first without a last stream, so that requests on their way are still served.
    private func leave() {
        guard phase == .open else { return }
        // No request in hand: nothing that a reset could overtake.
        if streams.isEmpty {
            write(.rootStream, .goAway(lastStreamID: lastStream, errorCode: .noError, opaqueData: nil))
            context?.flush()
            return close()
        }
        phase = .leaving(isFinal: false)
        ownDeadline = loop.clock.deadline(after: .zero)
        // NIO's handler would refuse the requests that are on their way.
        if let below = try? context?.pipeline.syncOperations.context(handler: coalescer) { coalescer.send(Self.farewell, below) }
        for stream in streams.values { stream.exchange.drain() }
        flushSoon()
    }

    private func leaveFinally() {
        phase = .leaving(isFinal: true)
        ownDeadline = .distantFuture
        write(.rootStream, .goAway(lastStreamID: lastStream, errorCode: .noError, opaqueData: nil))
        flushSoon()
        if streams.isEmpty { linger() }
    }

    /// The last frames must not be overtaken by a reset.
    /// - Parameter reads: whether to wait for the client's end; after an error nobody knows what comes, and it is not even read.
    private func linger(reads: Bool = true) {
        guard phase != .lingering, phase != .closed, let context else { return }
        let isLeaving = phase == .leaving(isFinal: true)
        phase = .lingering
        isDeaf = !reads
        // Who leaves has said so long before.
        ownDeadline = loop.clock.deadline(after: isLeaving ? .zero : service.limits.linger)
        let all = streams
        streams = [:]
        for stream in all.values {
            loop.counters.streamClosed()
            stream.closed()
        }
        context.flush()
        context.close(mode: .output, promise: nil)
    }

    private func close() { context?.close(promise: nil) }

    /// GOAWAY with the last of all streams and NO_ERROR, RFC 9113 §6.8.
    private static let farewell = ByteBuffer(bytes: [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])
}

/// Sizes of flow control, RFC 9113 §5.2 and §6.9.
enum HTTP2Window {
    /// Of each connection before anything is said.
    static let standard = 65_535
    /// What NIO's handler allows at first.
    static let standardStreams = 100
    static let standardHeaderList = 16 * 1024
    /// Of each stream; it grows while its bytes are taken at once.
    static let initial = 256 * 1024
    /// The same where many clients share a connection, and how much all streams of one may grow.
    static let shared = 64 * 1024
    static let sharedGrowth = 16 << 20
    /// SETTINGS_MAX_FRAME_SIZE of each connection before anything is said; and where the longest header section is to fit, RFC 9113 §6.5.2.
    static let standardFrameSize = 16 * 1024
    static let sharedFrameSize = 256 * 1024
    /// Bytes of one stream that may wait for the other side's window.
    static let sendBufferHigh = 64 * 1024
    static let sendBufferLow = 32 * 1024
    /// Answers to PINGs, SETTINGS and faults that may wait for the other side to read; and where many share the connection.
    static let controlFrames = 500
    static let sharedControlFrames = 10_000
    /// As many as make up the longest header section that is answered.
    static let continuationFrames = 12
    /// DATA frames without data, one after the other, that are no flood yet.
    static let emptyFrames = 16
    /// Bytes of a stream that nobody counts: a small answer.
    static let uncounted = 16 * 1024
}
