import Inet
import Logging
import Synchronization

/// What the proxy needs to know of the way to one upstream; made once for each configuration, shared by all requests.
package final class Route: Sendable {
    /// The configured domain, for logs.
    package let domain: String
    package let target: UpstreamTarget
    /// The address for logs, without port.
    package let agentIP: String
    /// Sent as `Host` instead of the public one.
    package let hostHeader: String?
    package let options: RouteOptions

    /// The target speaks what the options say.
    package init(domain: String, target: UpstreamTarget, hostHeader: String? = nil, options: RouteOptions = RouteOptions()) {
        var target = target
        target.upstreamProtocol = options.upstreamProtocol
        self.domain = domain
        self.target = target
        self.hostHeader = hostHeader
        self.options = options
        agentIP =
            switch target.host {
            case .address(let address): "\(address)"
            case .name(let name): name
            }
    }

    /// The old one if it says the same: who holds a route sees that nothing has changed.
    func replacing(_ old: Route?) -> Route {
        guard let old, old.domain == domain, old.target == target, old.hostHeader == hostHeader, old.options == options else { return self }
        return old
    }
}

package enum RouteResolution: Sendable {
    case route(Route)
    case disabled
    /// To the same path and query of this origin: `https://app.example.com:8443`.
    case redirect(origin: String)
    case unknown
}

/// Chooses the upstream of a request. Asked on event loops, for every request.
package protocol RequestRouter: Sendable {
    /// - Parameter host: as ``HostName/normalize(_:)`` gives it; empty if the request named none.
    func resolve(host: String) -> RouteResolution
}

/// An immutable set of tunnels, ready for lookup: an exact name wins over the longest wildcard.
package struct RouteTable: Sendable {
    package let tunnels: [TunnelConfig]
    private var entries = DomainMap<Entry>()

    private enum Entry: Sendable {
        case enabled(Route)
        case disabled
    }

    /// Of two tunnels with one domain, an enabled one wins, then the first.
    /// - Parameter former: the table that this one replaces; a route that has not changed is the same object in both.
    package init(_ tunnels: [TunnelConfig] = [], replacing former: RouteTable? = nil) {
        self.tunnels = tunnels
        for tunnel in tunnels {
            guard let domain = DomainMap<Entry>.normalized(tunnel.domain) else { continue }
            let entry: Entry =
                if tunnel.enabled {
                    .enabled(
                        Route(
                            domain: domain,
                            target: UpstreamTarget(address: tunnel.agentVirtualIP, port: tunnel.port, source: tunnel.gatewayIP),
                            options: tunnel.options
                        ).replacing(former?.route(of: domain)))
                } else {
                    .disabled
                }
            switch (entries[domain], entry) {
            case (nil, _), (.disabled, .enabled): entries[domain] = entry
            case (.enabled, _), (.disabled, .disabled): break
            }
        }
    }

    /// Whether requests of the route's domain still go where it says.
    package func serves(_ route: Route) -> Bool { self.route(of: route.domain)?.target == route.target }

    private func route(of domain: String) -> Route? {
        if case .enabled(let route)? = entries[domain] { route } else { nil }
    }

    package func resolve(host: String) -> RouteResolution {
        guard let entry = entries.lookUp(host) else { return .unknown }
        return switch entry {
        case .enabled(let route): .route(route)
        case .disabled: .disabled
        }
    }

    /// Whether there is a tunnel for the host, enabled or not.
    package func knows(host: String) -> Bool { entries.lookUp(host) != nil }
}

/// The gateway's table of tunnels, with the verbs that change it. Thread-safe; each change publishes a new ``RouteTable``.
package final class Router: RequestRouter {
    private let table: Mutex<RouteTable>
    private let logger: Logger

    package init(tunnels: [TunnelConfig] = [], logger: Logger) {
        table = Mutex(RouteTable())
        self.logger = logger
        if !tunnels.isEmpty { updateTunnels(tunnels) }
    }

    /// Puts these tunnels in the place of all. Those that have not changed do not notice.
    @discardableResult
    package func updateTunnels(_ tunnels: [TunnelConfig]) -> RouteChanges {
        logger.info("Updating tunnels", metadata: ["count": .stringConvertible(tunnels.count)])
        let changes = table.withLock { table in
            let old = table.tunnels
            table = RouteTable(tunnels, replacing: table)
            return RouteChanges(from: Self.byDomain(old), to: Self.byDomain(tunnels))
        }
        let news = Set(changes.added + changes.changed)
        for tunnel in tunnels where tunnel.enabled && news.contains(tunnel.domain) { log("Tunnel registered", tunnel) }
        return changes
    }

    private static func byDomain(_ tunnels: [TunnelConfig]) -> [String: TunnelConfig] {
        Dictionary(tunnels.map { ($0.domain, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// Adds a tunnel, or replaces the one with its id.
    package func addTunnel(_ tunnel: TunnelConfig) {
        log("Adding tunnel", tunnel)
        table.withLock { table in
            var tunnels = table.tunnels
            if let index = tunnels.firstIndex(where: { $0.id == tunnel.id }) { tunnels[index] = tunnel } else { tunnels.append(tunnel) }
            table = RouteTable(tunnels, replacing: table)
        }
    }

    /// - Returns: whether there was such a tunnel.
    @discardableResult
    package func removeTunnel(_ id: String) -> Bool {
        let removed = table.withLock { table -> TunnelConfig? in
            guard let tunnel = table.tunnels.first(where: { $0.id == id }) else { return nil }
            table = RouteTable(table.tunnels.filter { $0.id != id }, replacing: table)
            return tunnel
        }
        guard let removed else { return false }
        log("Removing tunnel", removed)
        return true
    }

    package var snapshot: RouteTable { table.withLock { $0 } }

    package func resolve(host: String) -> RouteResolution { table.withLock { $0.resolve(host: host) } }

    private func log(_ event: Logger.Message, _ tunnel: TunnelConfig) {
        logger.info(
            event,
            metadata: [
                "domain": "\(LogText.escape(tunnel.domain))", "agentIP": "\(tunnel.agentVirtualIP)",
                "target": "\(LogText.escape(tunnel.target))",
            ])
    }
}
