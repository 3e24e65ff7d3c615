import Inet
import Logging
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise

/// A running agent: accepts connections on its addresses in the tunnel and hands their requests to targets nearby. Gateways are found
/// again for ever: by WireGuard's own retries, by keepalives, and by the probe.
package enum AgentNode {
    /// For gateways whose keepalive the file leaves open: the agent sits behind NAT, and only it can keep the way open.
    static let defaultKeepalive = Duration.seconds(25)
    /// How long requests in hand may take after SIGTERM.
    static let drainLimit = TimeAmount.seconds(25)

    /// Runs until SIGTERM or SIGINT.
    /// - Parameter load: reads the configuration anew, at SIGHUP.
    static func run(
        _ configuration: AgentConfiguration, warnings: [ConfigurationFault], load: @escaping Reload<AgentConfiguration>.Load
    ) async throws {
        let signals = ShutdownSignals(reloads: true)
        let logger = Logger(label: "agent")
        guard let directory = configuration.common.stateDirectory else { throw CommandFailure("give --state DIR") }
        let state = try StateDirectory(path: directory)
        let settings = withKeepalive(configuration.interface)
        let running = try await RunningInterface(
            role: .agent, common: configuration.common, settings: settings, warnings: warnings, logger: logger, state: state)
        let probe = GatewayProbe(interface: running.interface, logger: logger)
        do {
            let open = OpenChannels()
            DescriptorLimit.raise()
            let front = AgentFront(configuration.targets, limits: configuration.limits, open: open, logger: logger)
            let listener = try await running.interface.listen(
                port: configuration.listenPort, group: front.isRelay ? nil : running.group
            ) { front.initialize($0) }.get()
            let addresses = configuration.interface.addresses.map { "\(SocketEndpoint($0.address, port: configuration.listenPort))" }
            running.answerStatus(
                routes: { front.targets.all.map { .init(domain: $0.domain, target: "\($0.target)", enabled: $0.enabled) } },
                listeners: { addresses.map { .init(kind: "tunnel", address: $0) } },
                metrics: [{ text in text.add(await front.httpTotals()) }])
            for target in configuration.targets.all {
                logger.info("Tunnel registered", metadata: ["domain": "\(target.domain)", "target": "\(target.target)"])
            }
            await contactGateways(running)
            probe.start()
            let reload = AgentReload(configuration, load: load, running: running, front: front)
            await signals.wait(reload: { await reload.run() })
            logger.info("Shutting down")
            probe.stop()
            try? await listener.close().get()
            await open.drain(within: drainLimit, on: running.group.next())
        } catch {
            probe.stop()
            await running.stop()
            throw error
        }
        await running.stop()
        withExtendedLifetime(state) {}
    }

    static func withKeepalive(_ settings: InterfaceSettings) -> InterfaceSettings {
        var settings = settings
        for index in settings.peers.indices where settings.peers[index].endpoint != nil && settings.peers[index].persistentKeepalive == nil
        {
            settings.peers[index].persistentKeepalive = defaultKeepalive
        }
        return settings
    }

    /// Named endpoints are contacted as soon as they are resolved.
    private static func contactGateways(_ running: RunningInterface) async {
        for peer in running.settings.peers {
            guard case .address(let endpoint)? = peer.endpoint else { continue }
            try? await running.interface.contact(peer.publicKey, at: endpoint).get()
        }
    }
}
