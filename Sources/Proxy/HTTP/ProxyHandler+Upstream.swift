import NIOCore
import NIOHTTP1

/// The way to the upstream, and what comes back.
extension ProxyHandler {
    func connect(to route: Route) {
        connectNumber += 1
        let number = connectNumber
        setTimer(.connect)
        loop.pool.connect(route.target) { result in self.receiveConnection(result, number: number) }
    }

    private func receiveConnection(_ result: Result<UpstreamConnection, UpstreamFailure>, number: UInt64) {
        guard number == connectNumber, case .exchanging = phase else {
            // Too late for this request, but not for the next one.
            if case .success(let connection) = result { loop.pool.put(connection) }
            return
        }
        switch result {
        case .success(let connection):
            attach(connection)
            flushUpstream()
        case .failure(let failure):
            fail(failure.description, .failure(failure, limits: service.limits))
        }
    }

    /// Sends what there is of the request. Not flushed.
    func attach(_ connection: UpstreamConnection) {
        guard case .sendHead = exchange.connected(), let head = current?.head else { return loop.pool.put(connection) }
        upstream = connection
        connection.lease(to: self)
        connection.setReadPaused(!(context?.channel.isWritable ?? true))
        connection.send(.head(head))
        if let held = current?.heldBody, !held.isEmpty {
            current?.heldBody = []
            for bytes in held { connection.send(.body(.byteBuffer(bytes))) }
        }
        if let end = current?.heldEnd {
            current?.heldEnd = nil
            connection.send(.end(end))
        }
        needsUpstreamFlush = true
        setTimer(exchange.isRequestComplete ? .responseHead : .bodyIdle)
        updateGate()
    }

    func flushUpstream() {
        guard needsUpstreamFlush else { return }
        needsUpstreamFlush = false
        upstream?.flush()
    }

    func abandonUpstream() {
        upstream?.abandon()
        upstream = nil
    }

    // MARK: Called by the upstream's connection

    func receive(_ part: HTTPClientResponsePart) {
        switch part {
        case .head(let head):
            switch ResponseRules.check(head, isHEAD: current?.request.method == .HEAD) {
            case .failure(let fault): reject(fault)
            case .success(let response): receiveHead(response)
            }
        case .body(let bytes):
            switch exchange.receiveBody() {
            case .forward:
                writer.writeBody(bytes) { write($0) }
                setTimer(.bodyIdle)
            case .reject(let fault): reject(fault)
            }
        case .end(let trailers): receiveEnd(trailers)
        }
    }

    func upstreamReadComplete() { flushClient() }

    func upstreamWritabilityChanged() {
        if exchange.isUnanswered, !exchange.isRequestComplete { setTimer(.bodyIdle) }
        updateGate()
    }

    func upstreamLost(_ connection: UpstreamConnection, error: (any Error)?) {
        guard upstream === connection else { return }
        upstream = nil
        let text = error.map { "\($0)" } ?? "the upstream closed the connection"
        switch exchange.upstreamLost(wasReused: connection.isReused) {
        case .retry:
            if exchange.isRequestComplete { current?.heldEnd = .some(nil) }
            if let route = current?.route { connect(to: route) }
        case .answer: fail(text, .badGateway)
        case .abort: fail(text, nil)
        case .none: break
        }
    }

    private func receiveHead(_ response: CheckedResponse) {
        switch exchange.receiveHead(response, informationalLimit: service.limits.informationalResponses) {
        case .forward: forward(response)
        case .forwardInformational:
            writer.writeHead(status: response.status, fields: response.fields, length: nil, connection: nil, framing: .plain)
            flushClient()
        case .dropInformational: break
        case .switchProtocols:
            let fields = response.fields + [("Upgrade", "websocket")]
            writer.writeHead(status: response.status, fields: fields, length: nil, connection: "Upgrade", framing: .plain)
            current?.status = response.status.code
        case .reject(let fault): reject(fault)
        }
    }

    private func forward(_ response: CheckedResponse) {
        guard let request = current?.request else { return }
        current?.head = nil
        current?.status = response.status.code
        var length: Int?
        var framing = ResponseWriter.Framing.plain
        switch response.framing {
        case .none, .chunked, .length(0), .untilClose: upstream?.endsWithBlankLine = true
        case .length: upstream?.endsWithBlankLine = false
        }
        switch response.framing {
        case .none: length = response.statedLength
        case .length(let count): length = count
        case .chunked, .untilClose:
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
            if request.isHTTP10 { keepsAlive = false } else { framing = .chunked }
        }
        writer.writeHead(status: response.status, fields: response.fields, length: length, connection: connectionField, framing: framing)
        setTimer(.bodyIdle)
    }

    private func receiveEnd(_ trailers: HTTPHeaders?) {
        switch exchange.receiveEnd() {
        case .finish(let reuse):
            writer.writeEnd(trailers: RequestRules.trailers(trailers))
            flushClient()
            upstream?.finish(reuse: reuse)
            finishExchange()
        case .finishEarly:
            writer.writeEnd(trailers: RequestRules.trailers(trailers))
            keepsAlive = false
            abandonUpstream()
            linger()
        case .awaitRequestEnd:
            writer.writeEnd(trailers: RequestRules.trailers(trailers))
            flushClient()
            abandonUpstream()
        case .relay: relay()
        case .reject(let fault): reject(fault)
        }
    }

    private func reject(_ fault: ResponseFault) { fail(fault.rawValue, .badGateway) }

    // MARK: Answers of ours

    /// The upstream failed the request.
    /// - Parameter page: for the client; nil, or a response that has begun, cuts the client off: it must not take half for the whole.
    func fail(_ error: String, _ page: ErrorPage?) {
        if let route = current?.route { log.proxyError(route, error) }
        connectNumber += 1
        abandonUpstream()
        guard let page, exchange.isUnanswered else { return close() }
        answer(page)
    }

    func answer(_ page: ErrorPage) {
        let request = current?.request
        let isCutShort = exchange.facts.hasBody && !exchange.isRequestComplete
        if isCutShort { keepsAlive = false }
        if current?.route == nil, let request, request.endsParsing { keepsAlive = false }
        let accept = request?.fields.first { $0.0.utf8.count == 6 && $0.0.lowercased() == "accept" }?.1
        write(page, accept: accept, requestID: current?.requestID, isHEAD: request?.method == .HEAD)
        current?.status = page.status.code
        switch exchange.answer() {
        case .finish: finishExchange()
        case .awaitRequestEnd: setTimer(.header)
        case .linger: linger()
        }
    }

    /// To bytes that were no request.
    func answerWithoutRequest(_ page: ErrorPage) {
        keepsAlive = false
        write(page, accept: nil, requestID: nil, isHEAD: false)
        linger()
    }

    private func write(_ page: ErrorPage, accept: String?, requestID: String?, isHEAD: Bool) {
        let (fields, body) = page.render(accept: accept, requestID: requestID ?? service.nextRequestID())
        writer.writeHead(status: page.status, fields: fields, length: body.utf8.count, connection: connectionField, framing: .plain)
        if !isHEAD { writer.writeBody(ByteBuffer(string: body)) { write($0) } }
        flushClient()
    }

    private var connectionField: StaticString? {
        if !keepsAlive { return "close" }
        return exchange.facts.isHTTP10 ? "keep-alive" : nil
    }

    private func write(_ bytes: ByteBuffer) { context?.write(wrapOutboundOut(bytes), promise: nil) }

    func flushClient() {
        if let bytes = writer.take() { write(bytes) }
        context?.flush()
    }

    // MARK: Upgrade

    /// Both sides agreed to WebSocket: from here bytes pass unread.
    private func relay() {
        flushClient()
        guard let context, let upstream, let upstreamChannel = upstream.channel else { return close() }
        phase = .relaying
        self.upstream = nil
        if log.isDebug, let current, let route = current.route, let requestID = current.requestID {
            log.proxied(route, current.request, status: current.status, duration: .now() - current.started, requestID: requestID)
        }
        current = nil
        do {
            try UpgradeHandler.join(
                client: context.channel, proxy: self, upstream: upstreamChannel, connection: upstream, isClientInputClosed: isInputClosed)
        } catch {
            upstreamChannel.close(promise: nil)
            context.close(promise: nil)
        }
    }
}
