import Inet
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import TCPStack
import Testing
import WGUserspace

/// A gateway with several loops, and agents of one loop each: agent number n is a peer of the gateway's loop n.
struct LoopFixture {
    /// Who knows where the other is.
    enum Initiator { case agents, gateway }

    let gateway: WireGuardInterface
    let agents: [WireGuardInterface]
    let group: MultiThreadedEventLoopGroup
    let family: IPAddress.Family

    /// - Parameters:
    ///   - outer: the family of the datagrams.
    ///   - sharing: the kernel's part.
    init(
        loops: Int = 2, outer: IPAddress.Family = .v4, initiator: Initiator = .agents, sharing: PortSharing = PortSharing(),
        logger: Logger = Logger(label: "wireguard"), onPeerEvent: @escaping @Sendable (WireGuardInterface.PeerEvent) -> Void = { _ in }
    ) async throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: loops + 1)
        family = outer
        let host = outer == .v4 ? "127.0.0.1" : "[::1]"
        let keys = try (0..<loops).map { loop in
            let keys = (0..<1000).lazy.map { _ in StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random)) }
            return try #require(keys.first { LoopShare(0, of: loops).loop(of: $0.key.publicKey) == loop })
        }
        let gatewayKey = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let address = try #require(InterfaceAddress("10.1.0.254/24"))
        let agentGroup = group.next()
        agents = try await withThrowingTaskGroup(of: (Int, WireGuardInterface).self) { tasks in
            for (number, key) in keys.enumerated() {
                let configuration = InterfaceConfiguration(privateKey: key, addresses: [try Self.agentAddress(number)], peers: [])
                tasks.addTask { (number, try await WireGuardInterface.start(configuration, on: agentGroup).get()) }
            }
            return try await tasks.reduce(into: []) { $0.append($1) }.sorted { $0.0 < $1.0 }.map(\.1)
        }
        let peers = try zip(keys, agents).enumerated().map { number, pair in
            InterfaceConfiguration.Peer(
                publicKey: pair.0.key.publicKey,
                endpoint: initiator == .gateway ? PeerEndpoint("\(host):\(pair.1.listenPort)") : nil,
                allowedIPs: [IPPrefix(host: try Self.agentAddress(number).address)])
        }
        let loopGroup = group
        gateway = try await WireGuardInterface.start(
            InterfaceConfiguration(privateKey: gatewayKey, addresses: [address], peers: peers),
            onEach: (0..<loops).map { _ in loopGroup.next() }, logger: logger, sharing: sharing, onPeerEvent: onPeerEvent
        ).get()
        for agent in agents {
            try await agent.setPeer(
                .init(
                    publicKey: gateway.publicKey,
                    endpoint: initiator == .agents ? PeerEndpoint("\(host):\(gateway.listenPort)") : nil,
                    allowedIPs: [IPPrefix(host: address.address)], persistentKeepalive: initiator == .agents ? .seconds(25) : nil)
            ).get()
            _ = try await agent.listen(port: 80) { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler()) }
            }.get()
        }
    }

    static func agentAddress(_ number: Int) throws -> InterfaceAddress { try #require(InterfaceAddress("10.1.0.\(number + 1)/24")) }

    func endpoint(_ number: Int) throws -> SocketEndpoint { SocketEndpoint(try Self.agentAddress(number).address, port: 80) }

    /// Bytes that go to an agent and come back, and go again, while somebody waits for it. Otherwise it rests, so that other tests have the
    /// machine.
    final class Pump: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let state = NIOLockedValueBox<(left: Int, done: EventLoopPromise<Void>?)>((0, nil))

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let buffer = unwrapInboundIn(data)
            let (goesOn, done) = state.withLockedValue { state in
                guard state.left > 0 else { return (false, nil as EventLoopPromise<Void>?) }
                state.left -= buffer.readableBytes
                guard state.left <= 0 else { return (true, nil) }
                defer { state.done = nil }
                return (false, state.done)
            }
            if goesOn { context.writeAndFlush(data, promise: nil) }
            done?.succeed(())
        }

        func channelInactive(context: ChannelHandlerContext) { state.withLockedValue { $0.done }?.fail(ChannelError.eof) }

        /// Waits until `count` bytes have come back.
        func moves(_ count: Int, over channel: any Channel) async throws {
            let done = channel.eventLoop.makePromise(of: Void.self)
            state.withLockedValue { $0 = (count, done) }
            channel.writeAndFlush(ByteBuffer(repeating: 1, count: Swift.min(count, 50_000)), promise: nil)
            if !channel.isActive { done.fail(ChannelError.eof) }
            try await done.futureResult.get()
        }
    }

    struct Flow {
        let pump: Pump
        let channel: any Channel
        func moves(_ count: Int = 500_000) async throws { try await pump.moves(count, over: channel) }
    }

    func flow(_ number: Int, on loop: (any EventLoop)? = nil) async throws -> Flow {
        let pump = Pump()
        let channel = try await gateway.dial(try endpoint(number), on: loop) { try $0.pipeline.syncOperations.addHandler(pump) }
        return Flow(pump: pump, channel: channel)
    }

    /// All of them at the same time.
    static func move(_ flows: [Flow], _ count: Int = 500_000) async throws {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for flow in flows { tasks.addTask { try await flow.moves(count) } }
            try await tasks.waitForAll()
        }
    }

    /// One with each agent, under way.
    func flows() async throws -> [Flow] {
        var flows: [Flow] = []
        for number in agents.indices { flows.append(try await flow(number)) }
        for flow in flows { try await flow.moves(1) }
        return flows
    }

    func shutdown() async throws {
        try await gateway.close().get()
        for agent in agents { try await agent.close().get() }
        try await group.shutdownGracefully()
    }
}
