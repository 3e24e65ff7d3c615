import NIOCore

/// The way to the upstream, and what comes back.
extension ProxyRequest {
    // MARK: The way to the upstream

    func begin(_ request: CheckedRequest, upgrade: String?) {
        exchange = ProxyExchange(
            .init(
                isHTTP10: request.isHTTP10, wantsUpgrade: upgrade != nil,
                // The stream of an extended CONNECT stays open.
                hasBody: request.hasBody || (request.version == .http2 && request.isWebSocket), isIdempotent: request.isIdempotent))
    }

    func pass(
        _ request: CheckedRequest, to route: Route, host: String, identity: inout ClientIdentity, visitor: ClientIdentity.Visitor
    ) {
        self.route = route
        log.route(route)
        let token = request.upgradeToken(allowed: route.options.upgrades)
        begin(request, upgrade: token)
        if request.version == .http2, request.isWebSocket, token == nil {
            return answer(.refusal(RequestRefusal(status: 501, reason: "websocket is not served here")))
        }
        var outgoing: OutgoingRequest
        switch service.mode {
        case .gateway:
            var added = ByteBuffer()
            added.reserveCapacity(256)
            identity.write(visitor, host: host, request: request, requestID: requestID, into: &added)
            outgoing = OutgoingRequest(request: request, host: route.hostHeader ?? host, added: added)
        case .agent:
            outgoing = OutgoingRequest(request: request, host: route.hostHeader ?? request.authorityText, added: ByteBuffer())
        }
        outgoing.upgrade = token
        if token != nil, request.version == .http2 { outgoing.webSocketKey = WebSocketHandshake.makeKey() }
        self.outgoing = outgoing
        if let upstream = loop.pool.take(target) { attach(upstream) } else { connect() }
    }

    /// To change protocols takes a connection of its own.
    private var target: UpstreamTarget {
        // A route was found before anything is asked of the pool.
        var target = route?.target ?? UpstreamTarget(address: .anyV4, port: 0)
        if exchange.facts.wantsUpgrade { target.upstreamProtocol = .http1 }
        return target
    }

    func connect() {
        connectNumber += 1
        let number = connectNumber
        setTimer(.connect)
        // What is being done for the client goes on if the client goes.
        let work = work
        loop.pool.connect(target) { [self] result in
            guard number == connectNumber, case .connecting = exchange.state, isActive else {
                // Too late for this request, but not for the next one.
                if case .success(let stream) = result { stream.finish(reuse: true) }
                withExtendedLifetime(work) {}
                return
            }
            switch result {
            case .success(let stream):
                attach(stream)
                flushUpstream()
            case .failure(let failure):
                loop.counters.upstreamFailed(.init(failure))
                fail(failure.description, .failure(failure, limits: service.limits))
            }
        }
    }

    /// Sends what there is of the request. Not flushed.
    func attach(_ stream: any UpstreamStream) {
        guard case .sendHead = exchange.connected(), let outgoing, let client else { return stream.finish(reuse: true) }
        upstream = stream
        log.attached()
        stream.lease(to: self)
        stream.setReadPaused(!client.isWritable)
        stream.send(outgoing)
        if exchange.facts.wantsUpgrade, request?.version == .http2 {
            // Nothing of what comes behind belongs to the request.
            stream.sendEnd(nil)
        } else {
            let held = heldBody
            heldBody = []
            for bytes in held { stream.sendBody(bytes) }
            if let end = heldEnd {
                heldEnd = nil
                stream.sendEnd(end)
            }
        }
        needsUpstreamFlush = true
        setTimer(exchange.isRequestComplete || exchange.facts.wantsUpgrade ? .responseHead : .bodyIdle)
        client.readingMayGoOn()
    }

    func abandonUpstream() {
        connectNumber += 1
        upstream?.abandon(work)
        upstream = nil
    }

    // MARK: Called by the upstream's stream

    var isHEAD: Bool { request?.method == .head }
    var clientTakesRawChunks: Bool { client?.takesRawChunks ?? false }

    func receive(_ response: CheckedResponse) {
        guard let client else { return }
        guard client.carries(response) else {
            if response.code >= 200 { reject(.malformed(.sectionTooLong)) }
            return
        }
        log.head(response.code)
        if let fault = webSocketFault(response) { return reject(fault) }
        let isUpgrade = response.upgrade.map { response.section.text($0).lowercased() == outgoing?.upgrade } ?? false
        switch exchange.receiveHead(
            code: response.code, isReusable: response.keepAlive, isUpgrade: isUpgrade,
            informationalLimit: service.limits.informationalResponses)
        {
        case .forward:
            outgoing = nil
            client.send(response)
            setTimer(.bodyIdle)
        case .forwardInformational:
            client.sendInformational(response)
            client.flush()
        case .dropInformational: break
        case .relay: beginRelay(response, client)
        case .reject(let fault): reject(fault)
        }
    }

    /// What a client of RFC 8441, who sees neither key nor 101, must not take for an open WebSocket: any 2xx would be one to it.
    private func webSocketFault(_ response: CheckedResponse) -> ResponseFault? {
        guard let key = outgoing?.webSocketKey else { return nil }
        switch response.code {
        case 101:
            let accept = response.section.value(of: "sec-websocket-accept").map { response.section.text($0) }
            return accept == WebSocketHandshake.accept(key) ? nil : .wrongWebSocketAccept
        case 200..<300: return .webSocketNotOpened
        default: return nil
        }
    }

    private func beginRelay(_ response: CheckedResponse, _ client: any ClientStream) {
        let token = outgoing?.upgrade ?? ""
        outgoing = nil
        // A relay may live for days: what it keeps of its request is not to keep the whole buffer that the request came in.
        request?.section.compact()
        if token == "websocket" {
            relay = WebSocketRelay()
            loop.counters.connectionOpened(.websocket)
        }
        loop.upgraded[ObjectIdentifier(self)] = self
        client.sendUpgrade(response, token: token)
        client.flush()
        setTimer(.relayIdle)
        let held = heldBody
        heldBody = []
        for bytes in held { receiveBody(bytes) }
        if heldEnd != nil {
            heldEnd = nil
            receiveEnd(nil)
        }
        client.readingMayGoOn()
        flushUpstream()
    }

    func receiveResponseBody(_ bytes: ByteBuffer) {
        switch exchange.receiveBody() {
        case .forward:
            log.bytesOut += bytes.readableBytes
            if relay?.receiveFromUpstream(bytes) == false { return }
            client?.sendBody(bytes)
            setTimer(exchange.isRelaying ? .relayIdle : .bodyIdle)
        case .reject(let fault): reject(fault)
        }
    }

    func receiveResponseEnd(_ trailers: FieldSection?) {
        guard let client else { return }
        let trailers = RequestRules.trailers(trailers)
        switch exchange.receiveEnd() {
        // The client's stream may close with its last frame, which must not count as a loss.
        case .finish(let reuse):
            releaseUpstream(reuse: reuse)
            client.sendEnd(trailers)
            finish(.complete)
        case .finishEarly:
            abandonUpstream()
            client.sendEnd(trailers)
            finish(.early)
        case .awaitRequestEnd:
            client.sendEnd(trailers)
            abandonUpstream()
            client.exchangeEnded(.awaitsRequestEnd)
        case .closeOutput:
            client.sendEnd(nil)
            client.flush()
        case .reject(let fault): reject(fault)
        }
    }

    func upstreamReadComplete() { client?.flush() }

    func upstreamWritabilityChanged() {
        if exchange.isUnanswered, !exchange.isRequestComplete {
            pace.pause(!(upstream?.isWritable ?? true), now: loop.clock.now)
            setTimer(.bodyIdle)
        } else if timer == .responseHead {
            // The service still takes what it is to answer.
            setTimer(.responseHead)
        }
        client?.readingMayGoOn()
    }

    func upstreamLost(_ stream: any UpstreamStream, _ failure: UpstreamFailure, wasUnprocessed: Bool = false) {
        guard upstream === stream else { return }
        upstream = nil
        switch exchange.upstreamLost(wasReused: stream.isReused, wasUnprocessed: wasUnprocessed) {
        case .retry:
            loop.counters.requestRetried()
            if exchange.isRequestComplete { heldEnd = .some(nil) }
            let target = target
            // One that has waited in the pool may be as dead as the one before.
            guard target.upstreamProtocol == .h2c, let upstream = loop.pool.take(target) else { return connect() }
            attach(upstream)
            flushUpstream()
        case .answer:
            loop.counters.upstreamFailed(.init(failure))
            fail(failure.description, .failure(failure, limits: service.limits))
        case .abort:
            loop.counters.upstreamFailed(.init(failure))
            fail(failure.description, nil)
        case .none: break
        }
    }

    func reject(_ fault: ResponseFault) {
        loop.counters.upstreamFailed(.broken)
        fail(fault.reason, .badGateway)
    }

    func releaseUpstream(reuse: Bool) {
        upstream?.finish(reuse: reuse)
        upstream = nil
    }
}
