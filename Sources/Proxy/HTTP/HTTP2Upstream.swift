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
    /// Opened, without a frame yet.
    private var unsent = 0
    private var isLeaving = false
    private var hasBegun = false
    private var isClosed = false
    private var isFlushDue = false
    private var credit = 0
    private var lastError: (any Error)?
    private(set) var deadline = NIODeadline.distantFuture

    init(target: UpstreamTarget, pool: UpstreamPool, limits: ProxyLimits) {
        self.target = target
        self.pool = pool
        self.limits = limits
    }

    static func configure(_ channel: any Channel, target: UpstreamTarget, pool: UpstreamPool, limits: ProxyLimits) throws -> HTTP2Upstream {
        var configuration = NIOHTTP2Handler.ConnectionConfiguration()
        configuration.initialSettings = [
            HTTP2Setting(parameter: .enablePush, value: 0), HTTP2Setting(parameter: .maxConcurrentStreams, value: 0),
            HTTP2Setting(parameter: .initialWindowSize, value: limits.streamWindow),
            HTTP2Setting(parameter: .maxHeaderListSize, value: limits.headerListSize),
        ]
        let connection = HTTP2Upstream(target: target, pool: pool, limits: limits)
        let operations = channel.pipeline.syncOperations
        try operations.addHandler(FrameCoalescer())
        try operations.addHandler(NIOHTTP2Handler(mode: .client, connectionConfiguration: configuration))
        try operations.addHandler(connection)
        return connection
    }

    var hasRoom: Bool { !isLeaving && !isClosed && streams.count + unsent < maximumStreams && context?.channel.isActive ?? false }

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
    }

    func flush() { context?.flush() }

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
        pool.clock.remove(self)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        switch frame.payload {
        case .headers(let content): streams[frame.streamID]?.receive(content.headers, endStream: content.endStream)
        case .data(let content):
            guard case .byteBuffer(let bytes) = content.data else { return }
            let padding = content.paddingBytes.map { $0 + 1 } ?? 0
            // One stream that nobody reads must not stop the others: a stream's own window bounds what it keeps.
            credit += bytes.readableBytes + padding
            if credit > limits.connectionWindow / 4 {
                write(.rootStream, .windowUpdate(windowSizeIncrement: credit))
                credit = 0
                flush()
            }
            streams[frame.streamID]?.receive(bytes, padding: padding, endStream: content.endStream)
        case .settings(.settings(let settings)):
            if !hasBegun {
                hasBegun = true
                let growth = limits.connectionWindow - HTTP2Window.standard
                if growth > 0 { write(.rootStream, .windowUpdate(windowSizeIncrement: growth)) }
                flush()
            }
            for setting in settings where setting.parameter == .maxConcurrentStreams { maximumStreams = setting.value }
        case .goAway(let last, _, _):
            // Before the requests are tried again, so that they go elsewhere.
            leave()
            for (id, stream) in streams where id > last {
                streams[id] = nil
                stream.lost(.broken("the upstream turned the request away"), wasUnprocessed: true)
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
        case ChannelEvent.inputClosed: context.close(promise: nil)
        default: break
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        for stream in streams.values { stream.connectionWritabilityChanged() }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if error is NIOHTTP2Errors.StreamError {
            context.flush()
        } else {
            lastError = error
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        isClosed = true
        deadline = .distantFuture
        pool.remove(self)
        pool.clock.remove(self)
        let all = streams
        streams = [:]
        let failure = lastError.map { UpstreamFailure($0) } ?? .broken("the upstream closed the connection")
        for stream in all.values { stream.lost(failure, wasUnprocessed: false) }
        context.fireChannelInactive()
    }

    func deadlineReached() { leave() }

    private static let lastStream = 1 << 30
}

/// One exchange on an ``HTTP2Upstream``.
final class HTTP2UpstreamStream: UpstreamStream {
    private let connection: HTTP2Upstream
    private var id: HTTP2StreamID?
    private var request: ProxyRequest?
    let isReused: Bool
    private var hasHead = false
    private var isOutputEnded = false
    private var isInputEnded = false
    private var isClosed = false
    private var isReadPaused = false
    private var buffered = 0
    private var wasWritable = true
    /// Received while the client takes nothing.
    private var heldBack = 0

    init(connection: HTTP2Upstream, isReused: Bool) {
        self.connection = connection
        self.isReused = isReused
    }

    var isWritable: Bool { buffered < (wasWritable ? HTTP2Window.sendBufferHigh : HTTP2Window.sendBufferLow) }
    var takesRawChunks: Bool { false }

    func lease(to request: ProxyRequest) { self.request = request }

    func send(_ outgoing: OutgoingRequest) {
        guard let id = connection.begin(self) else {
            isClosed = true
            // Not from within the call of the one who has just leased it.
            connection.pool.clock.eventLoop.assumeIsolated().execute { [self] in
                self.request?.upstreamLost(self, .broken("the upstream closed the connection"), wasUnprocessed: true)
            }
            return
        }
        self.id = id
        let request = outgoing.request
        var headers = HPACKHeaders()
        headers.reserveCapacity(request.section.lines.count + 12)
        headers.add(name: ":method", value: request.methodText)
        headers.add(name: ":scheme", value: "http")
        headers.add(name: ":authority", value: outgoing.host)
        headers.add(name: ":path", value: request.targetText)
        HTTP2Fields.add(request.section, to: &headers)
        for line in String(buffer: outgoing.added).split(separator: "\r\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            headers.add(name: line[..<colon].lowercased(), value: String(HeaderTokens.trimmed(line[line.index(after: colon)...])))
        }
        if case .length(let count) = request.framing { headers.add(name: "content-length", value: String(count)) }
        if request.expectsContinue { headers.add(name: "expect", value: "100-continue") }
        if request.acceptsTrailers { headers.add(name: "te", value: "trailers") }
        isOutputEnded = !request.hasBody
        connection.write(id, .headers(.init(headers: headers, endStream: isOutputEnded)))
    }

    func sendBody(_ bytes: ByteBuffer) {
        guard let id, !isOutputEnded, !isClosed, let eventLoop = connection.eventLoop else { return }
        let count = bytes.readableBytes
        buffered += count
        let promise = eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [self] _ in
            buffered -= count
            noteWritability()
        }
        connection.write(id, .data(.init(data: .byteBuffer(bytes))), promise: promise)
        noteWritability()
    }

    func sendEnd(_ trailers: FieldSection?) {
        guard let id, !isOutputEnded, !isClosed else { return }
        isOutputEnded = true
        if let trailers {
            connection.write(id, .headers(.init(headers: HTTP2Fields.trailers(trailers), endStream: true)))
        } else {
            connection.write(id, .data(.init(data: .byteBuffer(ByteBuffer()), endStream: true)))
        }
    }

    func flush() { connection.flush() }

    func setReadPaused(_ paused: Bool) {
        isReadPaused = paused
        if !paused { giveBack() }
    }

    func finish(reuse: Bool) {
        request = nil
        if id == nil, !isClosed { connection.discard() }
    }

    func abandon(_ work: ClientWork?) {
        request = nil
        guard !isClosed else { return }
        guard let id else { return connection.discard() }
        connection.write(id, .rstStream(.cancel))
        connection.flush()
    }

    func connectionWritabilityChanged() { noteWritability() }

    private func noteWritability() {
        let isWritable = isWritable
        guard isWritable != wasWritable else { return }
        wasWritable = isWritable
        if !isClosed { request?.upstreamWritabilityChanged() }
    }

    // MARK: Called by the connection

    func receive(_ headers: HPACKHeaders, endStream: Bool) {
        guard let request else { return }
        switch HTTP2Fields.section(headers, limits: connection.limits) {
        case .failure(let fault): return request.reject(.malformed(fault))
        case .success(let (section, pseudo)):
            if hasHead {
                isInputEnded = true
                return request.receiveResponseEnd(section)
            }
            switch ResponseRules.check(
                code: pseudo.status ?? 0, reason: .empty, isHTTP10: false, section, isHEAD: request.isHEAD, rawChunks: false,
                untilClose: false)
            {
            case .failure(let fault): return request.reject(fault)
            case .success(let response):
                hasHead = response.code >= 200
                request.receive(response)
            }
        }
        if endStream { receiveEnd() }
    }

    func receive(_ bytes: ByteBuffer, padding: Int, endStream: Bool) {
        heldBack += bytes.readableBytes + padding
        if bytes.readableBytes > 0 { request?.receiveResponseBody(bytes) }
        if endStream { receiveEnd() } else if !isReadPaused { giveBack() }
    }

    private func receiveEnd() {
        guard !isInputEnded else { return }
        isInputEnded = true
        request?.receiveResponseEnd(nil)
    }

    func readComplete() { request?.upstreamReadComplete() }

    func closed(_ reason: HTTP2ErrorCode?) {
        isClosed = true
        guard let reason, !isInputEnded else { return }
        request?.upstreamLost(self, .broken("the upstream reset the stream: \(reason)"), wasUnprocessed: reason == .refusedStream)
    }

    func lost(_ failure: UpstreamFailure, wasUnprocessed: Bool) {
        isClosed = true
        request?.upstreamLost(self, failure, wasUnprocessed: wasUnprocessed)
    }

    private func giveBack() {
        guard let id, !isClosed, !isInputEnded, heldBack >= connection.limits.streamWindow / 4 else { return }
        connection.write(id, .windowUpdate(windowSizeIncrement: heldBack))
        connection.flush()
        heldBack = 0
    }
}
