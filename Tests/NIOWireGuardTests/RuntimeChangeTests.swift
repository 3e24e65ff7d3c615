import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import TCPStack
import Testing
import WGUserspace

/// Changes of an interface and its peers while traffic flows.
@Suite(.timeLimit(.minutes(1))) struct RuntimeChangeTests {
    /// An endless echo from the gateway through the agent: what comes back is sent again, until it is stopped.
    final class Pump: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let state = NIOLockedValueBox((received: 0, waiting: [(count: Int, promise: EventLoopPromise<Void>)]()))
        private let chunk: Int
        init(chunk: Int) { self.chunk = chunk }

        func channelActive(context: ChannelHandlerContext) {
            context.writeAndFlush(NIOAny(ByteBuffer(repeating: 1, count: chunk)), promise: nil)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let count = unwrapInboundIn(data).readableBytes
            let ready = state.withLockedValue { state in
                state.received += count
                let total = state.received
                defer { state.waiting.removeAll { $0.count <= total } }
                return state.waiting.filter { $0.count <= total }.map(\.promise)
            }
            for promise in ready { promise.succeed(()) }
            context.writeAndFlush(data, promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) {
            for waiting in state.withLockedValue({ $0.waiting }) { waiting.promise.fail(ChannelError.eof) }
        }

        /// Waits until `count` more bytes have gone round.
        func moves(_ count: Int, on loop: any EventLoop) async throws {
            let promise = loop.makePromise(of: Void.self)
            state.withLockedValue { $0.waiting.append(($0.received + count, promise)) }
            try await promise.futureResult.get()
        }
    }

    /// Two interfaces and a transfer between them.
    struct Flow {
        let pair: InterfacePair
        let pump: Pump
        let channel: any Channel

        init(family: IPAddress.Family = .v4, chunk: Int = 100_000) async throws {
            let pair = try await InterfacePair(family: family)
            let pump = Pump(chunk: chunk)
            _ = try await pair.agent.listen(port: 80) { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler()) }
            }.get()
            channel = try await pair.gateway.dial(pair.agentEndpoint) { try $0.pipeline.syncOperations.addHandler(pump) }
            self.pair = pair
            self.pump = pump
            try await moves()
        }

        func moves(_ count: Int = 1_000_000) async throws { try await pump.moves(count, on: channel.eventLoop) }

        func handshakes() async throws -> [Instant?] {
            [try await pair.gateway.status().get(), try await pair.agent.status().get()].map { $0.peers.first?.lastHandshake }
        }

        func end() async throws {
            try await channel.close()
            try await pair.shutdown()
        }
    }

    @Test("the port moves under a transfer: its connection and session go on, the peer follows", arguments: [true, false])
    func portMoves(ofGateway: Bool) async throws {
        let flow = try await Flow()
        let before = try await flow.handshakes()
        let (mover, other) = ofGateway ? (flow.pair.gateway, flow.pair.agent) : (flow.pair.agent, flow.pair.gateway)
        let former = mover.listenPort
        let port = try await mover.setListenPort(0).get()
        #expect(port != former && mover.listenPort == port)
        try await flow.moves()
        #expect(try await other.status().get().peers.first?.endpoint?.port == port)
        #expect(try await flow.handshakes() == before)
        try await flow.end()
    }

    @Test("a port that is taken is refused with the reason, and the transfer goes on")
    func portTaken() async throws {
        let flow = try await Flow()
        let (former, taken) = (flow.pair.gateway.listenPort, flow.pair.agent.listenPort)
        await #expect(throws: InterfaceError.bindFailed(port: taken, errno: 98)) {
            _ = try await flow.pair.gateway.setListenPort(taken).get()
        }
        #expect(flow.pair.gateway.listenPort == former)
        try await flow.moves()
        try await flow.end()
    }

    @Test("peers come, change and go while traffic flows; the one that is not touched keeps session and connection")
    func peersChange() async throws {
        let flow = try await Flow()
        let before = try await flow.handshakes()
        let third = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let address = try #require(InterfaceAddress("10.1.0.3/24"))
        let gateway = flow.pair.gateway
        for round in 0..<3 {
            try await gateway.setPeer(.init(publicKey: third.key.publicKey, allowedIPs: [IPPrefix(host: address.address)])).get()
            let interface = try await WireGuardInterface.start(
                InterfaceConfiguration(
                    privateKey: third, addresses: [address],
                    peers: [
                        .init(
                            publicKey: gateway.publicKey, endpoint: PeerEndpoint("127.0.0.1:\(gateway.listenPort)"),
                            allowedIPs: [IPPrefix(host: gateway.addresses[0].address)])
                    ]), on: flow.pair.group.next()
            ).get()
            _ = try await interface.listen(port: 80) { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler()) }
            }.get()
            let pump = Pump(chunk: 1000)
            try await interface.contact(gateway.publicKey, at: SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: gateway.listenPort)).get()
            let second = try await gateway.dial(SocketEndpoint(address.address, port: 80)) {
                try $0.pipeline.syncOperations.addHandler(pump)
            }
            try await pump.moves(10_000, on: second.eventLoop)
            try await flow.moves(100_000)
            // Another keepalive changes the peer and ends nothing.
            try await gateway.setPeer(
                .init(
                    publicKey: third.key.publicKey, allowedIPs: [IPPrefix(host: address.address)], persistentKeepalive: .seconds(20 + round)
                )
            ).get()
            try await pump.moves(10_000, on: second.eventLoop)
            try await gateway.removePeer(third.key.publicKey).get()
            try await second.closeFuture.get()
            try await interface.close().get()
        }
        try await flow.moves()
        #expect(try await flow.handshakes() == before)
        try await flow.end()
    }

    @Test("a new private key ends the sessions; the peer that is told of it is reached again")
    func privateKeyChanges() async throws {
        let flow = try await Flow()
        let pair = flow.pair
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let old = pair.gateway.publicKey
        try await pair.gateway.setPrivateKey(key).get()
        #expect(pair.gateway.publicKey == key.key.publicKey)
        #expect(try await pair.gateway.status().get().peers.map(\.hasSession) == [false])
        try await pair.agent.removePeer(old).get()
        try await pair.agent.setPeer(
            .init(
                publicKey: key.key.publicKey, endpoint: PeerEndpoint("127.0.0.1:\(pair.gateway.listenPort)"),
                allowedIPs: [IPPrefix(host: pair.gateway.addresses[0].address)], persistentKeepalive: .seconds(25))
        ).get()
        let pump = Pump(chunk: 1000)
        let channel = try await pair.gateway.dial(pair.agentEndpoint) { try $0.pipeline.syncOperations.addHandler(pump) }
        try await pump.moves(10_000, on: channel.eventLoop)
        try await channel.close()
        // The agent may have reset it under the new key.
        flow.channel.close(promise: nil)
        try await pair.shutdown()
    }

    @Test("a private key whose public key is a peer's removes that peer and ends its connections")
    func privateKeyOfPeer() async throws {
        let flow = try await Flow()
        let twin = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let gateway = flow.pair.gateway
        try await gateway.setPeer(
            .init(publicKey: twin.key.publicKey, allowedIPs: [IPPrefix(host: flow.pair.agent.addresses[0].address)])
        ).get()
        // The agent's connection has ended with its address; the twin's prefix goes with it.
        try await flow.channel.closeFuture.get()
        try await gateway.setPrivateKey(twin).get()
        #expect(try await gateway.status().get().peers.map(\.publicKey) == [flow.pair.agent.publicKey])
        try await flow.pair.shutdown()
    }

    @Test("an inner address that goes ends its connections; the others and new ones go on")
    func addressesChange() async throws {
        let flow = try await Flow()
        let pair = flow.pair
        let former = try #require(pair.gateway.addresses.first)
        let second = try #require(InterfaceAddress("10.1.0.253/24"))
        try await pair.agent.setPeer(
            .init(publicKey: pair.gateway.publicKey, allowedIPs: [former, second].map { IPPrefix(host: $0.address) })
        ).get()
        try await pair.gateway.setAddresses([former, second]).get()
        try await flow.moves()
        try await pair.gateway.setAddresses([second]).get()
        #expect(pair.gateway.addresses == [second])
        try await flow.channel.closeFuture.get()
        let pump = Pump(chunk: 1000)
        let channel = try await pair.gateway.dial(pair.agentEndpoint) { try $0.pipeline.syncOperations.addHandler(pump) }
        try await pump.moves(10_000, on: channel.eventLoop)
        #expect(channel.localAddress?.ipAddress == "10.1.0.253")
        try await channel.close()
        try await pair.shutdown()
    }

    @Test("a closed interface refuses changes")
    func closed() async throws {
        let pair = try await InterfacePair()
        try await pair.agent.close().get()
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        await #expect(throws: TunnelError.interfaceClosed) { try await pair.agent.setPrivateKey(key).get() }
        await #expect(throws: TunnelError.interfaceClosed) { _ = try await pair.agent.setListenPort(0).get() }
        await #expect(throws: TunnelError.interfaceClosed) { try await pair.agent.setAddresses([]).get() }
        #expect(try await pair.agent.forgetTimestamp(of: pair.gateway.publicKey).get() == false)
        #expect(try await pair.gateway.forgetTimestamp(of: pair.agent.publicKey).get())
        try await pair.shutdown()
    }
}
