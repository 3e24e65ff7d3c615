import Logging
import NIOCore
import NIOWireGuard
import Synchronization

/// What an agent does with the connections that it accepts: with one target for every host a relay joins them, byte for byte; else a proxy
/// reads the requests. May change at run time. Thread-safe.
package final class AgentFront: Sendable {
    private let proxy: LocalProxy
    private let limits: ProxyLimits
    private let logger: Logger
    private let open: OpenChannels
    private let relay: Mutex<TunnelRelay?>
    private let tally = TunnelRelay.Tally()

    /// - Parameter open: gets every connection.
    package init(_ targets: LocalTargets, limits: ProxyLimits, open: OpenChannels, logger: Logger) {
        self.limits = limits
        self.logger = logger
        self.open = open
        proxy = LocalProxy(
            targets: targets, connector: OriginDialer.connector(timeout: limits.connect), limits: limits,
            firstRequestID: SystemEdges.random.nextUInt64(), logger: logger)
        relay = Mutex(nil)
        let first = makeRelay(targets)
        relay.withLock { $0 = first }
    }

    package var targets: LocalTargets { proxy.targets }

    /// Connections of relays to targets, of all targets there were.
    package var relayCounts: TunnelRelay.Counts { tally.now }

    /// What was counted of requests, and of connections to targets whoever uses them.
    package func httpTotals() async -> HTTPTotals {
        var totals = await proxy.service.httpTotals()
        let relays = relayCounts
        totals.upstreamOpened &+= relays.opened
        totals.upstreamClosed &+= relays.closed
        totals.upstreamFaults[HTTPCounters.UpstreamFault.refused.rawValue] &+= relays.refused
        totals.upstreamFaults[HTTPCounters.UpstreamFault.unreachable.rawValue] &+= relays.unreachable
        totals.upstreamFaults[HTTPCounters.UpstreamFault.broken.rawValue] &+= relays.broken
        return totals
    }

    /// A relay belongs on the tunnel's own loops, a proxy on others.
    var isRelay: Bool { relay.withLock { $0 != nil } }

    /// The initializer of an accepted channel; to be called on its loop.
    package func initialize(_ channel: any Channel) -> EventLoopFuture<Void> {
        open.add(channel)
        if let relay = relay.withLock({ $0 }) { return relay.initialize(channel) }
        return channel.setOption(.allowRemoteHalfClosure, value: true).flatMap { [proxy] in proxy.initialize(channel) }
    }

    /// Requests from now on go by these targets. A gateway would go on using the relays of a target that is not that of all hosts any
    /// more: they end, the busy ones when the limit is over.
    package func update(_ targets: LocalTargets, within limit: TimeAmount) -> RouteChanges {
        let changes = proxy.update(targets)
        let former = relay.withLock { relay -> TunnelRelay? in
            guard relay?.target != targets.relayTarget else { return nil }
            defer { relay = makeRelay(targets) }
            return relay
        }
        if let former { open.tell(RelayRetires(former, within: limit)) }
        return changes
    }

    private func makeRelay(_ targets: LocalTargets) -> TunnelRelay? {
        guard let target = targets.relayTarget else { return nil }
        return TunnelRelay(
            to: target, connector: OriginDialer.connector(timeout: limits.connect, halfClosure: true), patience: limits.bodyIdle,
            proxy: proxy, tally: tally, logger: logger)
    }
}
