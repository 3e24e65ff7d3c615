import Inet
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import Proxy
import Synchronization
import TCPStack
import Testing
import WGUserspace

/// A gateway's interface, an agent's interface, and a target of 127.0.0.1 behind it, to which a relay or what a test wants leads.
struct TunnelFixture {
    let gateway: WireGuardInterface
    let agent: WireGuardInterface
    let target: UpstreamTarget
    let relay: TunnelRelay
    /// Connections that the target has got.
    let origins: AsyncStream<RawEnd>
    /// The accepted connections of the agent.
    let accepted: AsyncStream<any Channel>
    private let origin: any Channel
    private static let group = MultiThreadedEventLoopGroup.singleton

    /// - Parameter initializer: of accepted channels, nil is the relay's.
    init(
        connector: @escaping UpstreamConnector = OriginDialer.connector(halfClosure: true), patience: TimeAmount = .seconds(50),
        initializer: ((UpstreamTarget) -> @Sendable (any Channel) -> EventLoopFuture<Void>)? = nil
    ) async throws {
        func interface(
            _ key: borrowing PrivateKey, _ address: IPAddress, _ peer: InterfaceConfiguration.Peer
        ) async throws -> WireGuardInterface {
            let own = try #require(InterfaceAddress("\(address)/24"))
            return try await WireGuardInterface.start(
                InterfaceConfiguration(privateKey: StoredPrivateKey(key.copy()), addresses: [own], peers: [peer]),
                on: Self.group.next()
            ).get()
        }
        let gatewayKey = PrivateKey.generate(using: SystemEdges.random)
        let agentKey = PrivateKey.generate(using: SystemEdges.random)
        gateway = try await interface(
            gatewayKey, Self.gatewayAddress, .init(publicKey: agentKey.publicKey, allowedIPs: [IPPrefix(host: Self.agentAddress)]))
        let endpoint = SocketEndpoint(Loopback.localhost, port: gateway.listenPort)
        agent = try await interface(
            agentKey, Self.agentAddress,
            .init(publicKey: gatewayKey.publicKey, endpoint: .address(endpoint), allowedIPs: [IPPrefix(host: Self.gatewayAddress)]))
        try await gateway.contact(agentKey.publicKey, at: SocketEndpoint(Loopback.localhost, port: agent.listenPort)).get()

        let (origins, gotOrigin) = AsyncStream.makeStream(of: RawEnd.self)
        self.origins = origins
        origin = try await ServerBootstrap(group: Self.group)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let end = RawEnd(channel)
                    try channel.pipeline.syncOperations.addHandler(end)
                    gotOrigin.yield(end)
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let originPort = UInt16(clamping: origin.localAddress?.port ?? 0)
        target = UpstreamTarget(address: Loopback.localhost, port: originPort)
        relay = TunnelRelay(to: target, connector: connector, patience: patience, logger: .silent)
        let (accepted, accept) = AsyncStream.makeStream(of: (any Channel).self)
        self.accepted = accepted
        let relay = relay
        var initialize: @Sendable (any Channel) -> EventLoopFuture<Void> = { channel in relay.initialize(channel) }
        if let initializer { initialize = initializer(target) }
        let initializeChannel = initialize
        _ = try await agent.listen(port: 80) { channel in
            accept.yield(channel)
            return initializeChannel(channel)
        }.get()
    }

    /// A connection of the gateway to the agent.
    func dial() async throws -> RawEnd {
        var options = ConnectionOptions.tunnelDefault
        options.connectTimeout = .seconds(20)
        let end = Mutex<RawEnd?>(nil)
        _ = try await gateway.connect(to: SocketEndpoint(Self.agentAddress, port: 80), options: options) { channel in
            channel.eventLoop.makeCompletedFuture {
                let new = RawEnd(channel)
                end.withLock { $0 = new }
                try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
                try channel.pipeline.syncOperations.addHandler(new)
            }
        }.get()
        return try #require(end.withLock { $0 })
    }

    /// A connection of the gateway, joined with one of the target. They have exchanged a letter.
    func join() async throws -> (client: RawEnd, origin: RawEnd) {
        let client = try await dial()
        let origin = try await greet(client)
        return (client, origin)
    }

    /// The first letters on a new connection, which lead it to the target.
    func greet(_ client: RawEnd) async throws -> RawEnd {
        client.write("?")
        var origins = origins.makeAsyncIterator()
        let origin = try #require(await origins.next())
        _ = try await origin.see { $0.text == "?" }
        origin.write("!")
        _ = try await client.see { $0.text == "!" }
        for end in [client, origin] { end.forget() }
        return origin
    }

    func closeOrigin() async throws { try await origin.close() }

    func shutdown() async throws {
        try? await origin.close()
        try await gateway.close().get()
        try await agent.close().get()
    }

    private static let gatewayAddress = IPAddress(v4: 10, 1, 0, 254)
    private static let agentAddress = IPAddress(v4: 10, 1, 0, 2)
}

/// The end of a connection that a test drives: it keeps what it sees.
final class RawEnd: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    struct Seen: Sendable {
        var count = 0
        /// The first of the bytes.
        var text = ""
        var isInputClosed = false
        var isClosed = false
        var hasFailed = false
    }

    let channel: any Channel
    private struct State {
        var seen = Seen()
        var waiters: [(condition: @Sendable (Seen) -> Bool, promise: EventLoopPromise<Seen>)] = []
    }
    private let state = Mutex(State())

    init(_ channel: any Channel) { self.channel = channel }

    /// Bytes are counted from here on.
    func forget() {
        change {
            $0.count = 0
            $0.text = ""
        }
    }

    /// Waits until it has seen this.
    func see(_ condition: @escaping @Sendable (Seen) -> Bool) async throws -> Seen {
        let promise = channel.eventLoop.makePromise(of: Seen.self)
        change { _ in
        } adding: {
            $0.append((condition, promise))
        }
        return try await promise.futureResult.get()
    }

    func write(_ text: String) { channel.writeAndFlush(ByteBuffer(string: text), promise: nil) }

    /// - Returns: succeeds when the last byte has left.
    @discardableResult
    func write(megabytes: Int) -> EventLoopFuture<Void> {
        let piece = ByteBuffer(repeating: 0x61, count: 64 * 1024)
        for _ in 0..<(16 * megabytes) { channel.write(piece, promise: nil) }
        return channel.writeAndFlush(ByteBuffer())
    }

    func closeOutput() { channel.close(mode: .output, promise: nil) }
    func close() { channel.close(promise: nil) }

    func reset() {
        if let socket = channel as? any SocketOptionProvider {
            socket.setSoLinger(.init(l_onoff: 1, l_linger: 0)).whenComplete { _ in self.close() }
        } else {
            channel.triggerUserOutboundEvent(WireGuardChannel.AbortEvent(), promise: nil)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        change {
            $0.count += bytes.readableBytes
            if $0.text.utf8.count < 1000 {
                $0.text += String(buffer: bytes.getSlice(at: bytes.readerIndex, length: min(bytes.readableBytes, 1000)) ?? bytes)
            }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event as? ChannelEvent == .inputClosed { change { $0.isInputClosed = true } }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        change { $0.hasFailed = true }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { change { $0.isClosed = true } }

    private func change(
        _ body: (inout Seen) -> Void,
        adding: (inout [(condition: @Sendable (Seen) -> Bool, promise: EventLoopPromise<Seen>)]) -> Void = { _ in }
    ) {
        let (seen, ready) = state.withLock { state in
            body(&state.seen)
            adding(&state.waiters)
            let ready = state.waiters.filter { $0.condition(state.seen) }.map(\.promise)
            state.waiters.removeAll { $0.condition(state.seen) }
            return (state.seen, ready)
        }
        for promise in ready { promise.succeed(seen) }
    }
}
