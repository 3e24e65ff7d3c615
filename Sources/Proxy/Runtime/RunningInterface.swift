import FoundationEssentials
import Glibc
import Inet
import Logging
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import WGUserspace

/// What every role has while it runs: locked state directory, WireGuard interface, admin socket; and the way down.
final class RunningInterface: Sendable {
    let settings: InterfaceSettings
    let interface: WireGuardInterface
    let state: StateDirectory?
    let admin: AdminSocket?
    /// Where `wg` finds the interface, if it is to.
    let uapi: UAPISocket?
    /// Carries the tunnel alone: encryption, TCP, timers.
    let tunnelGroup: MultiThreadedEventLoopGroup
    /// Carries everything else.
    let group: MultiThreadedEventLoopGroup
    let logger: Logger
    private let role: Role
    private let startedAt = Timestamp.now().seconds

    /// - Parameter onPeerEvent: called on the interface's event loop.
    init(
        role: Role, common: CommonConfiguration, settings: InterfaceSettings, warnings: [ConfigurationFault], logger: Logger,
        state: StateDirectory?, onPeerEvent: @escaping @Sendable (WireGuardInterface.PeerEvent) -> Void = { _ in }
    ) async throws {
        for warning in warnings { logger.warning("\(warning)") }
        let tunnelGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: max(1, System.coreCount - 1))
        interface = try await WireGuardInterface.start(settings.forInterface, on: tunnelGroup.next(), logger: logger) { event in
            Self.log(event, logger)
            onPeerEvent(event)
        }.get()
        admin = try await Self.admin(state, group, closing: interface)
        do {
            uapi = try await Self.uapi(common, group, interface, logger)
        } catch {
            await admin?.close()
            try? await interface.close().get()
            throw error
        }
        self.tunnelGroup = tunnelGroup
        self.group = group
        self.role = role
        self.settings = settings
        self.state = state
        self.logger = logger
        logger.info(
            "WireGuard interface started",
            metadata: [
                "publicKey": "\(interface.publicKey)", "port": .stringConvertible(interface.listenPort),
                "addresses": .array(settings.addresses.map { "\($0)" }),
            ])
    }

    private static func admin(
        _ state: StateDirectory?, _ group: any EventLoopGroup, closing interface: WireGuardInterface
    ) async throws -> AdminSocket? {
        guard let state else { return nil }
        do {
            return try await AdminSocket.start(path: state.adminSocket, group: group)
        } catch {
            try? await interface.close().get()
            throw error
        }
    }

    private static func uapi(
        _ common: CommonConfiguration, _ group: any EventLoopGroup, _ interface: WireGuardInterface, _ logger: Logger
    ) async throws -> UAPISocket? {
        guard let name = common.interfaceName else { return nil }
        let choice = try UAPIDirectory.choose(environment: ConfigurationInput.processEnvironment)
        let socket = try await UAPISocket.start(
            name: name, directory: choice.directory, group: group,
            service: UAPIService(state: { interface.uapiState() }, apply: { interface.apply($0) }))
        if let note = choice.note { logger.warning("\(note)") }
        logger.info("UAPI socket opened", metadata: ["path": "\(socket.path)"])
        return socket
    }

    /// Answers `status` on the admin socket.
    func answerStatus(routes: @escaping @Sendable () -> [Status.Route], listeners: @escaping @Sendable () -> [Status.Listener]) {
        admin?.register("status") { [self] _ in
            Array(try JSONEncoder().encode(try await status(routes: routes(), listeners: listeners())))
        }
    }

    func status(routes: [Status.Route], listeners: [Status.Listener]) async throws -> Status {
        let now = try await interface.status().get()
        let counts: [(String, Int)] = [
            ("tcp connections", now.tcpConnections), ("tcp time-wait", now.timeWaitConnections), ("tcp buffered bytes", now.bufferedBytes),
            ("udp datagrams sent", now.datagramsSent), ("udp datagrams received", now.datagramsReceived),
            ("udp send errors", now.sendErrors),
        ]
        var counters = Dictionary(now.drops.map { ("dropped: \($0.reason)", $0.count) }, uniquingKeysWith: { $0 &+ $1 })
        for (name, count) in counts where count > 0 { counters[name] = UInt64(count) }
        return Status(
            role: role.rawValue, version: KakuremichiCommand.version, processID: Int(getpid()), startedAt: startedAt,
            now: Timestamp.now().seconds,
            interface: .init(
                publicKey: interface.publicKey.base64, addresses: settings.addresses.map(\.description),
                listenPort: Int(interface.listenPort),
                mtu: settings.mtu),
            peers: now.peers.map { peer in
                Status.Peer(
                    publicKey: peer.publicKey.base64, endpoint: peer.endpoint.map { "\($0)" },
                    allowedIPs: peer.allowedIPs.map(\.description),
                    latestHandshake: peer.lastHandshakeWallTime.map { Int(clamping: $0.seconds) }, receivedBytes: peer.receivedBytes,
                    sentBytes: peer.sentBytes,
                    persistentKeepalive: peer.persistentKeepalive.map { Int($0.components.seconds) }.flatMap { $0 > 0 ? $0 : nil },
                    hasSession: peer.hasSession)
            }, routes: routes, listeners: listeners, counters: counters)
    }

    /// Closes the tunnel. The event loops run on: what is being torn down may still hop between them, and the process ends next.
    func stop() async {
        await uapi?.close()
        await admin?.close()
        try? await interface.close().get()
    }

    private static func log(_ event: WireGuardInterface.PeerEvent, _ logger: Logger) {
        switch event {
        case .sessionEstablished(let peer): logger.debug("Session established", metadata: ["peer": "\(peer)"])
        case .endpointChanged(let peer, let endpoint):
            logger.info("Peer is reached at", metadata: ["peer": "\(peer)", "endpoint": "\(endpoint)"])
        case .handshakeGaveUp(let peer): logger.warning("No answer to the handshake", metadata: ["peer": "\(peer)"])
        case .timestampSent, .timestampAccepted, .timestampRefused, .timestampFarAhead, .underLoad: break
        }
    }
}

extension InterfaceSettings {
    var forInterface: InterfaceConfiguration {
        InterfaceConfiguration(
            privateKey: privateKey, addresses: addresses, listenPort: listenPort, mtu: mtu,
            peers: peers.map {
                InterfaceConfiguration.Peer(
                    publicKey: $0.publicKey, presharedKey: $0.presharedKey, endpoint: $0.endpoint, allowedIPs: $0.allowedIPs,
                    persistentKeepalive: $0.persistentKeepalive)
            })
    }
}
