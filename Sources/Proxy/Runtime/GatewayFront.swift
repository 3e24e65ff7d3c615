import Inet
import Logging
import NIOCore
import NIOWireGuard

/// What of a gateway its visitors see: listeners, and the proxies behind them.
struct GatewayFront: Sendable {
    let router: Router
    let routes: PublishedRoutes
    private(set) var listeners: [PublicListener] = []
    private(set) var addresses: [Status.Listener] = []
    /// One, or a second one that redirects.
    private let services: [ProxyService]
    private let limiter: ConnectionLimiter
    let metrics: GatewayMetrics
    private let accessLog: AccessLogFile?
    private let logger: Logger

    /// Opens the listeners, all or none.
    init(
        _ configuration: GatewayConfiguration, _ running: RunningInterface, _ certificates: GatewayCertificates, _ accessLog: AccessLogFile?
    ) async throws {
        self.accessLog = accessLog
        logger = running.logger
        router = Router(tunnels: configuration.routes, logger: logger)
        limiter = ConnectionLimiter()
        let selector = certificates.selector
        let limits = configuration.limits.proxy
        let connector = TunnelConnector(interface: running.interface, timeout: limits.connect).connector
        let trusted = TrustedProxies(configuration.trustedProxies)
        let firstRequestID = SystemEdges.random.nextUInt64()
        let service = ProxyService(
            mode: .gateway, router: router, connector: connector, limits: limits, trustedProxies: trusted,
            firstRequestID: firstRequestID, accessLog: accessLog, challenges: certificates.cluster?.local, logger: logger)
        // Without HTTPS there is nothing to redirect to: then plain HTTP serves, as the original does without certificates.
        let plain =
            configuration.https.isEmpty
            ? service
            : ProxyService(
                mode: .gateway, router: RedirectRouter(router: router, publicHTTPSPort: configuration.publicHTTPSPort),
                connector: connector, limits: limits, trustedProxies: trusted, firstRequestID: firstRequestID ^ 1 << 63,
                accessLog: accessLog, challenges: certificates.cluster, logger: logger)
        services = plain === service ? [service] : [service, plain]
        metrics = GatewayMetrics(services: services, limiter: limiter, selector: selector, accessLog: accessLog, certificates: certificates)
        routes = PublishedRoutes(configuration, router: router, selector: selector, services: services) { routes, generation in
            await certificates.update(routes, generation: generation)
        }
        update(configuration.limits)
        // What the cache has is served to the first client.
        await routes.announce()
        let kinds: [(name: String, endpoints: [SocketEndpoint], kind: PublicListener.Kind, service: ProxyService)] = [
            ("https", configuration.https, .https(selector), service), ("http", configuration.http, .http, plain),
        ]
        do {
            for (name, endpoints, kind, service) in kinds {
                for endpoint in endpoints {
                    logger.info(
                        "Starting \(name.uppercased()) server",
                        metadata: ["port": .stringConvertible(endpoint.port), "address": "\(endpoint)"])
                    let listener = try await PublicListener.bind(
                        endpoint, kind: kind, service: service, limiter: limiter, group: running.group
                    ).get()
                    listeners.append(listener)
                    addresses.append(
                        Status.Listener(kind: name, address: "\(SocketEndpoint(endpoint.address, port: listener.port))"))
                }
            }
        } catch {
            for listener in listeners { try? await listener.drain(within: .zero).get() }
            throw error
        }
    }

    /// Its file may have been moved away, for a new one in its place.
    func reopenAccessLog() { accessLog?.reopen() }

    /// For requests from now on.
    func update(trustedProxies: TrustedProxies) { for service in services { service.update(trustedProxies: trustedProxies) } }

    /// For connections from now on. Only so many are possible as there are descriptors.
    func update(_ limits: LimitSettings) {
        let bounds = ConnectionLimiter.bounds(
            descriptors: DescriptorLimit.raise(), connections: limits.connections, perClient: limits.connectionsPerClient)
        limiter.change(maximum: bounds.maximum, maximumPerClient: bounds.maximumPerClient)
        guard let wanted = limits.connections, wanted > bounds.maximum else { return }
        logger.warning(
            "The open-file limit leaves room for fewer connections than configured; raise it (ulimit -Hn, LimitNOFILE=)",
            metadata: ["connections": .stringConvertible(bounds.maximum), "configured": .stringConvertible(wanted)])
    }

    func drain(within limit: TimeAmount) async {
        await withTaskGroup(of: Void.self) { tasks in
            for listener in listeners { tasks.addTask { try? await listener.drain(within: limit).get() } }
        }
    }

    func closeConnections() { for listener in listeners { listener.closeConnections() } }
}
