import NIOCore
import NIOWireGuard

/// The end of the pipeline of a connection to an upstream that speaks HTTP/1.1. Serves one request at a time, then waits in the pool.
///
///     idle ◄──────────── finishing(reuse) ◄──response's end── leased ──101──► relaying
///       └──lease──────────────────────────────────────────────► ▲
///
/// `finishing` lasts until the end of the read that brought the response's end: bytes behind the response are nobody's answer, and
/// the connection that sent them is not used again.
final class HTTP1Upstream: ChannelDuplexHandler, RemovableChannelHandler, UpstreamStream {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum Phase {
        case idle
        case leased(ProxyRequest)
        case relaying(ProxyRequest)
        case finishing(reuse: Bool)
        case closed
    }

    private enum Message {
        case head(HeadScanner)
        case body(BodyDecoder)
    }

    let target: UpstreamTarget
    private let pool: UpstreamPool
    private let limits: ProxyLimits
    private var phase = Phase.idle
    private var message = Message.head(HeadScanner(startLine: true))
    private var context: ChannelHandlerContext?
    /// Received, not yet understood.
    private var pending: ByteBuffer?
    private var isProcessing = false
    private var framing = CheckedRequest.Framing.none
    private var sendsRawChunks = false
    private var isOutputClosed = false
    private var isInputClosed = false
    private var lastError: (any Error)?
    private var isReadPaused = false
    private var isReadHeld = false
    private(set) var isReused = false
    var idleSince = NIODeadline.uptimeNanoseconds(0)

    init(target: UpstreamTarget, pool: UpstreamPool, limits: ProxyLimits) {
        self.target = target
        self.pool = pool
        self.limits = limits
    }

    static func configure(_ channel: any Channel, target: UpstreamTarget, pool: UpstreamPool, limits: ProxyLimits) throws -> HTTP1Upstream {
        let connection = HTTP1Upstream(target: target, pool: pool, limits: limits)
        try channel.pipeline.syncOperations.addHandler(connection)
        return connection
    }

    var isActive: Bool {
        guard case .closed = phase else { return context?.channel.isActive ?? false }
        return false
    }
    var isWritable: Bool { context?.channel.isWritable ?? false }
    var takesRawChunks: Bool { true }

    // MARK: The request

    func lease(to request: ProxyRequest) {
        phase = .leased(request)
        message = .head(HeadScanner(startLine: true))
        sendsRawChunks = request.clientTakesRawChunks
    }

    func send(_ outgoing: OutgoingRequest) {
        framing = outgoing.upgrade == nil ? outgoing.request.framing : .none
        var bytes = context?.channel.allocator.buffer(capacity: 1024) ?? ByteBuffer()
        RequestWriter.write(outgoing, into: &bytes)
        context?.write(wrapOutboundOut(bytes), promise: nil)
    }

    func sendBody(_ bytes: ByteBuffer) {
        guard let context else { return }
        if case .leased = phase, framing == .chunked, !sendsRawChunks {
            var head = context.channel.allocator.buffer(capacity: 24)
            ChunkFraming.writeSize(bytes.readableBytes, into: &head)
            context.write(wrapOutboundOut(head), promise: nil)
            context.write(wrapOutboundOut(bytes), promise: nil)
            context.write(wrapOutboundOut(ChunkFraming.end), promise: nil)
        } else {
            context.write(wrapOutboundOut(bytes), promise: nil)
        }
    }

    func sendEnd(_ trailers: FieldSection?) {
        guard let context else { return }
        switch phase {
        case .leased:
            guard framing == .chunked else { return }
            var bytes = context.channel.allocator.buffer(capacity: 64)
            ChunkFraming.writeEnd(trailers, into: &bytes)
            context.write(wrapOutboundOut(bytes), promise: nil)
        case .relaying:
            guard !isOutputClosed else { return }
            isOutputClosed = true
            context.flush()
            guard isInputClosed else { return context.close(mode: .output, promise: nil) }
            // NIO would close the whole channel, without what waits in it.
            let channel = context.channel
            DrainWatch.start(channel, clock: pool.clock, stall: limits.bodyIdle) { channel.close(mode: .output, promise: nil) }
        case .idle, .finishing, .closed: break
        }
    }

    func flush() { context?.flush() }

    func setReadPaused(_ paused: Bool) {
        isReadPaused = paused
        guard !paused, isReadHeld else { return }
        isReadHeld = false
        context?.read()
    }

    func finish(reuse: Bool) {
        switch phase {
        case .leased:
            phase = .finishing(reuse: reuse && (pending?.readableBytes ?? 0) == 0)
            if !isProcessing { settle() }
        // Never used: it came too late for the one who asked.
        case .idle: pool.put(self)
        case .relaying: closeBehindOutput()
        case .finishing, .closed: break
        }
    }

    func abandon(_ work: ClientWork?) {
        phase = .closed
        guard let context else { return }
        if let work { context.channel.closeFuture.whenComplete { _ in withExtendedLifetime(work) {} } }
        // A mere end of our bytes would leave the service at work: it could still answer.
        context.triggerUserOutboundEvent(WireGuardChannel.AbortEvent(), promise: nil)
        context.close(promise: nil)
    }

    /// The pool has too many, or had it too long.
    func closeIdle() {
        phase = .closed
        context?.close(promise: nil)
    }

    // MARK: The response

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        switch phase {
        case .relaying(let request): request.receiveResponseBody(bytes)
        case .leased:
            if pending == nil || pending?.readableBytes == 0 { pending = bytes } else { pending?.writeBuffer(&bytes) }
            isProcessing = true
            process()
            isProcessing = false
            if pending?.readableBytes == 0 { pending = nil }
        case .idle:
            // Nobody asked.
            pool.remove(self)
            closeIdle()
        case .finishing: phase = .finishing(reuse: false)
        case .closed: break
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        switch phase {
        case .leased(let request), .relaying(let request): request.upstreamReadComplete()
        case .finishing: settle()
        case .idle, .closed: break
        }
        context.fireChannelReadComplete()
    }

    private func settle() {
        guard case .finishing(let reuse) = phase else { return }
        if reuse, let context, context.channel.isActive {
            phase = .idle
            pending = nil
            setReadPaused(false)
            isReused = true
            pool.put(self)
        } else {
            closeIdle()
        }
    }

    private func process() {
        do {
            while case .leased(let request) = phase, pending != nil {
                guard try processMessage(request) else { return }
            }
            if case .relaying(let request) = phase, let rest = pending, rest.readableBytes > 0 {
                pending = nil
                request.receiveResponseBody(rest)
            }
            if case .finishing(reuse: true) = phase, let rest = pending, rest.readableBytes > 0 { phase = .finishing(reuse: false) }
        } catch {
            if case .leased(let request) = phase { request.reject(.malformed(error)) }
        }
    }

    /// - Returns: whether there was enough for a step.
    private func processMessage(_ request: ProxyRequest) throws(HeadFault) -> Bool {
        switch message {
        case .head(var scanner):
            // At most what was checked in `process`.
            guard let bytes = pending else { return false }
            guard case .complete(let count) = try scanner.scan(bytes, limits: limits.head) else {
                message = .head(scanner)
                return false
            }
            guard scanner.skipped == 0, let head = pending?.readSlice(length: count) else { throw .statusLine }
            try receiveHead(head, request)
        case .body(var decoder):
            guard var bytes = pending else { return false }
            pending = nil
            let step = try decoder.decode(&bytes)
            pending = bytes
            message = .body(decoder)
            switch step {
            case .needMore: return false
            case .bytes(let piece): request.receiveResponseBody(piece)
            case .end(let trailers): request.receiveResponseEnd(trailers)
            }
        }
        return true
    }

    private func receiveHead(_ head: ByteBuffer, _ request: ProxyRequest) throws(HeadFault) {
        let (line, section) = try HeadParser.response(head, limits: limits.fields)
        switch ResponseRules.check(
            code: line.code, reason: line.reason, isHTTP10: line.minorVersion == 0, section, isHEAD: request.isHEAD,
            rawChunks: sendsRawChunks)
        {
        case .failure(let fault): request.reject(fault)
        case .success(let response):
            if response.code == 101 {
                // Becomes a relay, or is rejected before this returns.
                phase = .relaying(request)
            } else {
                message = response.code < 200 ? .head(HeadScanner(startLine: true)) : .body(decoder(response.framing))
            }
            request.receive(response)
            if case .relaying = phase { beginRelay() }
        }
    }

    /// From here on each direction ends by itself, and silence means nothing.
    private func beginRelay() {
        guard let context else { return }
        try? context.channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
        context.triggerUserOutboundEvent(RelayBegins(), promise: nil)
    }

    private func decoder(_ framing: CheckedResponse.Framing) -> BodyDecoder {
        let body: BodyDecoder.Framing =
            switch framing {
            case .none: .none
            case .length(let count): .length(count)
            case .chunked: .chunked
            case .untilClose: .untilClose
            }
        return BodyDecoder(body, raw: sendsRawChunks, limits: limits.body)
    }

    // MARK: The connection

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        switch phase {
        case .leased(let request), .relaying(let request): request.upstreamWritabilityChanged()
        case .idle, .finishing, .closed: break
        }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        lastError = error
        lose(context)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event as? ChannelEvent == .inputClosed { inputClosed(context) }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        inputClosed(context)
        lose(context)
        context.fireChannelInactive()
    }

    func read(context: ChannelHandlerContext) {
        if isReadPaused { isReadHeld = true } else { context.read() }
    }

    /// The end of the upstream's bytes: of the response too, if that has no other.
    private func inputClosed(_ context: ChannelHandlerContext) {
        switch phase {
        case .leased(let request):
            guard case .body(let decoder) = message, decoder.endsWithConnection else { return lose(context) }
            phase = .finishing(reuse: false)
            request.receiveResponseEnd(nil)
            request.upstreamReadComplete()
            closeIdle()
        case .relaying(let request):
            guard !isInputClosed else { return }
            isInputClosed = true
            request.receiveResponseEnd(nil)
        case .idle, .finishing, .closed: lose(context)
        }
    }

    private func lose(_ context: ChannelHandlerContext) {
        switch phase {
        case .leased(let request), .relaying(let request):
            phase = .closed
            request.upstreamLost(self, lastError.map { UpstreamFailure($0) } ?? .broken("the upstream closed the connection"))
        case .idle:
            pool.remove(self)
            phase = .closed
        case .finishing, .closed: phase = .closed
        }
        context.close(promise: nil)
    }

    /// A relay is over: what was written last still has to get there.
    private func closeBehindOutput() {
        phase = .closed
        guard let channel = context?.channel else { return }
        DrainWatch.start(channel, clock: pool.clock, stall: limits.bodyIdle) { channel.close(promise: nil) }
    }
}

/// Goes out through an upstream's pipeline when it stops to be HTTP: handlers that wait for responses leave.
struct RelayBegins: Sendable {}
