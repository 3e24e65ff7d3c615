import NIOCore
import NIOHTTP1

/// The end of the pipeline of a client's connection: one request after the other is checked, routed, and passed on.
///
/// The order of events within a request is ``ProxyExchange``'s matter; here are the bytes, the timer, and the reads that are held back:
/// from the client while the upstream takes nothing or a response is due, from the upstream while the client takes nothing.
/// Everything happens on the channel's event loop, the upstream's connection included.
final class ProxyHandler: ChannelDuplexHandler, RemovableChannelHandler, ClockWatcher {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Phase {
        case idle
        case exchanging
        /// Output is closed; what still comes is thrown away.
        case lingering
        /// Bytes pass without us.
        case relaying
        case closed
    }

    /// Comes in while a response is due.
    enum Pipelined {
        case part(HTTPServerRequestPart)
        case error(any Error)
    }

    enum Timer {
        case header, keepAlive, connect, responseHead, bodyIdle, linger
    }

    /// What belongs to the request in hand.
    struct Current {
        var request: CheckedRequest
        var route: Route?
        /// Kept until the response begins, for another try.
        var head: HTTPRequestHead?
        var heldBody: [ByteBuffer] = []
        var heldEnd: HTTPHeaders??
        var requestID: String?
        var started = NIODeadline.uptimeNanoseconds(0)
        var status: UInt = 0
    }

    let service: ProxyService
    let loop: ProxyLoop
    let log: AccessLog
    let coverage: (any HostCoverage)?
    var identity: ClientIdentity
    var writer: ResponseWriter
    var context: ChannelHandlerContext?
    var phase = Phase.idle
    var exchange = ProxyExchange(.init(isHTTP10: false, wantsWebSocket: false, hasBody: false, isIdempotent: false))
    var current: Current?
    var upstream: UpstreamConnection?
    /// A connect that is answered with an older number has come too late.
    var connectNumber: UInt64 = 0
    var keepsAlive = true
    var isInputClosed = false
    var needsUpstreamFlush = false
    var isOutputClosed = false
    var queue = CircularBuffer<Pipelined>(initialCapacity: 0)
    private var isEmptyingQueue = false
    private var isReadHeld = false
    private var hasReadPart = false
    private var isQuiescing = false
    private var timer = Timer.header
    private(set) var deadline = NIODeadline.distantFuture
    /// The last host and its normal form.
    private var host: (field: String, name: String) = ("", "")
    private var coveredHost: String?

    init(
        service: ProxyService, loop: ProxyLoop, identity: ClientIdentity, coverage: (any HostCoverage)?, allocator: ByteBufferAllocator
    ) {
        self.service = service
        self.loop = loop
        self.identity = identity
        self.coverage = coverage
        log = AccessLog(service.logger, budget: service.logBudget, eventLoop: loop.eventLoop)
        writer = ResponseWriter(allocator: allocator)
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        setTimer(.header)
        loop.clock.add(self)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        loop.clock.remove(self)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch phase {
        // Without its decoder the pipeline brings plain bytes.
        case .lingering, .relaying, .closed: return
        case .idle, .exchanging: hasReadPart = true
        }
        let part = unwrapInboundIn(data)
        if queue.isEmpty, mayReceive { receive(part) } else { queue.append(.part(part)) }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        flushUpstream()
        // Bytes came, but not yet a whole head.
        if !hasReadPart, case .idle = phase, case .keepAlive = timer { setTimer(.header) }
        hasReadPart = false
        context.fireChannelReadComplete()
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { isReadHeld = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        upstream?.setReadPaused(!context.channel.isWritable)
        if case .bodyIdle = timer { setTimer(.bodyIdle) }
        if context.channel.isWritable {
            emptyQueue()
            updateGate()
        }
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case ChannelEvent.inputClosed:
            isInputClosed = true
            switch phase {
            case .exchanging where exchange.isRequestComplete: break
            case .lingering:
                DrainWatch.start(context.channel, clock: loop.clock, stall: service.limits.bodyIdle) { [weak self] in self?.close() }
            // Requests that wait for room are still answered.
            case .idle: if queue.isEmpty { linger() }
            case .exchanging: close()
            case .relaying, .closed: context.fireUserInboundEventTriggered(event)
            }
        case is ChannelShouldQuiesceEvent:
            isQuiescing = true
            keepsAlive = false
            // No request in hand: nothing that a reset could overtake.
            if case .idle = phase { close() }
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard error is HTTPParserError || error is ByteToMessageDecoderError else { return close() }
        switch phase {
        case .idle: answerWithoutRequest(.parserError(error))
        case .exchanging where exchange.isRequestComplete: queue.append(.error(error))
        case .exchanging:
            abandonUpstream()
            if exchange.isUnanswered { answer(.parserError(error)) } else { close() }
        case .lingering, .relaying, .closed: break
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        phase = .closed
        deadline = .distantFuture
        connectNumber += 1
        abandonUpstream()
        current = nil
        queue.removeAll()
        loop.clock.remove(self)
        context.fireChannelInactive()
    }

    func deadlineReached() {
        switch (timer, phase) {
        case (.header, .idle): answerWithoutRequest(.requestTimeout)
        case (.connect, .exchanging):
            fail(
                "no connection within \(service.limits.connect.nanoseconds / 1_000_000) ms",
                .unavailable(retryAfter: service.limits.retryAfter))
        case (.responseHead, .exchanging): fail("no response in time", .gatewayTimeout)
        case (.bodyIdle, .exchanging) where exchange.isRequestComplete: fail("response stalled", .gatewayTimeout)
        case (.bodyIdle, .exchanging): fail("request stalled", .requestTimeout)
        case (.keepAlive, .idle) where DrainWatch.buffered(context?.channel) > 0: linger()
        case (.linger, .lingering) where !isOutputClosed && DrainWatch.buffered(context?.channel) > 0: setTimer(.linger)
        case (.header, _), (.keepAlive, _), (.connect, _), (.responseHead, _), (.bodyIdle, _), (.linger, _): close()
        }
    }

    // MARK: The request

    private func receive(_ part: HTTPServerRequestPart) {
        switch (phase, part) {
        case (.idle, .head(let head)): start(head)
        case (.exchanging, .body(let bytes)):
            switch exchange.receiveRequestBody() {
            case .hold: current?.heldBody.append(bytes)
            case .forward:
                upstream?.send(.body(.byteBuffer(bytes)))
                needsUpstreamFlush = true
                if exchange.isUnanswered { setTimer(.bodyIdle) }
            case .discard, .finish: break
            }
        case (.exchanging, .end(let trailers)):
            let trailers = RequestRules.trailers(trailers)
            switch exchange.receiveRequestEnd() {
            case .hold: current?.heldEnd = .some(trailers)
            case .forward:
                upstream?.send(.end(trailers))
                needsUpstreamFlush = true
                if exchange.isUnanswered { setTimer(.responseHead) }
            case .finish: finishExchange()
            case .discard: break
            }
        case (.exchanging, .head), (.idle, .body), (.idle, .end), (.lingering, _), (.relaying, _), (.closed, _): break
        }
    }

    private func start(_ head: HTTPRequestHead) {
        phase = .exchanging
        let request: CheckedRequest
        switch RequestRules.check(head, forwarded: service.mode == .agent ? .keep : .drop) {
        case .failure(let refused):
            exchange = ProxyExchange(.init(isHTTP10: false, wantsWebSocket: false, hasBody: true, isIdempotent: false))
            keepsAlive = false
            return answer(.refusal(refused.refusal))
        case .success(let checked): request = checked
        }
        exchange = ProxyExchange(
            .init(
                isHTTP10: request.isHTTP10, wantsWebSocket: request.wantsWebSocket, hasBody: request.hasBody,
                isIdempotent: Self.isIdempotent(request.method)))
        keepsAlive = request.keepAlive && !isQuiescing
        current = Current(request: request)
        if log.isDebug {
            let requestID = service.nextRequestID()
            current?.requestID = requestID
            current?.started = .now()
            log.incoming(request, client: identity, requestID: requestID)
        }
        if host.field != request.authority || host.name.isEmpty {
            guard let name = HostName.normalize(request.authority) else { return answer(.refusal(.bad("bad Host"))) }
            host = (request.authority, name)
        }
        let resolution = service.router.resolve(host: host.name)
        if let coverage, coveredHost != host.name {
            switch resolution {
            case .route, .disabled:
                guard coverage.covers(host.name) else { return answer(.misdirected) }
                coveredHost = host.name
            case .redirect, .unknown: break
            }
        }
        switch resolution {
        case .unknown:
            log.notFound(host: host.name)
            answer(.tunnelNotFound)
        case .disabled:
            log.disabled(host: host.name)
            answer(.tunnelDisabled)
        case .redirect(let origin): answer(.redirect(request, origin: origin))
        case .route(let route): pass(request, to: route)
        }
    }

    private func pass(_ request: CheckedRequest, to route: Route) {
        current?.route = route
        switch service.mode {
        case .gateway:
            current?.head = RequestRules.upstreamHead(request, host: route.hostHeader ?? host.name, added: identity.fields(host: host.name))
        case .agent:
            current?.head = RequestRules.upstreamHead(request, host: route.hostHeader ?? request.authority, added: [])
        }
        if let connection = loop.pool.take(route.target) {
            attach(connection)
        } else {
            connect(to: route)
        }
    }

    /// RFC 9110 §9.2.2.
    private static func isIdempotent(_ method: HTTPMethod) -> Bool {
        switch method {
        case .GET, .HEAD, .OPTIONS, .PUT, .DELETE, .TRACE: true
        default: false
        }
    }

    // MARK: Between requests

    /// Answer and request are through.
    func finishExchange() {
        if log.isDebug, let current, let route = current.route, let requestID = current.requestID {
            log.proxied(route, current.request, status: current.status, duration: .now() - current.started, requestID: requestID)
        }
        current = nil
        upstream = nil
        guard keepsAlive, !(isInputClosed && queue.isEmpty) else { return linger() }
        phase = .idle
        setTimer(.keepAlive)
        emptyQueue()
        updateGate()
    }

    /// Requests that came ahead of their time, one after the other.
    private func emptyQueue() {
        guard !isEmptyingQueue else { return }
        isEmptyingQueue = true
        while !queue.isEmpty, mayReceive {
            switch queue.removeFirst() {
            case .part(let part): receive(part)
            case .error(let error): answerWithoutRequest(.parserError(error))
            }
        }
        isEmptyingQueue = false
        flushUpstream()
    }

    private var mayReceive: Bool {
        switch phase {
        case .exchanging: !exchange.isRequestComplete
        case .idle: isClientWritable
        case .lingering, .relaying, .closed: true
        }
    }

    private var mayRead: Bool {
        switch phase {
        case .exchanging:
            if exchange.isRequestComplete { return false }
            if case .answered = exchange.state { return true }
            return upstream?.isWritable ?? !exchange.facts.hasBody
        // A client that takes no answers gets no more of them.
        case .idle: return isClientWritable
        case .lingering, .relaying, .closed: return true
        }
    }

    private var isClientWritable: Bool { context?.channel.isWritable ?? true }

    func updateGate() {
        guard isReadHeld, mayRead else { return }
        isReadHeld = false
        context?.read()
    }

    func setTimer(_ timer: Timer) {
        self.timer = timer
        let limits = service.limits
        let amount =
            switch timer {
            case .header: limits.header
            case .keepAlive: limits.keepAliveIdle
            case .connect: limits.connect
            case .responseHead: limits.responseHead
            case .bodyIdle: limits.bodyIdle
            case .linger: limits.linger
            }
        deadline = loop.clock.deadline(after: amount)
    }
}
