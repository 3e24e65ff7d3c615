import Logging
import NIOWireGuard

/// Takes over what has changed in the configuration of a running gateway, and nothing else: an unchanged route keeps its connections,
/// requests and WebSockets, an unchanged peer its session. A configuration that cannot be used changes nothing.
actor GatewayReload {
    private let reload: Reload<GatewayConfiguration>
    private let started: GatewayConfiguration
    private var current: GatewayConfiguration
    private let running: RunningInterface
    private let front: GatewayFront
    private let endpoints: EndpointStore

    init(
        _ configuration: GatewayConfiguration, load: @escaping Reload<GatewayConfiguration>.Load, running: RunningInterface,
        front: GatewayFront, endpoints: EndpointStore
    ) {
        reload = Reload(load: load, logger: running.logger)
        started = configuration
        current = configuration
        self.running = running
        self.front = front
        self.endpoints = endpoints
    }

    func run() async {
        front.reopenAccessLog()
        guard let read = await BlockingWork.run({ [reload] in reload.read() }), !Task.isCancelled else { return }
        let (new, kept) = read.adapted(to: started, current: current, key: running.interface.publicKey)
        do {
            try await front.routes.prepare(new)
        } catch {
            return reload.keep("\(error)")
        }
        // A new route's peer is there before the route.
        let peers = PeerChanges(from: current.interface.peers, to: new.interface.peers)
        endpoints.track(Set(new.interface.peers.map(\.publicKey)))
        do {
            try await running.apply(peers)
        } catch {
            running.logger.error("WireGuard's peers are not changed", metadata: ["error": "\(error)"])
        }
        var changes = ["\(await front.routes.publish())"]
        if !peers.isEmpty { changes.append("\(peers)") }
        if !new.certificates.isEmpty { changes.append("certificates reloaded") }
        if new.trustedProxies != current.trustedProxies {
            front.update(trustedProxies: TrustedProxies(new.trustedProxies))
            changes.append("trusted proxies changed")
        }
        if new.limits.connections != current.limits.connections || new.limits.connectionsPerClient != current.limits.connectionsPerClient {
            front.update(new.limits)
            changes.append("connection limits changed")
        }
        current = new
        reload.tell(kept)
        reload.finish(changes, fixed: FixedSettings.differences(started, new))
    }
}
