import Logging
import NIOCore

/// Joins each connection accepted in the tunnel with one new connection to the target, byte for byte: the gateway has checked what goes
/// through, and nothing is parsed twice. Both run on the loop that the first arrived on; with the tunnel's own there is no hop.
///
/// There are as many relays as the tunnel's stack allows connections, and a silent one has no time limit. Thread-safe.
package final class TunnelRelay: Sendable {
    private let route: Route
    private let connector: UpstreamConnector
    private let logger: Logger
    private let budget = LogBudget()

    /// - Parameter connector: its channels must allow half closure.
    package init(
        to target: UpstreamTarget, connector: @escaping UpstreamConnector = OriginDialer.connector(halfClosure: true), logger: Logger
    ) {
        route = Route(domain: "*", target: target)
        self.connector = connector
        self.logger = logger
    }

    /// The initializer of an accepted channel; to be called on its loop. What arrives before the target has answered stays in the
    /// tunnel, whose window bounds it.
    package func initialize(_ channel: any Channel) -> EventLoopFuture<Void> {
        let half = RelayHalf(.tunnel)
        return channel.eventLoop.makeCompletedFuture {
            try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
            try channel.pipeline.syncOperations.addHandler(half)
            connector(route.target, channel.eventLoop).assumeIsolated().whenComplete { [self] result in
                switch result {
                case .success(let origin): half.join(origin)
                case .failure(let error):
                    AccessLog(logger, budget: budget, eventLoop: channel.eventLoop)
                        .proxyError(route, "\(route.target): \(UpstreamFailure(error))")
                    half.abort()
                }
            }
        }
    }
}

extension LocalTargets {
    /// The target of a relay: every host goes to it, and none needs a look at the requests.
    package var relayTarget: UpstreamTarget? {
        guard let target = catchAll?.target else { return nil }
        let isPlain = all.allSatisfy { $0.enabled && $0.host == .asReceived && $0.target == target && $0.options == RouteOptions() }
        return isPlain ? target : nil
    }
}
