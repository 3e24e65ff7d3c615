import Logging
import NIOCore
import NIOHTTP1
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

/// What all connections of one proxy share: router, limits, and for each event loop a clock and a pool.
package final class ProxyService: Sendable {
    package let mode: ProxyMode
    package let limits: ProxyLimits
    package let logger: Logger
    let router: any RequestRouter
    let logBudget = LogBudget()
    private let connector: UpstreamConnector
    private let loops = Mutex<[ObjectIdentifier: NIOLoopBound<ProxyLoop>]>([:])
    private let requestIDs: Atomic<UInt64>

    /// - Parameter firstRequestID: request ids count from here; drawn at random by programs, so that two runs do not share ids.
    package init(
        mode: ProxyMode, router: any RequestRouter, connector: @escaping UpstreamConnector, limits: ProxyLimits = ProxyLimits(),
        firstRequestID: UInt64 = 1, logger: Logger
    ) {
        self.mode = mode
        self.router = router
        self.connector = connector
        self.limits = limits
        self.logger = logger
        requestIDs = Atomic(firstRequestID)
    }

    /// Puts the HTTP server handlers at the end of an accepted channel's pipeline. On the channel's loop.
    ///
    /// The channel should allow remote half closure. Automatic reading may stay on: the handlers hold reads back.
    /// - Parameters:
    ///   - scheme: that the client used.
    ///   - coverage: of the certificate shown, nil without TLS.
    package func configure(_ channel: any Channel, scheme: ClientIdentity.Scheme, coverage: (any HostCoverage)? = nil) throws {
        let decoder = HTTPRequestDecoder(leftOverBytesStrategy: .forwardBytes, limitConfiguration: limits.decoder)
        let operations = channel.pipeline.syncOperations
        try operations.addHandler(ByteToMessageHandler(decoder))
        try operations.addHandler(
            ProxyHandler(
                service: self, loop: loop(channel.eventLoop), identity: ClientIdentity(channel.remoteAddress, scheme: scheme),
                coverage: coverage, allocator: channel.allocator))
    }

    /// Closes upstream connections that wait. Those in use close with their requests.
    package func closeIdleConnections() {
        for (_, bound) in loops.withLock({ $0 }) {
            bound.eventLoop.execute { bound.value.pool.closeIdle() }
        }
    }

    /// The clock and pool of the loop that this is called on.
    package func clock(of eventLoop: any EventLoop) -> ConnectionClock { loop(eventLoop).clock }

    func nextRequestID() -> String {
        let number = requestIDs.wrappingAdd(1, ordering: .relaxed).oldValue
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }

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

    init(eventLoop: any EventLoop, connector: @escaping UpstreamConnector, limits: ProxyLimits) {
        self.eventLoop = eventLoop
        clock = ConnectionClock(eventLoop: eventLoop, interval: limits.clockInterval)
        pool = UpstreamPool(eventLoop: eventLoop, connector: connector, limits: limits, clock: clock)
    }
}
