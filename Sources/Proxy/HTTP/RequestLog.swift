import NIOCore

/// What is kept of a request until it is over and can be told: to the counters, the access log, and lines of debugging. Texts are made
/// only if somebody wants them.
struct RequestLog {
    private let access: AccessLog
    private let file: AccessLogFile?
    private let counters: HTTPCounters
    private let isHTTP2: Bool
    private var route: Route?
    private var requestID = RequestID(number: 0)
    private var began = NIODeadline.uptimeNanoseconds(0)
    private var wallClock = (seconds: 0, nanoseconds: 0)
    private var connected: NIODeadline?
    private var headReceived: NIODeadline?
    private var status = 0
    private var client = ""
    /// Of the proxy in front, if that is trusted; an agent's gateway is.
    private var givenID: String?
    private var tlsVersion: String?
    private var error: String?
    var bytesIn = 0
    var bytesOut = 0

    init(service: ProxyService, loop: ProxyLoop, isHTTP2: Bool) {
        access = AccessLog(service.logger, budget: service.logBudget, eventLoop: loop.eventLoop)
        file = service.accessLog
        counters = loop.counters
        self.isHTTP2 = isHTTP2
    }

    /// What names the request in logs, error pages, and towards the upstream.
    var id: String { givenID ?? requestID.text }

    /// - Parameter request: `nil` if what came was none.
    mutating func begin(_ request: CheckedRequest?, from visitor: ClientIdentity.Visitor, tlsVersion: String?, requestID: RequestID) {
        self.requestID = requestID
        givenID = visitor.requestID
        (route, status, bytesIn, bytesOut) = (nil, 0, 0, 0)
        began = .now()
        if file != nil {
            (connected, headReceived, error) = (nil, nil, nil)
            wallClock = Timestamp.now()
            client = visitor.address
            self.tlsVersion = tlsVersion
        }
        if access.isDebug, let request { access.incoming(request, client: visitor.address, requestID: id) }
    }

    mutating func route(_ route: Route) { self.route = route }

    /// There is a way to the upstream.
    mutating func attached() { if file != nil { connected = .now() } }

    /// A response has begun.
    mutating func head(_ code: Int) {
        guard code >= 200 || code == 101 else { return }
        status = code
        if file != nil { headReceived = .now() }
    }

    /// An answer of our own.
    mutating func answered(_ page: ErrorPage) {
        status = page.status
        if let refusal = page.refusal { counters.refused(refusal) }
        if file != nil, error == nil, page.status >= 400 { error = page.text }
    }

    func notFound(host: String) { access.notFound(host: host) }
    func disabled(host: String) { access.disabled(host: host) }

    mutating func failed(_ error: String) {
        if let route { access.proxyError(route, error, requestID: id) }
        if file != nil { self.error = error }
    }

    /// Once for each `begin`.
    func end(_ request: CheckedRequest?) {
        let total = NIODeadline.now() - began
        counters.requestEnded(route: route, status: status, bytesIn: bytesIn, bytesOut: bytesOut, duration: total)
        if let file { file.write(record(request, total: total)) }
        if access.isDebug, let request, let route {
            access.proxied(route, request, status: status, duration: total, requestID: id)
        }
    }

    private func record(_ request: CheckedRequest?, total: TimeAmount) -> RequestRecord {
        let version =
            switch request?.version {
            case .http10: "http/1.0"
            case .http11: "http/1.1"
            case .http2: "h2"
            case nil: isHTTP2 ? "h2" : "http/1.1"
            }
        return RequestRecord(
            id: id, client: client, host: request?.hostForLogs ?? "", method: request?.methodText ?? "",
            path: request?.targetText ?? "", status: status, bytesIn: bytesIn, bytesOut: bytesOut, connect: connected.map { $0 - began },
            head: headReceived.map { $0 - began }, total: total, agent: route?.agentIP ?? "", route: route?.domain ?? "",
            protocolName: version, tlsVersion: tlsVersion, error: error, time: wallClock)
    }
}
