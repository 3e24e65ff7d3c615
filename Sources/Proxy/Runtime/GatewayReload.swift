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
        let adapted = read.adapted(to: started, current: current, key: running.interface.publicKey)
        var new = adapted.configuration
        do {
            try await front.routes.prepare(new)
        } catch {
            return reload.keep("\(error)")
        }
        // A new route's peer is there before the route.
        let peers = PeerChanges(from: current.interface.peers, to: new.interface.peers)
        endpoints.track(Set(new.interface.peers.map(\.publicKey)))
        let applied = await running.apply(peers, to: current.interface.peers)
        if let failure = applied.failure {
            // The next reload begins with what runs.
            new.interface.peers = applied.peers
            running.logger.error("Not all of WireGuard's peers are changed; send SIGHUP again", metadata: ["error": "\(failure)"])
        }
        var changes = ["\(await front.routes.publish())"]
        if !peers.isEmpty, applied.failure == nil { changes.append("\(peers)") }
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
        reload.tell(adapted.kept)
        reload.finish(changes, fixed: FixedSettings.differences(started, new))
    }
}
