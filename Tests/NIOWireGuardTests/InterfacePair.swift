import Inet
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import TCPStack
import Testing
import WGUserspace

/// A gateway and an agent that know each other.
struct InterfacePair {
    let gateway: WireGuardInterface
    let agent: WireGuardInterface
    let group: MultiThreadedEventLoopGroup

    /// - Parameters:
    ///   - agentCipher: what the agent seals and opens with.
    ///   - timeSuspended: the agent's clock of suspensions.
    init(
        threads: Int = 1, family: IPAddress.Family = .v4, agentCipher: TransportCipher = .libsodium,
        timeSuspended: @escaping @Sendable () -> Duration = SystemEdges.timeSuspended
    ) async throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: threads)
        let gatewayKey = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let agentKey = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let isSix = family == .v6
        let gatewayAddress = try #require(InterfaceAddress(isSix ? "fd00::fe/64" : "10.1.0.254/24"))
        let agentAddress = try #require(InterfaceAddress(isSix ? "fd00::2/64" : "10.1.0.2/24"))
        gateway = try await WireGuardInterface.start(
            InterfaceConfiguration(
                privateKey: gatewayKey, addresses: [gatewayAddress],
                peers: [.init(publicKey: agentKey.key.publicKey, allowedIPs: [IPPrefix(host: agentAddress.address)])]),
            on: group.next()
        ).get()
        let endpoint = try #require(PeerEndpoint("127.0.0.1:\(gateway.listenPort)"))
        var agentConfiguration = InterfaceConfiguration(
            privateKey: agentKey, addresses: [agentAddress],
            peers: [
                .init(
                    publicKey: gateway.publicKey, endpoint: endpoint, allowedIPs: [IPPrefix(host: gatewayAddress.address)],
                    persistentKeepalive: .seconds(25))
            ])
        agentConfiguration.cipher = agentCipher
        agent = try await WireGuardInterface.start(
            agentConfiguration, on: group.next(), resolveHost: SystemEdges.resolveHost, timeSuspended: timeSuspended
        ).get()
    }

    var agentEndpoint: SocketEndpoint { SocketEndpoint(agent.addresses[0].address, port: 80) }

    func shutdown() async throws {
        try await gateway.close().get()
        try await agent.close().get()
        try await group.shutdownGracefully()
    }
}

extension WireGuardInterface {
    /// A connection whose pipeline is as `initializer` makes it.
    func dial(
        _ remote: SocketEndpoint, on loop: (any EventLoop)? = nil, options: ConnectionOptions = .patient,
        _ initializer: @escaping @Sendable (any Channel) throws -> Void = { _ in }
    ) async throws -> any Channel {
        try await connect(to: remote, options: options, on: loop) { channel in
            channel.eventLoop.makeCompletedFuture { try initializer(channel) }
        }.get()
    }
}

extension ConnectionOptions {
    /// A machine that is busy with other tests may take longer than three seconds for a handshake and a SYN.
    static var patient: ConnectionOptions {
        var options = ConnectionOptions.tunnelDefault
        options.connectTimeout = .seconds(20)
        return options
    }
}
