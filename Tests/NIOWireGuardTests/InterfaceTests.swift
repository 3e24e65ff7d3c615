import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import TCPStack
import Testing
import WGUserspace

/// Peers, host names and the end of an interface.
@Suite(.timeLimit(.minutes(1))) struct InterfaceTests {
    @Test("a removed peer's connections end with an error, another peer's inside the same block go on")
    func removedPeer() async throws {
        let pair = try await InterfacePair()
        let recorder = ChannelTests.Recorder()
        _ = try await pair.agent.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler())
            }
        }.get()
        // A wider block around the agent's address.
        let other = PrivateKey.generate(using: SystemEdges.random).publicKey
        let block = try #require(IPPrefix("10.1.0.0/24"))
        try await pair.gateway.setPeer(.init(publicKey: other, allowedIPs: [block])).get()
        let channel = try await pair.gateway.dial(pair.agentEndpoint) { channel in
            try channel.pipeline.syncOperations.addHandler(recorder)
        }
        try await pair.gateway.removePeer(other).get()
        try await channel.writeAndFlush(ByteBuffer(string: "still there"))
        try await recorder.waits(for: "read 11", on: channel.eventLoop)
        try await pair.gateway.removePeer(pair.agent.publicKey).get()
        try await channel.closeFuture.get()
        #expect(recorder.events.contains("error: \(TunnelError.aborted)"))
        let status = try await pair.gateway.status().get()
        #expect(status.peers.isEmpty && status.tcpConnections == 0)
        try await pair.shutdown()
    }

    @Test("an address that another peer takes over ends its connections; the same peer set again keeps them")
    func movedAddress() async throws {
        let pair = try await InterfacePair()
        let recorder = ChannelTests.Recorder()
        _ = try await pair.agent.listen(port: 80) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        let channel = try await pair.gateway.dial(pair.agentEndpoint) { try $0.pipeline.syncOperations.addHandler(recorder) }
        let block = IPPrefix(host: pair.agent.addresses[0].address)
        try await pair.gateway.setPeer(.init(publicKey: pair.agent.publicKey, allowedIPs: [block])).get()
        try await channel.writeAndFlush(ByteBuffer(string: "x"))
        #expect(channel.isActive)
        let other = PrivateKey.generate(using: SystemEdges.random).publicKey
        try await pair.gateway.setPeer(.init(publicKey: other, allowedIPs: [block])).get()
        try await channel.closeFuture.get()
        #expect(recorder.events.contains("error: \(TunnelError.aborted)"))
        try await pair.shutdown()
    }

    @Test("a closed interface refuses everything, and closing it twice is one end")
    func closed() async throws {
        let pair = try await InterfacePair()
        let interface = pair.agent
        let first = interface.close()
        try await interface.close().get()
        try await first.get()
        await #expect(throws: TunnelError.interfaceClosed) {
            _ = try await interface.listen(port: 80) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        }
        await #expect(throws: TunnelError.interfaceClosed) { _ = try await interface.dial(pair.agentEndpoint) }
        await #expect(throws: TunnelError.interfaceClosed) {
            try await interface.setPeer(.init(publicKey: pair.gateway.publicKey, allowedIPs: [])).get()
        }
        let somewhere = try #require(SocketEndpoint("127.0.0.1:9"))
        await #expect(throws: TunnelError.interfaceClosed) {
            try await interface.contact(pair.gateway.publicKey, at: somewhere).get()
        }
        try await interface.removePeer(pair.gateway.publicKey).get()
        let status = try await interface.status().get()
        #expect(status.peers.isEmpty && status.tcpConnections == 0)
        try await pair.shutdown()
    }

    @Test("a handler that dials while the interface closes is refused")
    func dialWhileClosing() async throws {
        let pair = try await InterfacePair()
        _ = try await pair.agent.listen(port: 80) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        let channels = try await [pair.gateway.dial(pair.agentEndpoint), pair.gateway.dial(pair.agentEndpoint)]
        let refused = pair.gateway.eventLoop.makePromise(of: Void.self)
        let (gateway, endpoint) = (pair.gateway, pair.agentEndpoint)
        channels[0].closeFuture.whenComplete { _ in
            gateway.connect(to: endpoint) { $0.eventLoop.makeSucceededVoidFuture() }.map { _ in }.cascade(to: refused)
        }
        try await gateway.close().get()
        await #expect(throws: TunnelError.interfaceClosed) { try await refused.futureResult.get() }
        for channel in channels { try await channel.closeFuture.get() }
        try await pair.shutdown()
    }

    @Test("a port in use fails the start and leaves nothing behind")
    func startFails() async throws {
        let pair = try await InterfacePair()
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let token = NIOLockedValueBox<WeakToken?>(nil)
        await #expect(throws: InterfaceError.bindFailed(port: pair.gateway.listenPort, errno: 98)) {
            let kept = Token()
            token.withLockedValue { $0 = WeakToken(kept) }
            _ = try await WireGuardInterface.start(
                InterfaceConfiguration(privateKey: key, addresses: pair.agent.addresses, listenPort: pair.gateway.listenPort, peers: []),
                on: pair.group.next(), onPeerEvent: { _ in kept.touch() }
            ).get()
        }
        try await pair.shutdown()
        #expect(token.withLockedValue { $0?.token == nil })
    }

    @Test("a closed interface lets go of its owner's closures, with listeners, connections and host names")
    func closeReleases() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let token = try await Self.makeAndClose(on: group)
        try await group.shutdownGracefully()
        #expect(token.token == nil)
    }

    private static func makeAndClose(on group: MultiThreadedEventLoopGroup) async throws -> WeakToken {
        let kept = Token()
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let peer = PrivateKey.generate(using: SystemEdges.random).publicKey
        let address = try #require(InterfaceAddress("10.1.0.2/24"))
        let interface = try await WireGuardInterface.start(
            InterfaceConfiguration(
                privateKey: key, addresses: [address],
                peers: [
                    .init(
                        publicKey: peer, endpoint: PeerEndpoint("nowhere.invalid:1"),
                        allowedIPs: [IPPrefix(host: address.address)])
                ]), on: group.next(), resolveHost: { _, _ in throw ChannelError.eof }, onPeerEvent: { _ in kept.touch() }
        ).get()
        _ = try await interface.listen(port: 80) { channel in
            kept.touch()
            return channel.eventLoop.makeSucceededVoidFuture()
        }.get()
        try await interface.close().get()
        return WeakToken(kept)
    }

    final class Token: Sendable {
        func touch() {}
    }

    struct WeakToken: @unchecked Sendable {
        weak var token: Token?
        init(_ token: Token) { self.token = token }
    }

    /// Answers look-ups from a list, the last one for ever.
    final class Names: Sendable {
        let answers: NIOLockedValueBox<[[SocketEndpoint]]>
        let count = NIOLockedValueBox(0)
        init(_ answers: [[SocketEndpoint]]) { self.answers = NIOLockedValueBox(answers) }
        func find(_ host: String, _ port: UInt16) throws -> [SocketEndpoint] {
            count.withLockedValue { $0 += 1 }
            return answers.withLockedValue { $0.count > 1 ? $0.removeFirst() : $0.first ?? [] }
        }
    }

    @Test("a host name leads to the peer, and setting the same peer again asks nobody")
    func hostName() async throws {
        let pair = try await InterfacePair()
        _ = try await pair.gateway.listen(port: 80) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let address = try #require(InterfaceAddress("10.1.0.3/24"))
        try await pair.gateway.setPeer(.init(publicKey: key.key.publicKey, allowedIPs: [IPPrefix(host: address.address)])).get()
        let target = try #require(SocketEndpoint("127.0.0.1:\(pair.gateway.listenPort)"))
        let names = Names([[target]])
        let peer = InterfaceConfiguration.Peer(
            publicKey: pair.gateway.publicKey, endpoint: PeerEndpoint("gateway.example:51820"),
            allowedIPs: [IPPrefix(host: pair.gateway.addresses[0].address)], persistentKeepalive: .seconds(25))
        let interface = try await WireGuardInterface.start(
            InterfaceConfiguration(privateKey: key, addresses: [address], peers: [peer]), on: pair.group.next(), resolveHost: names.find
        ).get()
        let channel = try await interface.dial(SocketEndpoint(pair.gateway.addresses[0].address, port: 80))
        try await interface.setPeer(peer).get()
        #expect(try await interface.status().get().peers.first?.endpoint == target)
        #expect(names.count.withLockedValue { $0 } == 1)
        try await channel.close()
        try await interface.close().get()
        try await pair.shutdown()
    }

    @Test("when nobody answers at a name's first address, the retry goes to the next")
    func nextAddress() async throws {
        let pair = try await InterfacePair()
        let listener = try await pair.gateway.listen(port: 80) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let address = try #require(InterfaceAddress("10.1.0.3/24"))
        try await pair.gateway.setPeer(.init(publicKey: key.key.publicKey, allowedIPs: [IPPrefix(host: address.address)])).get()
        let silent = try await DatagramBootstrap(group: pair.group).bind(host: "127.0.0.1", port: 0).get()
        let deadPort = try #require(silent.localAddress?.port)
        let dead = try #require(SocketEndpoint("127.0.0.1:\(deadPort)"))
        let target = try #require(SocketEndpoint("127.0.0.1:\(pair.gateway.listenPort)"))
        let names = Names([[dead, target]])
        let interface = try await WireGuardInterface.start(
            InterfaceConfiguration(
                privateKey: key, addresses: [address],
                peers: [
                    .init(
                        publicKey: pair.gateway.publicKey, endpoint: PeerEndpoint("gateway.example:51820"),
                        allowedIPs: [IPPrefix(host: pair.gateway.addresses[0].address)])
                ]), on: pair.group.next(), resolveHost: names.find
        ).get()
        var options = ConnectionOptions.tunnelDefault
        options.connectTimeout = .seconds(30)
        let channel = try await interface.dial(SocketEndpoint(pair.gateway.addresses[0].address, port: 80), options: options)
        let status = try await interface.status().get()
        #expect(status.peers.first?.endpoint == target)
        #expect(status.counters.initiationsSent == 2 && status.counters.handshakesRetried == 1)
        // The name is asked again, on a thread of its own.
        while names.count.withLockedValue({ $0 }) < 2 { try await pair.group.next().submit {}.get() }
        try await channel.close()
        try await interface.close().get()
        try await listener.close().get()
        try await silent.close()
        try await pair.shutdown()
    }

    @Test("after the machine was suspended all sessions begin anew, and connections go on")
    func suspension() async throws {
        let suspended = NIOLockedValueBox(Duration.seconds(1000))
        let pair = try await InterfacePair { suspended.withLockedValue { $0 } }
        let (agent, loop) = (pair.agent, pair.group.next())
        _ = try await pair.gateway.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler()) }
        }.get()
        let echoed = loop.makePromise(of: Int.self)
        let channel = try await agent.dial(SocketEndpoint(pair.gateway.addresses[0].address, port: 80)) {
            try $0.pipeline.syncOperations.addHandler(FirstRead(echoed))
        }
        /// Asking makes the loop look.
        func hasSession() async throws -> Bool? {
            _ = try await agent.status().get()
            try await loop.submit {}.get()
            return try await agent.status().get().peers.first?.hasSession
        }
        #expect(try await hasSession() == true)
        suspended.withLockedValue { $0 += .milliseconds(100) }
        #expect(try await hasSession() == true, "so little is the clocks' own")
        suspended.withLockedValue { $0 += .seconds(3600) }
        // The loop has looked; a busy machine may have begun anew by now.
        _ = try await hasSession()
        try await channel.writeAndFlush(ByteBuffer(string: "still there"))
        #expect(try await echoed.futureResult.get() == 11)
        #expect(try await agent.status().get().counters.sessionsAsInitiator == 2)
        try await channel.close()
        try await pair.shutdown()
    }

    /// Tells how many bytes came first.
    private final class FirstRead: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let promise: EventLoopPromise<Int>
        init(_ promise: EventLoopPromise<Int>) { self.promise = promise }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { promise.succeed(unwrapInboundIn(data).readableBytes) }
        func channelInactive(context: ChannelHandlerContext) { promise.fail(ChannelError.eof) }
    }

    @Test("a name without an address of our families is asked again later; the interface closes meanwhile")
    func unusableName() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let peer = PrivateKey.generate(using: SystemEdges.random).publicKey
        let names = Names([[]])
        let interface = try await WireGuardInterface.start(
            InterfaceConfiguration(
                privateKey: key, addresses: [try #require(InterfaceAddress("10.1.0.3/24"))],
                peers: [.init(publicKey: peer, endpoint: PeerEndpoint("a.example:1"), allowedIPs: [])]),
            on: group.next(), resolveHost: names.find
        ).get()
        #expect(try await interface.status().get().peers.first?.endpoint == nil)
        try await interface.close().get()
        try await group.shutdownGracefully()
    }

    @Test("the system's resolver knows numbers, and says what it does not find")
    func systemResolver() throws {
        #expect(try SystemEdges.resolveHost("127.0.0.1", 53) == [SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: 53)])
        #expect(try SystemEdges.resolveHost("::1", 53).map(\.description) == ["[::1]:53"])
        #expect(throws: (any Error).self) { try SystemEdges.resolveHost("not a name", 53) }
    }

    @Test("a name that takes the place of an address, or of another name, moves the peer with its first answer")
    func replacedEndpoint() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let peer = PrivateKey.generate(using: SystemEdges.random).publicKey
        let (first, second) = (try #require(SocketEndpoint("127.0.0.1:9")), try #require(SocketEndpoint("127.0.0.2:9")))
        let names = Names([[first], [second], [second, first]])
        let interface = try await WireGuardInterface.start(
            InterfaceConfiguration(
                privateKey: key, addresses: [try #require(InterfaceAddress("10.1.0.3/24"))],
                peers: [.init(publicKey: peer, endpoint: PeerEndpoint("127.0.0.9:9"), allowedIPs: [])]),
            on: group.next(), resolveHost: names.find
        ).get()
        // The third has the address that the peer is at, where it stays.
        for (name, expected) in [("a.example:9", first), ("b.example:9", second), ("c.example:9", second)] {
            try await interface.setPeer(.init(publicKey: peer, endpoint: PeerEndpoint(name), allowedIPs: [])).get()
            var endpoint: SocketEndpoint?
            for _ in 0..<2000 where endpoint != expected {
                try await group.next().scheduleTask(in: .milliseconds(5)) {}.futureResult.get()
                endpoint = try await interface.status().get().peers.first?.endpoint
            }
            #expect(endpoint == expected, "\(name)")
        }
        try await interface.close().get()
        try await group.shutdownGracefully()
    }

    @Test("a peer that is removed while its name is looked up stays removed")
    func removedDuringLookUp() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let peer = PrivateKey.generate(using: SystemEdges.random).publicKey
        let address = try #require(InterfaceAddress("10.1.0.3/24"))
        let answered = group.next().makePromise(of: Void.self)
        let target = try #require(SocketEndpoint("127.0.0.1:9"))
        let gate = NIOLock()
        gate.lock()
        let interface = try await WireGuardInterface.start(
            InterfaceConfiguration(
                privateKey: key, addresses: [address],
                peers: [
                    .init(
                        publicKey: peer, endpoint: PeerEndpoint("a.example:1"), allowedIPs: [IPPrefix(host: address.address)])
                ]),
            on: group.next(),
            resolveHost: { _, _ in
                gate.withLock {}
                answered.succeed(())
                return [target]
            }
        ).get()
        try await interface.removePeer(peer).get()
        // Back again under another ID, without an endpoint.
        try await interface.setPeer(.init(publicKey: peer, allowedIPs: [])).get()
        gate.unlock()
        try await answered.futureResult.get()
        try await group.next().submit {}.get()
        #expect(try await interface.status().get().peers.first?.endpoint == nil)
        try await interface.close().get()
        try await group.shutdownGracefully()
    }

    @Test("a peer is contacted where it was seen last, unless it is known elsewhere; an endpoint with port 0 does no harm")
    func contact() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let peer = PrivateKey.generate(using: SystemEdges.random).publicKey
        let interface = try await WireGuardInterface.start(
            InterfaceConfiguration(
                privateKey: key, addresses: [try #require(InterfaceAddress("10.1.0.3/24"))], peers: [.init(publicKey: peer, allowedIPs: [])]
            ),
            on: group.next()
        ).get()
        let nowhere = SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: 0)
        try await interface.contact(peer, at: nowhere).get()
        try await interface.contact(peer, at: try #require(SocketEndpoint("127.0.0.1:9"))).get()
        try await group.next().submit {}.get()
        let status = try await interface.status().get()
        #expect(status.peers.first?.endpoint == nowhere)
        #expect(status.sendErrors == 1 && status.peers.first?.hasSession == false)
        try await interface.close().get()
        try await group.shutdownGracefully()
    }
}
