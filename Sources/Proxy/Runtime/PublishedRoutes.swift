/// The routes of a running gateway: those of its configuration, and those that were added while it runs and last as long as it does.
///
/// A domain is never in both: one that the configuration gets takes the place of one that was added.
package actor PublishedRoutes {
    /// Routes that may be added at run time.
    package static let maximumAdded = 10_000

    private let router: Router
    private let selector: CertificateSelector
    private let services: [ProxyService]
    private var configured: [TunnelConfig]
    private var added: [TunnelConfig] = []
    private var interface: InterfaceSettings
    private let onChange: @Sendable ([TunnelConfig], _ generation: Int) async -> Void
    private var generation = 0

    /// - Parameters:
    ///   - router: has the routes of the configuration.
    ///   - services: whose upgraded connections end with their routes.
    ///   - onChange: told of all routes after each change, with a number that grows.
    package init(
        _ configuration: GatewayConfiguration, router: Router, selector: CertificateSelector, services: [ProxyService] = [],
        onChange: @escaping @Sendable ([TunnelConfig], _ generation: Int) async -> Void = { _, _ in }
    ) {
        self.onChange = onChange
        configured = configuration.routes
        interface = configuration.interface
        self.router = router
        self.selector = selector
        self.services = services
    }

    package var list: RouteList {
        RouteList(
            routes: configured.map { RouteList.Route($0, origin: .file) } + added.map { RouteList.Route($0, origin: .runTime) })
    }

    // MARK: Reload

    /// The first step to new routes: their names are answered by TLS. If their certificates cannot be used, nothing changes.
    package func prepare(_ configuration: GatewayConfiguration) throws(CertificateFileError) {
        let names = Set(configuration.routes.map(\.domain))
        let staying = added.filter { !names.contains($0.domain) }
        try selector.update(domains: (configuration.routes + staying).map(\.domain), certificates: configuration.certificates)
        // Addresses change at the next start only.
        let addresses = interface.addresses
        (configured, added, interface) = (configuration.routes, staying, configuration.interface)
        interface.addresses = addresses
    }

    /// The second step: requests go by them.
    @discardableResult
    package func publish() async -> RouteChanges {
        let changes = router.updateTunnels(configured + added)
        if !changes.removed.isEmpty || !changes.changed.isEmpty {
            let table = router.snapshot
            for service in services { service.endUpgraded { table.serves($0) } }
        }
        await announce()
        return changes
    }

    /// Tells of the routes as they are.
    package func announce() async {
        generation += 1
        await onChange(configured + added, generation)
    }

    // MARK: Run time

    /// Adds a route, or replaces one that was added.
    /// - Parameter text: `DOMAIN=IP[:PORT]`.
    package func add(_ text: String, options: RouteOptions) async throws -> RouteList.Answer {
        let setting = Setting(value: .text(text), origin: .builtIn, key: "route")
        var draft = try GatewayConfiguration.parseRoute(setting)
        draft.options = options
        let route = try draft.route(over: interface, setting)
        guard !configured.contains(where: { $0.domain == route.domain }) else {
            throw AdminFault(error: "\(route.domain) is in the gateway's configuration; change it there and send the process SIGHUP")
        }
        let place = added.firstIndex { $0.domain == route.domain }
        var routes = added
        if let place {
            routes[place] = route
        } else {
            guard added.count < Self.maximumAdded else {
                throw AdminFault(error: "\(Self.maximumAdded) routes were added; remove one, or write routes into the configuration")
            }
            routes.append(route)
        }
        try selector.update(domains: (configured + routes).map(\.domain))
        added = routes
        await publish()
        let isOwned = interface.peers.contains { peer in peer.allowedIPs.contains { $0.contains(route.agentVirtualIP) } }
        let warning = GatewayConfiguration.unreachable(route, isOwned: isOwned, setting)
        return RouteList.Answer(route: RouteList.Route(route, origin: .runTime), replaced: place != nil, warning: warning?.description)
    }

    /// Takes a route away that was added.
    package func remove(_ text: String) async throws -> RouteList.Answer {
        let domain = try DomainName.parse(text, Setting(value: .text(text), origin: .builtIn, key: "domain"))
        guard let place = added.firstIndex(where: { $0.domain == domain }) else {
            guard !configured.contains(where: { $0.domain == domain }) else {
                throw AdminFault(error: "\(domain) is in the gateway's configuration; remove it there and send the process SIGHUP")
            }
            throw AdminFault(error: "there is no route for \(domain); kakuremichi route list shows those that there are")
        }
        var routes = added
        let route = routes.remove(at: place)
        try selector.update(domains: (configured + routes).map(\.domain))
        added = routes
        await publish()
        return RouteList.Answer(route: RouteList.Route(route, origin: .runTime))
    }
}
