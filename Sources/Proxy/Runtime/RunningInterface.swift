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
    /// `nil` without a state directory.
    let timestamps: TimestampStore?
    private let metricsListener: MetricsListener?
    /// Carries the tunnel alone: encryption, TCP, timers. One loop as a rule, or several that share nothing.
    let tunnelGroup: MultiThreadedEventLoopGroup
    /// Carries everything else.
    let group: MultiThreadedEventLoopGroup
    let logger: Logger
    private let role: Role
    private let startedAt = Timestamp.now().seconds

    /// - Parameter onPeerEvent: called on the event loop of the peer.
    init(
        role: Role, common: CommonConfiguration, settings: InterfaceSettings, warnings: [ConfigurationFault], logger: Logger,
        state: StateDirectory?, onPeerEvent: @escaping @Sendable (WireGuardInterface.PeerEvent) -> Void = { _ in }
    ) async throws {
        for warning in warnings { logger.warning("\(warning)") }
        let tunnelGroup = MultiThreadedEventLoopGroup(numberOfThreads: common.loops)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: max(1, System.coreCount - common.loops))
        let timestamps = state.map { state in
            TimestampStore(
                path: state.file("timestamps"), peers: Set(settings.peers.map(\.publicKey)), eventLoop: group.next(), logger: logger,
                wallTime: { SystemEdges.wallTime })
        }
        let events = InterfaceEvents(timestamps: timestamps, logger: logger)
        var configuration = settings.forInterface(timestamps?.timestamps)
        configuration.cipher = Self.cipher(common.cryptoTransport, logger: logger)
        interface = try await WireGuardInterface.start(
            configuration, onEach: Array(tunnelGroup.makeIterator()), logger: logger
        ) { event in
            events.receive(event)
            onPeerEvent(event)
        }.get()
        admin = try await Self.orClose(interface) {
            guard let state else { return nil }
            return try await AdminSocket.start(path: state.adminSocket, group: group)
        }
        let admin = admin
        let metricsListener: MetricsListener? = try await Self.orClose(interface) {
            guard let endpoint = common.metricsListen else { return nil }
            do {
                return try await MetricsListener.start(endpoint, group: group, logger: logger)
            } catch {
                await admin?.close()
                throw error
            }
        }
        do {
            uapi = try await Self.uapi(common, group, interface, timestamps, logger)
        } catch {
            await metricsListener?.close()
            await admin?.close()
            try? await interface.close().get()
            throw error
        }
        self.metricsListener = metricsListener
        self.timestamps = timestamps
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
                "addresses": .array(settings.addresses.map { "\($0)" }), "loops": .stringConvertible(interface.loopCount),
            ])
    }

    private static func cipher(_ transport: CryptoTransport, logger: Logger) -> TransportCipher {
        guard transport == .fastest else { return .libsodium }
        let speeds = TransportCipher.speeds()
        let choice = TransportCipher.fastest(of: speeds)
        var metadata: Logger.Metadata = ["choice": "\(choice.rawValue)"]
        for speed in speeds { metadata[speed.cipher.rawValue] = "\(speed.nanoseconds) ns a packet" }
        logger.info("Transport encryption measured", metadata: metadata)
        return choice
    }

    private static func orClose<Result>(_ interface: WireGuardInterface, _ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch {
            try? await interface.close().get()
            throw error
        }
    }

    private static func uapi(
        _ common: CommonConfiguration, _ group: any EventLoopGroup, _ interface: WireGuardInterface, _ timestamps: TimestampStore?,
        _ logger: Logger
    ) async throws -> UAPISocket? {
        guard let name = common.interfaceName else { return nil }
        let choice = try UAPIDirectory.choose(environment: ConfigurationInput.processEnvironment)
        let socket = try await UAPISocket.start(
            name: name, directory: choice.directory, group: group,
            service: UAPIService(state: { interface.uapiState() }) { request in
                let applied = interface.apply(request)
                guard let timestamps, request.replacePeers || request.peers.contains(where: \.remove) else { return applied }
                return applied.flatMap { interface.status() }.map { timestamps.forgetAll(but: Set($0.peers.map(\.publicKey))) }
            })
        if let note = choice.note { logger.warning("\(note)") }
        logger.info("UAPI socket opened", metadata: ["path": "\(socket.path)"])
        return socket
    }

    /// Answers `status` and `metrics`, on the admin socket and the listener for metrics.
    /// - Parameter metrics: what the role has to add to those of the interface.
    func answerStatus(
        routes: @escaping @Sendable () -> [Status.Route], listeners: @escaping @Sendable () -> [Status.Listener],
        certificates: (@Sendable () async -> [CertificateList.Entry])? = nil, metrics: [MetricsProvider] = []
    ) {
        let status: @Sendable () async throws -> Status = { [self] in
            var status = try await self.status(routes: routes(), listeners: listeners())
            status.certificates = await certificates?()
            return status
        }
        let text: @Sendable () async throws -> MetricsText = { [self] in
            var text = MetricsText()
            text.addProcess(role: role.rawValue, version: KakuremichiCommand.version, startedAt: UInt64(clamping: startedAt))
            text.add(try await interface.status().get())
            for provider in metrics { await provider(&text) }
            return text
        }
        admin?.registerStream("status") { _, stream in try await stream.answer(try await status().parts) }
        admin?.registerStream("metrics") { _, stream in try await stream.answer(try await text().parts) }
        admin?.register("connections") { [self] _ in
            let (connections, more) = try await interface.connections(limit: ConnectionList.limit).get()
            let list = ConnectionList(
                role: role.rawValue, processID: Int(getpid()), connections: connections.map(ConnectionList.Connection.init), more: more)
            return Array(try JSONEncoder().encode(list))
        }
        admin?.register("forget-timestamp") { [self] request in try await forgetTimestamp(request.arguments?["peer"] ?? "") }
        admin?.registerStream(CaptureVerb.name) { [interface, logger] request, stream in
            try await CaptureVerb.run(request, stream, interface: interface, logger: logger)
        }
        metricsListener?.serve(
            metrics: { Array(try await text().text.utf8) }, status: { Array(try JSONEncoder().encode(try await status())) })
    }

    private func forgetTimestamp(_ text: String) async throws -> [UInt8] {
        guard let peer = PublicKey(base64: text) else {
            throw AdminFault(error: "\"\(LogText.escape(text, limit: 100))\" is not a public key; write the peer's 44 characters")
        }
        timestamps?.forget(peer)
        guard try await interface.forgetTimestamp(of: peer).get() else {
            throw AdminFault(error: "there is no peer \(peer); kakuremichi status shows those that there are")
        }
        logger.notice("The last timestamp of a peer is forgotten", metadata: ["peer": "\(peer)"])
        return Array("{}".utf8)
    }

    func status(routes: [Status.Route], listeners: [Status.Listener]) async throws -> Status {
        let now = try await interface.status().get()
        let counts: [(String, Int)] = [
            ("tcp connections", now.tcpConnections), ("tcp time-wait", now.timeWaitConnections), ("tcp buffered bytes", now.bufferedBytes),
            ("udp datagrams sent", now.datagramsSent), ("udp datagrams received", now.datagramsReceived),
            ("udp send errors", now.sendErrors),
            ("handed to another loop: initiations", Int(clamping: now.counters.initiationsHandedOver)),
            ("handed to another loop: misdirected", Int(clamping: now.counters.misdirectedMessages)),
        ]
        var counters = Dictionary(now.drops.map { ("dropped: \($0.reason)", $0.count) }, uniquingKeysWith: { $0 &+ $1 })
        for (name, count) in counts where count > 0 { counters[name] = UInt64(count) }
        for (outcome, count) in Status.handshakes(now.counters) where count > 0 { counters["handshakes: \(outcome)"] = count }
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
                    hasSession: peer.hasSession,
                    handshakes: Dictionary(Status.handshakes(peer.handshakes).map { ($0.outcome, $0.count) }) { $0 &+ $1 },
                    refusedTimestamps: peer.refusedTimestamps == 0 ? nil : peer.refusedTimestamps,
                    refusedTimestampBehind: peer.refusedTimestampBehind?.inSeconds)
            }, routes: routes, listeners: listeners, counters: counters,
            isUnderLoad: now.isUnderLoad, queuedHandshakes: now.queuedHandshakes)
    }

    /// Closes the tunnel. The event loops run on: what is being torn down may still hop between them, and the process ends next.
    func stop() async {
        await uapi?.close()
        await admin?.close()
        await metricsListener?.close()
        // What has been taken from an application is delivered: its connections are closed, their last bytes may be under way.
        try? await interface.drain(within: Self.drainLimit).get()
        try? await interface.close().get()
        timestamps?.save()
    }

    /// A peer that takes the last bytes of a connection slowly has so long for them.
    static let drainLimit = TimeAmount.seconds(10)
}

extension InterfaceSettings {
    func forInterface(_ timestamps: TimestampStore.Timestamps?) -> InterfaceConfiguration {
        var result = InterfaceConfiguration(
            privateKey: privateKey, addresses: addresses, listenPort: listenPort, mtu: mtu,
            peers: peers.map {
                InterfaceConfiguration.Peer(
                    publicKey: $0.publicKey, presharedKey: $0.presharedKey, endpoint: $0.endpoint, allowedIPs: $0.allowedIPs,
                    persistentKeepalive: $0.persistentKeepalive)
            })
        result.lastSentTimestamp = timestamps?.sent
        for index in result.peers.indices { result.peers[index].lastTimestamp = timestamps?.accepted[result.peers[index].publicKey] }
        return result
    }
}
