import Logging
import NIOCore
import Synchronization

/// Joins each connection accepted in the tunnel with one new connection to the target, byte for byte: the gateway has checked what goes
/// through, and nothing is parsed twice. Both run on the loop that the first arrived on; with the tunnel's own there is no hop.
///
/// A target that refuses, or that does not answer the connect, is a reset. HTTP/2, which a gateway may speak to an agent whatever the
/// target speaks, goes to a proxy. There are as many relays as the tunnel's stack allows connections, and a silent one has no time limit.
/// Thread-safe.
package final class TunnelRelay: Sendable {
    /// Connections to the target, as far as they were tried.
    package struct Counts: Sendable, Equatable {
        package var opened: UInt64 = 0
        package var closed: UInt64 = 0
        package var refused: UInt64 = 0
        package var unreachable: UInt64 = 0
        package var broken: UInt64 = 0

        package init(opened: UInt64 = 0, closed: UInt64 = 0, refused: UInt64 = 0, unreachable: UInt64 = 0, broken: UInt64 = 0) {
            (self.opened, self.closed) = (opened, closed)
            (self.refused, self.unreachable, self.broken) = (refused, unreachable, broken)
        }
    }

    /// What several relays count together.
    package final class Tally: Sendable {
        fileprivate let counts = Mutex(Counts())
        package init() {}
        package var now: Counts { counts.withLock { $0 } }
    }

    let patience: TimeAmount
    private let route: Route
    private let connector: UpstreamConnector
    private let proxy: LocalProxy?
    private let logger: Logger
    private let budget = LogBudget()
    private let tally: Tally

    /// - Parameters:
    ///   - connector: its channels must allow half closure.
    ///   - patience: last bytes that nobody takes are given up after so long without progress, or up to twice that.
    ///   - proxy: for connections that speak HTTP/2.
    package init(
        to target: UpstreamTarget, connector: @escaping UpstreamConnector = OriginDialer.connector(halfClosure: true),
        patience: TimeAmount = ProxyLimits.agent.bodyIdle, proxy: LocalProxy? = nil, tally: Tally = Tally(),
        logger: Logger
    ) {
        route = Route(domain: "*", target: target)
        self.connector = connector
        self.patience = patience
        self.proxy = proxy
        self.tally = tally
        self.logger = logger
    }

    package var target: UpstreamTarget { route.target }
    package var counts: Counts { tally.now }

    /// The initializer of an accepted channel; to be called on its loop. The target is connected to when the first bytes come; what
    /// follows them stays in the tunnel until it has answered, and the tunnel's window bounds it.
    package func initialize(_ channel: any Channel) -> EventLoopFuture<Void> {
        channel.eventLoop.makeCompletedFuture {
            try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
            try channel.pipeline.syncOperations.addHandler(RelayHalf(.tunnel, relay: self))
        }
    }

    // MARK: Called by the tunnel's half of a relay

    func dial(for half: RelayHalf, on eventLoop: any EventLoop) {
        connector(target, eventLoop).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let origin):
                tally.counts.withLock { $0.opened &+= 1 }
                origin.closeFuture.whenComplete { [tally] _ in tally.counts.withLock { $0.closed &+= 1 } }
                half.join(origin)
            case .failure(let error):
                let failure = UpstreamFailure(error)
                count(failure)
                AccessLog(logger, budget: budget, eventLoop: eventLoop).proxyError(route, "\(target): \(failure)")
                half.abort()
            }
        }
    }

    private func count(_ failure: UpstreamFailure) {
        tally.counts.withLock {
            switch failure {
            case .refused: $0.refused &+= 1
            case .unreachable: $0.unreachable &+= 1
            case .broken: $0.broken &+= 1
            }
        }
    }

    /// Puts the handlers of HTTP/2 behind those of the relay.
    /// - Returns: whether there is somebody to speak it.
    func handOver(_ channel: any Channel) -> Bool {
        guard let proxy, (try? proxy.configure(channel)) != nil else { return false }
        return true
    }

    func ended(received: UInt64, sent: UInt64, after duration: TimeAmount) {
        guard logger.logLevel <= .debug else { return }
        logger.debug(
            "Connection relayed",
            metadata: [
                "target": "\(target)", "received": "\(received)", "sent": "\(sent)", "duration": "\(duration.nanoseconds / 1000) us",
            ])
    }
}

/// Tells the relays of one `TunnelRelay` that it is not in use any more: who is idle ends soon, who is busy at the deadline is reset.
package struct RelayRetires: Sendable {
    let relay: TunnelRelay
    let limit: TimeAmount

    package init(_ relay: TunnelRelay, within limit: TimeAmount) {
        self.relay = relay
        self.limit = limit
    }
}

extension LocalTargets {
    /// The target of a relay: every host goes to it, and no request has to be looked at.
    package var relayTarget: UpstreamTarget? {
        guard let target = catchAll?.target else { return nil }
        let isPlain = all.allSatisfy { entry in
            entry.enabled && entry.host == .asReceived && entry.target == target && entry.options == RouteOptions()
        }
        return isPlain ? target : nil
    }
}
