import Inet
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import Proxy
import Synchronization
import Testing
import WGUserspace

/// Two interfaces on the loopback device: the gateway's connector towards an agent that lives, thinks for a while, or dies.
@Suite(.timeLimit(.minutes(1))) struct TunnelConnectorTests {
    private let group = MultiThreadedEventLoopGroup.singleton
    private let gatewayAddress = IPAddress(v4: 10, 1, 0, 254)
    private let agentAddress = IPAddress(v4: 10, 1, 0, 2)
    private let patience = {
        var patience = AgentPatience()
        patience.silence = .milliseconds(50)
        patience.answer = .milliseconds(500)
        patience.pause = .milliseconds(50)
        patience.resolution = .milliseconds(10)
        return patience
    }()

    /// Hears how the connection ends.
    private final class Listener: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let error = Mutex<UpstreamFailure?>(nil)
        let firstRead: EventLoopPromise<Void>

        init(_ firstRead: EventLoopPromise<Void>) { self.firstRead = firstRead }

        var failure: UpstreamFailure? { error.withLock { $0 } }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { firstRead.succeed(()) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { self.error.withLock { $0 = error as? UpstreamFailure } }
        func channelInactive(context: ChannelHandlerContext) { firstRead.fail(ChannelError.eof) }
    }

    /// Answers the first bytes after `delay`; `nil` is never.
    private final class Answering: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        let delay: TimeAmount?

        init(after delay: TimeAmount?) { self.delay = delay }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let channel = context.channel
            guard let delay else { return }
            context.eventLoop.scheduleTask(in: delay) { channel.writeAndFlush(ByteBuffer(string: "done"), promise: nil) }
        }
    }

    private func pair() async throws -> (gateway: WireGuardInterface, agent: WireGuardInterface) {
        func configuration(_ key: borrowing PrivateKey, _ address: IPAddress, peer: InterfaceConfiguration.Peer) throws
            -> InterfaceConfiguration
        {
            let own = try #require(InterfaceAddress("\(address)/24"))
            return InterfaceConfiguration(privateKey: StoredPrivateKey(key.copy()), addresses: [own], peers: [peer])
        }
        let gatewayKey = PrivateKey.generate(using: SystemEdges.random)
        let agentKey = PrivateKey.generate(using: SystemEdges.random)
        let gateway = try await WireGuardInterface.start(
            configuration(
                gatewayKey, gatewayAddress, peer: .init(publicKey: agentKey.publicKey, allowedIPs: [IPPrefix(host: agentAddress)])),
            on: group.next()
        ).get()
        let endpoint = SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: gateway.listenPort)
        let agent = try await WireGuardInterface.start(
            configuration(
                agentKey, agentAddress,
                peer: .init(publicKey: gatewayKey.publicKey, endpoint: .address(endpoint), allowedIPs: [IPPrefix(host: gatewayAddress)])),
            on: group.next()
        ).get()
        try await gateway.contact(agentKey.publicKey, at: SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: agent.listenPort)).get()
        return (gateway, agent)
    }

    private var target: UpstreamTarget { UpstreamTarget(address: agentAddress, port: 80, source: gatewayAddress) }

    @Test("a slow answer of a living agent is waited for")
    func slow() async throws {
        let (gateway, agent) = try await pair()
        _ = try await agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Answering(after: .milliseconds(800))) }
        }.get()
        let channel = try await TunnelConnector(interface: gateway, patience: patience).connector(target, group.next()).get()
        let listener = Listener(channel.eventLoop.makePromise())
        try await channel.pipeline.addHandler(listener).get()
        try await channel.writeAndFlush(ByteBuffer(string: "GET"))
        try await listener.firstRead.futureResult.get()
        #expect(listener.failure == nil)
        try await gateway.close().get()
        try await agent.close().get()
    }

    @Test("an agent that is gone is found out, and a retry does not wait for it again")
    func gone() async throws {
        let (gateway, agent) = try await pair()
        _ = try await agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Answering(after: nil)) }
        }.get()
        let connector = TunnelConnector(interface: gateway, patience: patience).connector
        let channel = try await connector(target, group.next()).get()
        let listener = Listener(channel.eventLoop.makePromise())
        try await channel.pipeline.addHandler(listener).get()
        // From here on it drops without a word what the gateway sends.
        try await agent.removePeer(gateway.publicKey).get()
        channel.writeAndFlush(ByteBuffer(string: "GET"), promise: nil)
        try await channel.closeFuture.get()
        await #expect(throws: UpstreamFailure.self) { try await connector(target, group.next()).get() }
        await #expect(throws: ChannelError.self) { try await listener.firstRead.futureResult.get() }
        #expect(listener.failure == .unreachable("the agent has fallen silent"))
        try await gateway.close().get()
        try await agent.close().get()
    }

    @Test("a port that nobody listens on is refused, a name is not resolved in the tunnel")
    func refused() async throws {
        let (gateway, agent) = try await pair()
        let connector = TunnelConnector(interface: gateway).connector
        await #expect(throws: UpstreamFailure.refused) { try await connector(target, group.next()).get() }
        let name = try #require(UpstreamTarget("localhost:80"))
        await #expect(throws: UpstreamFailure.self) { try await connector(name, group.next()).get() }
        try await gateway.close().get()
        try await agent.close().get()
    }
}
