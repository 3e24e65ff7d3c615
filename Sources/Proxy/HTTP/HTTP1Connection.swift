import NIOCore

/// The end of the pipeline of a client's connection that speaks HTTP/1.1: one request after the other is parsed, checked, and handed to
/// its ``ProxyRequest``.
///
///     idle ──head──► exchanging ──answer and request through──► idle
///       │                │  └── 101 ──► exchanging, as a relay
///       └──fault, time───┴──────► lingering ──► closed
///
/// Bytes that come ahead of their time (pipelined requests) wait here; no more are read until it is their turn.
final class HTTP1Connection: ChannelDuplexHandler, RemovableChannelHandler, ClockWatcher, ClientStream {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Phase {
        case idle
        case exchanging
        /// Output is closed; what still comes is thrown away.
        case lingering
        case closed
    }

    enum Timer {
        case header, keepAlive, requestEnd, linger
    }

    let service: ProxyService
    let loop: ProxyLoop
    var context: ChannelHandlerContext?
    var phase = Phase.idle
    var isInputClosed = false
    var isOutputClosing = false
    var isOutputClosed = false
    /// The body in hand has no other mark of its end than the connection's: HTTP/1.0.
    var endsWithConnection = false
    /// Received, not yet understood.
    var pending: ByteBuffer?
    let isTLS: Bool
    private let exchange: ProxyRequest
    private let hosts: HostCache
    private var identity: ClientIdentity
    private var writer: ResponseWriter
    private var records = RecordSizer()
    private var scanner = HeadScanner(startLine: true)
    private var body: BodyDecoder?
    private var keepsAlive = true
    private var version = CheckedRequest.Version.http11
    private var isProcessing = false
    private var isReadHeld = false
    private var isQuiescing = false
    private var isRelay = false
    private var requests = 0
    private var timer = Timer.header
    private var ownDeadline = NIODeadline.distantFuture

    init(
        service: ProxyService, loop: ProxyLoop, identity: ClientIdentity, coverage: (any HostCoverage)?, allocator: ByteBufferAllocator
    ) {
        self.service = service
        self.loop = loop
        self.identity = identity
        isTLS = identity.scheme == .https
        hosts = HostCache(router: service.router, coverage: coverage)
        exchange = ProxyRequest(service: service, loop: loop, isHTTP2: false)
        writer = ResponseWriter(allocator: allocator)
    }

    var deadline: NIODeadline { min(ownDeadline, exchange.deadline) }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        setTimer(.header)
        loop.clock.add(self)
        loop.counters.connectionOpened(.http1)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        loop.clock.remove(self)
        loop.counters.connectionClosed(.http1)
    }

    // MARK: Bytes from the client

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        switch phase {
        case .lingering, .closed: return
        case .idle, .exchanging: break
        }
        if pending == nil || pending?.readableBytes == 0 { pending = bytes } else { pending?.writeBuffer(&bytes) }
        process()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        exchange.flushUpstream()
        context.fireChannelReadComplete()
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { isReadHeld = true }
    }

    private func process() {
        guard !isProcessing else { return }
        isProcessing = true
        defer {
            isProcessing = false
            // Also no bytes hold the buffer that they came in, and TLS would have to copy all of it to read on.
            if pending?.readableBytes == 0 { pending = nil }
        }
        do {
            while let bytes = pending, try processNext(bytes) {}
        } catch {
            receiveFault(error)
        }
    }

    /// - Returns: whether there was enough, and leave, for a step.
    private func processNext(_ bytes: ByteBuffer) throws(HeadFault) -> Bool {
        switch phase {
        case .idle: return isClientWritable ? try processHead(bytes) : false
        case .exchanging:
            if isRelay {
                pending = nil
                guard bytes.readableBytes > 0 else { return false }
                exchange.receiveBody(bytes)
                return false
            }
            guard var decoder = body else { return false }
            var rest = bytes
            pending = nil
            defer { if pending == nil, phase == .idle || phase == .exchanging { pending = rest } }
            let step = try decoder.decode(&rest)
            body = decoder
            switch step {
            case .needMore: return false
            case .bytes(let piece): exchange.receiveBody(piece)
            case .end(let trailers):
                body = nil
                pending = rest
                exchange.receiveEnd(trailers)
            }
            return true
        case .lingering, .closed: return false
        }
    }

    private func processHead(_ bytes: ByteBuffer) throws(HeadFault) -> Bool {
        guard case .complete(let count) = try scanner.scan(bytes, limits: service.limits.head) else {
            if case .keepAlive = timer, bytes.readableBytes > 0 { setTimer(.header) }
            return false
        }
        let head = bytes.getSlice(at: bytes.readerIndex + scanner.skipped, length: count - scanner.skipped) ?? ByteBuffer()
        let (line, section) = try HeadParser.request(head, limits: service.limits.fields)
        pending?.moveReaderIndex(forwardBy: count)
        scanner = HeadScanner(startLine: true)
        phase = .exchanging
        ownDeadline = .distantFuture
        requests += 1
        switch RequestRules.check(line, section, forwarded: service.mode == .agent ? .keep : .drop) {
        case .failure(let refusal):
            keepsAlive = false
            exchange.refuse(
                .refusal(refusal), request: CheckedRequest(refused: line, section), from: self, hasBody: true, identity: identity)
        case .success(let request): start(request)
        }
        return true
    }

    private func start(_ request: CheckedRequest) {
        version = request.version
        keepsAlive = request.keepAlive && !isQuiescing && requests < service.limits.requestsPerConnection
        let visitor = identity.visitor(of: request)
        guard let work = service.beginWork(for: visitor) else {
            keepsAlive = false
            return exchange.refuse(
                .tooManyRequests(retryAfter: service.limits.retryAfter), request: request, from: self, hasBody: true, identity: identity)
        }
        exchange.start(
            request, from: self, identity: &identity, visitor: visitor, host: hosts.resolve(request), work: work.token)
        // An answer of ours may have ended all.
        guard phase == .exchanging else { return }
        let framing: BodyDecoder.Framing =
            switch request.framing {
            case .none: .none
            case .length(let count): .length(count)
            case .chunked: .chunked
            }
        body = BodyDecoder(framing, raw: exchange.wantsRawChunks, limits: service.limits.body)
    }

    private func receiveFault(_ fault: HeadFault) {
        let page = ErrorPage.fault(fault)
        switch phase {
        case .idle:
            refuseHead(page)
        case .exchanging:
            keepsAlive = false
            exchange.clientFault(page)
        case .lingering, .closed: break
        }
    }

    /// What has come is no head, or not all of one.
    private func refuseHead(_ page: ErrorPage) {
        keepsAlive = false
        phase = .exchanging
        var known: CheckedRequest?
        if var head = pending, head.readableBytes > scanner.skipped {
            head.moveReaderIndex(forwardBy: scanner.skipped)
            known = HeadParser.beginning(head, limits: service.limits.fields).map { CheckedRequest(refused: $0, $1) }
        }
        exchange.refuse(page, request: known, from: self, hasBody: true, identity: identity)
    }

    // MARK: ClientStream

    var isWritable: Bool { isClientWritable }
    var takesRawChunks: Bool { version == .http11 }

    func send(_ response: CheckedResponse) {
        var length: Int?
        var framing = ResponseWriter.Framing.plain
        switch response.framing {
        case .none: length = response.statedLength
        case .length(let count): length = count
        // HTTP/1.0 knows no chunks.
        case .chunked where version == .http10, .untilClose where version == .http10:
            keepsAlive = false
            endsWithConnection = true
        case .chunked(let isRaw): framing = isRaw ? .rawChunks : .chunked
        case .untilClose: framing = .chunked
        }
        writer.writeHead(
            code: response.code, reason: response.reason, section: response.section, length: length, connection: connectionField,
            framing: framing)
    }

    func sendInformational(_ response: CheckedResponse) {
        writer.writeHead(
            code: response.code, reason: response.reason, section: response.section, length: nil, connection: nil, framing: .plain)
    }

    func sendUpgrade(_ response: CheckedResponse, token: String) {
        writer.writeHead(
            code: response.code, reason: response.reason, section: response.section, length: nil, connection: "Upgrade", upgrade: token,
            framing: .plain)
        isRelay = true
        keepsAlive = false
        body = nil
    }

    func send(_ page: ErrorPage, accept: String?, requestID: String, isHEAD: Bool) -> Int {
        if exchange.exchange.facts.hasBody, !exchange.exchange.isRequestComplete { keepsAlive = false }
        let (fields, text) = page.render(accept: accept, requestID: requestID)
        writer.writeHead(
            code: page.status, section: FieldSection(), fields: fields, length: text.utf8.count, connection: connectionField,
            framing: .plain)
        if !isHEAD { sendBody(ByteBuffer(string: text)) }
        return isHEAD ? 0 : text.utf8.count
    }

    func sendBody(_ bytes: ByteBuffer) { writer.writeBody(bytes) { write($0) } }

    func sendEnd(_ trailers: FieldSection?) {
        endsWithConnection = false
        if isRelay { closeOutput() } else { writer.writeEnd(trailers: trailers) }
    }

    func flush() {
        if let bytes = writer.take() { write(bytes) }
        context?.flush()
    }

    func readingMayGoOn() {
        process()
        guard isReadHeld, mayRead else { return }
        isReadHeld = false
        context?.read()
    }

    func exchangeEnded(_ end: ExchangeEnd) {
        switch end {
        case .awaitsRequestEnd:
            flush()
            setTimer(.requestEnd)
        case .early: linger()
        case .cutOff: close()
        case .relayLost:
            flush()
            // So that the gateway tells its visitor, RFC 8441 §5.
            if service.mode == .agent { endsWithConnection = true }
            drainAndClose()
        case .complete:
            body = nil
            guard keepsAlive, !(isInputClosed && (pending?.readableBytes ?? 0) == 0) else { return linger() }
            flush()
            phase = .idle
            setTimer(.keepAlive)
            process()
            exchange.flushUpstream()
            readingMayGoOn()
        }
    }

    private var connectionField: StaticString? {
        if !keepsAlive { return "close" }
        return version == .http10 ? "keep-alive" : nil
    }

    private func write(_ bytes: ByteBuffer) {
        records.split(bytes, now: loop.clock.now) { piece in context?.write(wrapOutboundOut(piece), promise: nil) }
    }

    // MARK: The connection

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        exchange.clientWritabilityChanged(context.channel.isWritable)
        if context.channel.isWritable { readingMayGoOn() }
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case ChannelEvent.inputClosed: inputClosed(context)
        case is ChannelShouldQuiesceEvent:
            isQuiescing = true
            if isRelay { return exchange.drain() }
            keepsAlive = false
            // No request in hand: nothing that a reset could overtake.
            if phase == .idle { close() }
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    private func inputClosed(_ context: ChannelHandlerContext) {
        isInputClosed = true
        switch phase {
        case .exchanging where isRelay:
            exchange.receiveEnd(nil)
            exchange.flushUpstream()
        case .exchanging where exchange.exchange.isRequestComplete: break
        case .exchanging: close()
        case .lingering: drainAndClose()
        // Requests that wait for room are still answered.
        case .idle: if (pending?.readableBytes ?? 0) == 0 || isClientWritable { linger() }
        case .closed: break
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { close() }

    func channelInactive(context: ChannelHandlerContext) {
        phase = .closed
        ownDeadline = .distantFuture
        exchange.clientLost()
        pending = nil
        loop.clock.remove(self)
        context.fireChannelInactive()
    }

    func deadlineReached() {
        guard ownDeadline <= loop.clock.now else { return exchange.deadlineReached() }
        switch (timer, phase) {
        case (.header, .idle):
            refuseHead(.requestTimeout(.headerTimeout))
        case (.keepAlive, .idle) where DrainWatch.buffered(context?.channel) > 0: linger()
        case (.linger, .lingering) where !isOutputClosed && DrainWatch.buffered(context?.channel) > 0: setTimer(.linger)
        case (.header, _), (.keepAlive, _), (.requestEnd, _), (.linger, _): close()
        }
    }

    private var mayRead: Bool {
        switch phase {
        case .exchanging: exchange.mayRead
        // A client that takes no answers gets no more of them.
        case .idle: isClientWritable
        case .lingering, .closed: true
        }
    }

    private var isClientWritable: Bool { context?.channel.isWritable ?? true }

    func setTimer(_ timer: Timer) {
        self.timer = timer
        let limits = service.limits
        let amount =
            switch timer {
            case .header, .requestEnd: limits.header
            case .keepAlive: limits.keepAliveIdle
            case .linger: limits.linger
            }
        ownDeadline = loop.clock.deadline(after: amount)
    }
}
