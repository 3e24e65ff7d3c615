import NIOCore

/// One request on its way: from a client's stream to an upstream's, and back. What happens in which order is ``ProxyExchange``'s
/// matter; here are the route, the bytes that are held, the time, and who waits for whom. Both ends may be of either protocol.
///
/// Everything happens on the loop of the client's connection, the upstream's included. A connection of HTTP/1.1 uses one such object for all
/// of its requests.
final class ProxyRequest {
    enum Timer {
        case none, connect, responseHead, bodyIdle, relayIdle, drain
    }

    let service: ProxyService
    let loop: ProxyLoop
    var exchange = ProxyExchange(.init(isHTTP10: false, wantsUpgrade: false, hasBody: false, isIdempotent: false))
    var request: CheckedRequest?
    var route: Route?
    var requestID = RequestID(number: 0)
    var log: RequestLog
    var client: (any ClientStream)?
    var upstream: (any UpstreamStream)?
    var work: ClientWork?
    /// Kept until the response begins, for another try.
    var outgoing: OutgoingRequest?
    var heldBody: [ByteBuffer] = []
    var heldEnd: FieldSection??
    var needsUpstreamFlush = false
    /// A connect that is answered with an older number has come too late.
    var connectNumber: UInt64 = 0
    private(set) var timer = Timer.none
    private(set) var deadline = NIODeadline.distantFuture
    var pace = BodyPace()
    var relay: WebSocketRelay?

    init(service: ProxyService, loop: ProxyLoop, isHTTP2: Bool) {
        self.service = service
        self.loop = loop
        log = RequestLog(service: service, loop: loop, isHTTP2: isHTTP2)
    }

    var isActive: Bool { client != nil }

    /// Whether chunks of the request should come with their framing. Known once the request has begun.
    var wantsRawChunks: Bool {
        if let upstream { return upstream.takesRawChunks }
        return route?.target.upstreamProtocol == .http1
    }

    /// Whether more of the client's bytes are wanted.
    var mayRead: Bool {
        if exchange.isRequestComplete { return false }
        if case .answered = exchange.state { return true }
        if let upstream { return upstream.isWritable && heldBody.isEmpty }
        return !exchange.facts.hasBody
    }

    // MARK: Called by the client's stream

    /// Begins. What cannot be passed on is answered before this returns.
    func start(
        _ request: CheckedRequest, from client: any ClientStream, identity: inout ClientIdentity, visitor: ClientIdentity.Visitor,
        host: HostResolution, work: ClientWork?
    ) {
        self.client = client
        self.request = request
        self.work = work
        requestID = service.nextRequestID()
        pace = BodyPace()
        log.begin(request, from: visitor, tlsVersion: identity.tlsVersion, requestID: requestID)
        let resolution: RouteResolution
        switch host {
        case .invalid:
            begin(request, upgrade: nil)
            return answer(.refusal(.bad("bad Host")))
        case .misdirected:
            begin(request, upgrade: nil)
            return answer(.misdirected)
        case .resolved(let name, let found):
            if let challenges = service.challenges, let token = request.challengeToken,
                answer(token, host: name, request, found, challenges)
            {
                return
            }
            resolution = found
        }
        switch resolution {
        case .unknown:
            begin(request, upgrade: nil)
            log.notFound(host: host.name)
            answer(.tunnelNotFound)
        case .disabled:
            begin(request, upgrade: nil)
            log.disabled(host: host.name)
            answer(.tunnelDisabled)
        case .redirect(let origin):
            begin(request, upgrade: nil)
            answer(.redirect(request, origin: origin))
        case .route(let route): pass(request, to: route, host: host.name, identity: &identity, visitor: visitor)
        }
    }

    /// A CA asks for the key authorization of a challenge.
    /// - Returns: whether it gets its answer here, now or later.
    private func answer(
        _ token: String, host: String, _ request: CheckedRequest, _ resolution: RouteResolution, _ challenges: any ChallengeResponder
    ) -> Bool {
        let isRelayed = request.isRelayedChallenge
        switch challenges.answer(token: token, host: host, isRelayed: isRelayed, on: loop.eventLoop) {
        case .unknown where isRelayed:
            begin(request, upgrade: nil)
            answer(.tunnelNotFound)
        case .unknown: return false
        case .keyAuthorization(let text):
            begin(request, upgrade: nil)
            answer(.keyAuthorization(text))
        case .wait(let future):
            begin(request, upgrade: nil)
            connectNumber += 1
            let number = connectNumber
            future.assumeIsolated().whenComplete { [self] result in
                guard number == connectNumber, case .connecting = exchange.state, isActive else { return }
                if case .success(.some(let text)) = result { return answer(.keyAuthorization(text)) }
                if !isRelayed, case .redirect(let origin) = resolution { return answer(.redirect(request, origin: origin)) }
                answer(.tunnelNotFound)
            }
        }
        return true
    }

    /// A request that is none, or is not served: answered at once.
    /// - Parameter request: as far as it is known.
    func refuse(_ page: ErrorPage, request: CheckedRequest?, from client: any ClientStream, hasBody: Bool, identity: ClientIdentity) {
        self.client = client
        self.request = request
        requestID = service.nextRequestID()
        log.begin(request, from: identity.visitor(of: request), tlsVersion: identity.tlsVersion, requestID: requestID)
        exchange = ProxyExchange(.init(isHTTP10: false, wantsUpgrade: false, hasBody: hasBody, isIdempotent: false))
        answer(page)
    }

    func receiveBody(_ bytes: ByteBuffer) {
        log.bytesIn += bytes.readableBytes
        switch exchange.receiveRequestBody() {
        case .hold: heldBody.append(bytes)
        case .forward:
            if relay?.receiveFromClient(bytes) == false { return }
            upstream?.sendBody(bytes)
            needsUpstreamFlush = true
            if exchange.isUnanswered {
                guard pace.receive(bytes.readableBytes, now: loop.clock.now, limits: service.limits) else {
                    return fail("the request comes too slowly", .requestTimeout(.bodyTooSlow))
                }
                setTimer(.bodyIdle)
            } else {
                setTimer(exchange.isRelaying ? .relayIdle : .bodyIdle)
            }
        case .discard, .finish: break
        }
    }

    func receiveEnd(_ trailers: FieldSection?) {
        if exchange.facts.wantsUpgrade, exchange.isUnanswered, request?.version == .http2 {
            heldEnd = .some(nil)
            return
        }
        let trailers = RequestRules.trailers(trailers)
        switch exchange.receiveRequestEnd() {
        case .hold: heldEnd = .some(trailers)
        case .forward:
            upstream?.sendEnd(trailers)
            needsUpstreamFlush = true
            if exchange.isUnanswered { setTimer(.responseHead) }
        case .finish:
            // Of a relay: both have said all.
            releaseUpstream(reuse: false)
            finish(.complete)
        case .discard: break
        }
    }

    /// Bytes that were received together are through.
    func flushUpstream() {
        guard needsUpstreamFlush else { return }
        needsUpstreamFlush = false
        upstream?.flush()
    }

    func clientWritabilityChanged(_ isWritable: Bool) {
        upstream?.setReadPaused(!isWritable)
        if timer == .bodyIdle { setTimer(.bodyIdle) }
    }

    /// The client is gone, or its stream was reset.
    func clientLost() {
        guard isActive else { return }
        if exchange.isRelaying {
            // What it said last still gets there.
            upstream?.flush()
            releaseUpstream(reuse: false)
        } else {
            abandonUpstream()
        }
        end()
    }

    /// What the client sent last was no HTTP.
    func clientFault(_ page: ErrorPage) {
        if exchange.isUnanswered { fail("the request is malformed", page) } else { fail("the request is malformed", nil) }
    }

    /// The process or the route is about to end: a relay of WebSocket frames says so, another one ends.
    func drain() {
        guard exchange.isRelaying, let client else { return }
        guard let relay else {
            abandonUpstream()
            return finish(.cutOff)
        }
        relay.drain(toClient: { client.sendBody($0) }, toUpstream: { self.upstream?.sendBody($0) })
        client.flush()
        upstream?.flush()
        setTimer(.drain)
    }

    func deadlineReached() {
        switch timer {
        case .none: break
        case .connect:
            loop.counters.upstreamFailed(.unreachable)
            fail(
                "no connection within \(service.limits.connect.nanoseconds / 1_000_000) ms",
                .unavailable(retryAfter: service.limits.retryAfter))
        case .responseHead:
            loop.counters.upstreamFailed(.noResponse)
            fail("no response in time", .gatewayTimeout)
        case .bodyIdle: bodyStalled()
        case .relayIdle: fail("nothing moved", nil)
        case .drain: fail("the proxy ends", nil)
        }
    }

    /// Whoever was to move is to blame.
    private func bodyStalled() {
        if client?.isWritable == false {
            loop.counters.refused(.bodyIdle)
            fail("the client takes no more of the response", nil)
        } else if upstream?.isWritable == false {
            loop.counters.upstreamFailed(.noResponse)
            fail("the service takes no more of the request", .gatewayTimeout)
        } else if exchange.isRequestComplete {
            loop.counters.upstreamFailed(.noResponse)
            fail("response stalled", .gatewayTimeout)
        } else {
            fail("request stalled", .requestTimeout(.bodyIdle))
        }
    }

    // MARK: The end

    /// The upstream failed the request, or the client did.
    /// - Parameter page: for the client; nil, or a response that has begun, cuts the client off: it must not take half for the whole.
    func fail(_ error: String, _ page: ErrorPage?) {
        log.failed(error)
        abandonUpstream()
        guard let page, exchange.isUnanswered else { return finish(exchange.isRelaying ? .relayLost : .cutOff) }
        answer(page)
    }

    func answer(_ page: ErrorPage) {
        guard let client else { return }
        let accept = request?.accept
        log.answered(page)
        heldBody = []
        heldEnd = nil
        let end = exchange.answer()
        log.bytesOut += client.send(page, accept: accept, requestID: log.id, isHEAD: isHEAD)
        client.sendEnd(nil)
        switch end {
        case .finish: finish(.complete)
        case .finishEarly: finish(.early)
        case .awaitRequestEnd:
            timer = .none
            deadline = .distantFuture
            client.exchangeEnded(.awaitsRequestEnd)
        }
    }

    func finish(_ end: ExchangeEnd) {
        guard let client else { return }
        self.end()
        client.exchangeEnded(end)
    }

    /// Once for each exchange.
    private func end() {
        log.end(request)
        if !loop.upgraded.isEmpty { loop.upgraded[ObjectIdentifier(self)] = nil }
        if relay != nil { loop.counters.connectionClosed(.websocket) }
        client = nil
        upstream = nil
        work = nil
        request = nil
        route = nil
        outgoing = nil
        relay = nil
        heldBody = []
        heldEnd = nil
        needsUpstreamFlush = false
        connectNumber += 1
        timer = .none
        deadline = .distantFuture
    }

    func setTimer(_ timer: Timer) {
        self.timer = timer
        let limits = service.limits
        let amount: TimeAmount? =
            switch timer {
            case .none: nil
            case .connect: limits.connect
            case .responseHead: (route?.options.responseTimeout ?? .inherit).amount(inherited: limits.responseHead)
            case .bodyIdle: limits.bodyIdle
            case .relayIdle: route?.options.upgradedIdle ?? limits.upgradedIdle
            case .drain: limits.linger
            }
        deadline = amount.map { loop.clock.deadline(after: $0) } ?? .distantFuture
    }
}
