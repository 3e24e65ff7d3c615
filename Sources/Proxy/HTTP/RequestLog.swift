import NIOCore

/// What is kept of a request until it can be told: for lines of debugging, and for the counters. Nothing is made that nobody wants.
struct RequestLog {
    private let access: AccessLog
    private let loop: ProxyLoop
    private var route: Route?
    private var requestID = RequestID(number: 0)
    private var started = NIODeadline.uptimeNanoseconds(0)
    private var status = 0
    var bytesIn = 0
    var bytesOut = 0

    init(service: ProxyService, loop: ProxyLoop) {
        self.loop = loop
        access = AccessLog(service.logger, budget: service.logBudget, eventLoop: loop.eventLoop)
    }

    mutating func begin(_ request: CheckedRequest, identity: ClientIdentity, requestID: RequestID) {
        self.requestID = requestID
        (route, status, bytesIn, bytesOut) = (nil, 0, 0, 0)
        guard access.isDebug else { return }
        started = .now()
        access.incoming(request, client: identity, requestID: requestID)
    }

    mutating func route(_ route: Route) { self.route = route }

    /// A response has begun.
    mutating func head(_ code: Int) { if code >= 200 || code == 101 { status = code } }

    mutating func answered(_ code: Int) { status = code }

    func refused(_ refusal: HTTPCounters.Refusal) { loop.counters.refused(refusal) }

    func notFound(host: String) { access.notFound(host: host) }
    func disabled(host: String) { access.disabled(host: host) }
    func proxyError(_ route: Route, _ error: String) { access.proxyError(route, error) }

    mutating func end(_ request: CheckedRequest?) {
        guard access.isDebug, let request, let route else { return }
        access.proxied(route, request, status: status, duration: .now() - started, requestID: requestID)
    }
}
