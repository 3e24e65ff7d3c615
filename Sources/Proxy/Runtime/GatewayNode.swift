import Inet
import Logging
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise

/// A running gateway: certificates, public listeners, router, tunnel.
///
/// It comes up from the inside to the outside, so that no client is let in before it can be served, and goes down the other way round.
package enum GatewayNode {
    /// How long requests in hand may take after SIGTERM.
    static let drainLimit = TimeAmount.seconds(25)
    static let certificateCheck = Duration.seconds(3600)

    /// Runs until SIGTERM or SIGINT.
    /// - Parameter input: where the configuration came from, to be read again at SIGHUP.
    static func run(_ configuration: GatewayConfiguration, input: ConfigurationInput, warnings: [ConfigurationFault]) async throws {
        let signals = ShutdownSignals()
        let logger = Logger(label: "gateway")
        guard let directory = configuration.common.stateDirectory else { throw CommandFailure("give --state DIR") }
        let state = try StateDirectory(path: directory)
        let selector = try CertificateSelector(
            configuration: TLSFrontConfiguration(
                domains: configuration.routes.map(\.domain), certificates: configuration.certificates, stateDirectory: state.path),
            logger: logger)
        let endpoints = EndpointStore(
            path: state.file("endpoints"), peers: Set(configuration.interface.peers.map(\.publicKey)),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(), logger: logger)
        let running = try await RunningInterface(
            role: .gateway, common: configuration.common, settings: configuration.interface, warnings: warnings, logger: logger,
            state: state
        ) { event in
            if case .endpointChanged(let peer, let endpoint) = event { endpoints.record(peer, at: endpoint) }
        }
        var listeners: [PublicListener] = []
        do {
            await contactPeers(running, endpoints)
            let router = Router(tunnels: configuration.routes, logger: logger)
            let services = services(configuration, running, router)
            listeners = try await open(configuration, running, services, selector)
            let bound = zip(listeners, kinds(configuration)).map { listener, kind in
                Status.Listener(kind: kind, address: "\(SocketEndpoint(listener.endpoint.address, port: listener.port))")
            }
            running.answerStatus(routes: { router.snapshot.statusRoutes }, listeners: { bound })
            let reload = GatewayReload(
                input: input, current: configuration, router: router, selector: selector, services: [services.https, services.http],
                logger: logger)
            await signals.wait(whileEvery: certificateCheck, reload: reload.run) {
                do {
                    try selector.refresh()
                } catch {
                    logger.error("Certificates stay as they are", metadata: ["error": "\(error)"])
                }
            }
            logger.info("Shutting down HTTP/HTTPS servers")
        } catch {
            for listener in listeners { listener.closeConnections() }
            await running.stop()
            throw error
        }
        await drain(listeners)
        endpoints.save()
        await running.stop()
        withExtendedLifetime(state) {}
    }

    /// Where a peer was last time is a hint for those without a configured endpoint.
    private static func contactPeers(_ running: RunningInterface, _ endpoints: EndpointStore) async {
        let stored = endpoints.endpoints
        for peer in running.settings.peers {
            let endpoint: SocketEndpoint?
            switch peer.endpoint {
            case .address(let address): endpoint = address
            case .name: endpoint = nil
            case nil: endpoint = stored[peer.publicKey]
            }
            if let endpoint { try? await running.interface.contact(peer.publicKey, at: endpoint).get() }
        }
    }

    private static func kinds(_ configuration: GatewayConfiguration) -> [String] {
        configuration.https.map { _ in "https" } + configuration.http.map { _ in "http" }
    }

    /// What serves each kind of listener.
    private static func services(
        _ configuration: GatewayConfiguration, _ running: RunningInterface, _ router: Router
    ) -> (https: ProxyService, http: ProxyService) {
        let trusted = TrustedProxies(configuration.trustedProxies)
        let firstRequestID = SystemEdges.random.nextUInt64()
        let connector = TunnelConnector(interface: running.interface, timeout: configuration.limits.proxy.connect).connector
        let service = ProxyService(
            mode: .gateway, router: router, connector: connector, limits: configuration.limits.proxy, trustedProxies: trusted,
            firstRequestID: firstRequestID, logger: running.logger)
        // Without HTTPS there is nothing to redirect to: then plain HTTP serves, as the original does without certificates.
        let plain =
            configuration.https.isEmpty
            ? service
            : ProxyService(
                mode: .gateway, router: RedirectRouter(router: router, publicHTTPSPort: configuration.publicHTTPSPort),
                connector: connector, limits: configuration.limits.proxy, trustedProxies: trusted, firstRequestID: firstRequestID ^ 1 << 63,
                logger: running.logger)
        return (service, plain)
    }

    private static func open(
        _ configuration: GatewayConfiguration, _ running: RunningInterface, _ services: (https: ProxyService, http: ProxyService),
        _ selector: CertificateSelector
    ) async throws -> [PublicListener] {
        let limits = configuration.limits
        let limiter = ConnectionLimiter(
            descriptors: DescriptorLimit.raise(), connections: limits.connections, perClient: limits.connectionsPerClient)
        if let wanted = limits.connections, wanted > limiter.maximum {
            running.logger.warning(
                "The open-file limit leaves room for fewer connections than configured; raise it (ulimit -Hn, LimitNOFILE=)",
                metadata: ["connections": .stringConvertible(limiter.maximum), "configured": .stringConvertible(wanted)])
        }
        var listeners: [PublicListener] = []
        do {
            for endpoint in configuration.https {
                running.logger.info(
                    "Starting HTTPS server", metadata: ["port": .stringConvertible(endpoint.port), "address": "\(endpoint)"])
                listeners.append(
                    try await PublicListener.bind(
                        endpoint, kind: .https(selector), service: services.https, limiter: limiter, group: running.group
                    ).get())
            }
            for endpoint in configuration.http {
                running.logger.info(
                    "Starting HTTP server", metadata: ["port": .stringConvertible(endpoint.port), "address": "\(endpoint)"])
                listeners.append(
                    try await PublicListener.bind(endpoint, kind: .http, service: services.http, limiter: limiter, group: running.group)
                        .get())
            }
        } catch {
            for listener in listeners { try? await listener.drain(within: .zero).get() }
            throw error
        }
        return listeners
    }

    private static func drain(_ listeners: [PublicListener]) async {
        await withTaskGroup(of: Void.self) { tasks in
            for listener in listeners { tasks.addTask { try? await listener.drain(within: drainLimit).get() } }
        }
    }
}

extension RouteTable {
    fileprivate var statusRoutes: [Status.Route] {
        tunnels.map { Status.Route(domain: $0.domain, target: $0.target, enabled: $0.enabled) }
    }
}
