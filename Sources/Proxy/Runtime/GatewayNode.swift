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
    /// How long the last lines of the access log may take.
    static let accessLogLimit = TimeAmount.seconds(2)
    static let certificateCheck = Duration.seconds(3600)

    /// Runs until SIGTERM or SIGINT.
    /// - Parameter load: reads the configuration anew, at SIGHUP.
    static func run(
        _ configuration: GatewayConfiguration, warnings: [ConfigurationFault], load: @escaping Reload<GatewayConfiguration>.Load
    ) async throws {
        let signals = ShutdownSignals(reloads: true)
        let logger = Logger(label: "gateway")
        guard let directory = configuration.common.stateDirectory else { throw CommandFailure("give --state DIR") }
        let state = try StateDirectory(path: directory)
        let certificates = try GatewayCertificates(configuration, stateDirectory: state.path, logger: logger)
        let accessLog = try configuration.accessLog.map {
            try AccessLogFile(path: $0, eventLoop: MultiThreadedEventLoopGroup.singleton.next(), logger: logger)
        }
        let endpoints = EndpointStore(
            path: state.file("endpoints"), peers: Set(configuration.interface.peers.map(\.publicKey)),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(), logger: logger)
        let running = try await RunningInterface(
            role: .gateway, common: configuration.common, settings: configuration.interface, warnings: warnings, logger: logger,
            state: state
        ) { event in
            if case .endpointChanged(let peer, let endpoint) = event { endpoints.record(peer, at: endpoint) }
        }
        var front: GatewayFront?
        do {
            await contactPeers(running, endpoints)
            let opened = try await GatewayFront(configuration, running, certificates, accessLog)
            front = opened
            running.answerStatus(
                routes: { opened.router.snapshot.statusRoutes }, listeners: { opened.addresses },
                certificates: { await certificates.list.certificates }, metrics: [opened.metrics.provider])
            if let admin = running.admin {
                RouteVerbs.register(on: admin, routes: opened.routes)
                CertificateVerbs.register(on: admin, certificates: certificates)
            }
            let reload = GatewayReload(configuration, load: load, running: running, front: opened, endpoints: endpoints)
            await certificates.start()
            await signals.wait(whileEvery: certificateCheck) {
                await BlockingWork.run {
                    do {
                        try certificates.selector.refresh()
                    } catch {
                        logger.error("Certificates stay as they are", metadata: ["error": "\(error)"])
                    }
                }
            } reload: {
                await reload.run()
            }
            logger.info("Shutting down HTTP/HTTPS servers")
        } catch {
            front?.closeConnections()
            await certificates.stop()
            await running.stop()
            throw error
        }
        async let stopped: Void = certificates.stop()
        await front?.drain(within: drainLimit)
        await stopped
        await accessLog?.close(within: accessLogLimit)
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
}

extension RouteTable {
    fileprivate var statusRoutes: [Status.Route] {
        tunnels.map { Status.Route(domain: $0.domain, target: $0.target, enabled: $0.enabled) }
    }
}
