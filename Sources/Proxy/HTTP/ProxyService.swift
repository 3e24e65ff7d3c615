import Inet
import Logging
import NIOCore
import NIOSSL
import Synchronization

/// Where a proxy stands, which decides what it may believe.
package enum ProxyMode: Sendable, Equatable {
    /// At the public edge: says who the client is, sends the bare domain as Host.
    case gateway
    /// Behind a gateway of ours: passes Host and what the gateway said.
    case agent
}

/// Whether the certificate that a TLS connection was shown covers a host. Asked with normalised names.
package protocol HostCoverage: Sendable {
    func covers(_ host: String) -> Bool
}

/// What all connections of one proxy share: router, limits, and for each event loop a clock, a pool and counters.
package final class ProxyService: Sendable {
    package let mode: ProxyMode
    package let limits: ProxyLimits
    package let logger: Logger
    /// A record for each request goes there, when it is over.
    let accessLog: AccessLogFile?
    let router: any RequestRouter
    /// Answers validations of a CA before any route is looked at.
    let challenges: (any ChallengeResponder)?
    let logBudget = LogBudget()
    private let connector: UpstreamConnector
    private let loops = Mutex<[ObjectIdentifier: NIOLoopBound<ProxyLoop>]>([:])
    private let requestIDs: Atomic<UInt64>
    private let work: ClientWorkLimiter
    private let trusted: Mutex<TrustedProxies>

    /// - Parameter firstRequestID: request ids count from here; drawn at random by programs, so that two runs do not share ids.
    package init(
        mode: ProxyMode, router: any RequestRouter, connector: @escaping UpstreamConnector, limits: ProxyLimits = ProxyLimits(),
        trustedProxies: TrustedProxies = TrustedProxies(), firstRequestID: UInt64 = 1, accessLog: AccessLogFile? = nil,
        challenges: (any ChallengeResponder)? = nil, logger: Logger
    ) {
        self.mode = mode
        self.router = router
        self.connector = connector
        self.limits = limits
        self.logger = logger
        self.accessLog = accessLog
        self.challenges = challenges
        requestIDs = Atomic(firstRequestID)
        work = ClientWorkLimiter(maximum: limits.requestsInFlightPerClient)
        trusted = Mutex(trustedProxies)
    }

    package var trustedProxies: TrustedProxies { trusted.withLock { $0 } }

    /// For requests from now on.
    package func update(trustedProxies: TrustedProxies) { trusted.withLock { $0 = trustedProxies } }

    /// What a client's connection speaks.
    package enum ClientProtocol: Sendable {
        case http1, http2
        /// Whichever it begins with: for peers of ours, inside the tunnel.
        case either
    }

    /// Puts the HTTP server handlers at the end of an accepted channel's pipeline. On the channel's loop.
    ///
    /// The channel should allow remote half closure. Automatic reading may stay on: the handlers hold reads back.
    /// - Parameters:
    ///   - scheme: that the client used.
    ///   - coverage: of the certificate shown, nil without TLS.
    package func configure(
        _ channel: any Channel, scheme: ClientIdentity.Scheme, speaks: ClientProtocol = .http1, coverage: (any HostCoverage)? = nil
    ) throws {
        let operations = channel.pipeline.syncOperations
        let loop = loop(channel.eventLoop)
        var identity = ClientIdentity(channel.remoteAddress, scheme: scheme, trusted: trustedProxies, isGateway: mode == .agent)
        if accessLog != nil, scheme == .https { identity.tlsVersion = (try? operations.nioSSL_tlsVersion())?.number }
        switch speaks {
        case .http1:
            try operations.addHandler(
                HTTP1Connection(service: self, loop: loop, identity: identity, coverage: coverage, allocator: channel.allocator))
        case .http2: try HTTP2Connection.configure(channel, service: self, loop: loop, identity: identity, coverage: coverage)
        case .either: try operations.addHandler(PrefaceDetector(service: self, scheme: scheme, clock: loop.clock))
        }
    }

    /// Counts a request of a client that may have many at once; nil if it has too many. What a trusted proxy asks for itself is not counted.
    func beginWork(for visitor: ClientIdentity.Visitor) -> (token: ClientWork?, Void)? {
        guard limits.requestsInFlightPerClient < .max, !visitor.isTrusted, let ip = visitor.ip else { return (nil, ()) }
        return work.begin(for: ip).map { ($0, ()) }
    }

    /// Of all clients that are counted.
    package var requestsInHand: Int { work.inHand }

    /// Closes upstream connections that wait. Those in use close with their requests.
    package func closeIdleConnections() {
        for (_, bound) in loops.withLock({ $0 }) {
            bound.eventLoop.execute { bound.value.pool.closeIdle() }
        }
    }

    /// Upgraded connections of routes that are served no more end as they do when the process ends.
    package func endUpgraded(unless isServed: @escaping @Sendable (Route) -> Bool) {
        for (_, bound) in loops.withLock({ $0 }) {
            bound.eventLoop.execute {
                for request in bound.value.upgraded.values {
                    if let route = request.route, !isServed(route) { request.drain() }
                }
            }
        }
    }

    /// The clock and pool of the loop that this is called on.
    package func clock(of eventLoop: any EventLoop) -> ConnectionClock { loop(eventLoop).clock }

    /// The counters of the loop that this is called on.
    package func counters(of eventLoop: any EventLoop) -> HTTPCounters { loop(eventLoop).counters }

    /// What all loops have counted.
    package func httpTotals() async -> HTTPTotals {
        var totals = HTTPTotals()
        for (_, bound) in loops.withLock({ $0 }) {
            if let counted = try? await bound.eventLoop.submit({ bound.value.totals }).get() { totals.add(counted) }
        }
        return totals
    }

    func nextRequestID() -> RequestID { RequestID(number: requestIDs.wrappingAdd(1, ordering: .relaxed).oldValue) }

    private func loop(_ eventLoop: any EventLoop) -> ProxyLoop {
        eventLoop.preconditionInEventLoop()
        let key = ObjectIdentifier(eventLoop)
        if let bound = loops.withLock({ $0[key] }) { return bound.value }
        let new = ProxyLoop(eventLoop: eventLoop, connector: connector, limits: limits)
        let bound = NIOLoopBound(new, eventLoop: eventLoop)
        loops.withLock { $0[key] = bound }
        return new
    }
}

/// What the connections of one event loop share. Holds the loop, so that its identity stays unique.
final class ProxyLoop {
    let eventLoop: any EventLoop
    let clock: ConnectionClock
    let pool: UpstreamPool
    let counters = HTTPCounters()
    /// Requests that have become connections of another protocol.
    var upgraded: [ObjectIdentifier: ProxyRequest] = [:]

    init(eventLoop: any EventLoop, connector: @escaping UpstreamConnector, limits: ProxyLimits) {
        self.eventLoop = eventLoop
        clock = ConnectionClock(eventLoop: eventLoop, interval: limits.clockInterval)
        pool = UpstreamPool(eventLoop: eventLoop, connector: connector, limits: limits, clock: clock, counters: counters)
    }

    var totals: HTTPTotals {
        var totals = counters.totals
        totals.upstreamIdle = UInt64(clamping: pool.idleCount)
        return totals
    }
}

extension TLSVersion {
    /// As people write it.
    fileprivate var number: String {
        switch self {
        case .tlsv1: "1.0"
        case .tlsv11: "1.1"
        case .tlsv12: "1.2"
        case .tlsv13: "1.3"
        }
    }
}
