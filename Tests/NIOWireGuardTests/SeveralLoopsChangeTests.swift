import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import TCPStack
import Testing
import WGUserspace

/// Changes of an interface with two loops, and UDP in its tunnel. One test at a time, as with ``SeveralLoopsTests``.
@Suite(.serialized, .timeLimit(.minutes(2))) struct SeveralLoopsChangeTests {
    @Test(
        "an address that moves to a peer of the other loop takes its connections with it, and is reached there; and back",
        arguments: [true, false])
    func addressMoves(byRequest: Bool) async throws {
        let fixture = try await LoopFixture()
        let (gateway, agents) = (fixture.gateway, fixture.agents)
        let address = try LoopFixture.agentAddress(0)
        let second = try LoopFixture.agentAddress(1)
        for agent in agents { try await agent.setAddresses([address, second]).get() }
        var (from, to) = (0, 1)
        for _ in 0..<3 {
            let flow = try await fixture.flow(0)
            try await flow.moves()
            #expect((flow.channel.eventLoop === gateway.eventLoop) == (from == 0))
            if byRequest {
                try await gateway.apply(
                    UAPI.SetRequest(peers: [PeerChange(publicKey: agents[to].publicKey, addedAllowedIPs: [IPPrefix(host: address.address)])]
                    )
                ).get()
            } else {
                let both = [address, second].map { IPPrefix(host: $0.address) }
                try await gateway.setPeer(.init(publicKey: agents[to].publicKey, allowedIPs: both)).get()
            }
            try await flow.channel.closeFuture.get()
            swap(&from, &to)
            let owners = try await gateway.status().get().peers.filter { $0.allowedIPs.contains(IPPrefix(host: address.address)) }
            #expect(owners.map(\.publicKey) == [agents[from].publicKey])
        }
        #expect(try await gateway.receivedBytes(fromPeerOwning: address.address).get() > 500_000)
        try await fixture.shutdown()
    }

    @Test("a peer that goes ends its connections only, comes again to its loop, and is reached anew", arguments: [0, 1])
    func peerGoes(number: Int) async throws {
        let fixture = try await LoopFixture()
        let flows = try await fixture.flows()
        let gateway = fixture.gateway
        let key = fixture.agents[number].publicKey
        try await gateway.removePeer(key).get()
        try await flows[number].channel.closeFuture.get()
        try await flows[1 - number].moves()
        #expect(try await gateway.status().get().peers.map(\.publicKey) == [fixture.agents[1 - number].publicKey])
        try await gateway.setPeer(
            .init(
                publicKey: key, endpoint: PeerEndpoint("127.0.0.1:\(fixture.agents[number].listenPort)"),
                allowedIPs: [IPPrefix(host: try LoopFixture.agentAddress(number).address)])
        ).get()
        try await gateway.contact(key, at: SocketEndpoint(IPAddress(v4: 127, 0, 0, 1), port: fixture.agents[number].listenPort)).get()
        try await fixture.flow(number).moves()
        try await flows[1 - number].moves()
        #expect(gateway.loopNumber(of: key) == number)
        #expect(try await gateway.forgetTimestamp(of: key).get())
        try await fixture.shutdown()
    }

    @Test("what wg asks for reaches the peers of all loops: replaced ones, new ones, and those it only wants to update")
    func requests() async throws {
        let fixture = try await LoopFixture()
        let flows = try await fixture.flows()
        let gateway = fixture.gateway
        let before = try await gateway.uapiState().get()
        #expect(Set(before.peers.map(\.publicKey)) == Set(fixture.agents.map(\.publicKey)) && before.listenPort == gateway.listenPort)
        #expect(before.peers.allSatisfy { $0.lastHandshake != nil && $0.endpoint != nil })
        let changes = try fixture.agents.enumerated().map {
            PeerChange(publicKey: $1.publicKey, addedAllowedIPs: [IPPrefix(host: try LoopFixture.agentAddress($0).address)])
        }
        try await gateway.apply(UAPI.SetRequest(replacePeers: true, peers: changes)).get()
        try await LoopFixture.move(flows)
        try await gateway.apply(UAPI.SetRequest(listenPort: 0, replacePeers: true, peers: [changes[1]])).get()
        try await flows[0].channel.closeFuture.get()
        try await flows[1].moves()
        var unknown = changes[0]
        unknown.updateOnly = true
        try await gateway.apply(UAPI.SetRequest(peers: [unknown])).get()
        #expect(try await gateway.uapiState().get().peers.map(\.publicKey) == [fixture.agents[1].publicKey])
        let port = fixture.agents[0].listenPort
        await #expect(throws: UAPI.Fault.portInUse) { try await gateway.apply(UAPI.SetRequest(listenPort: port, replacePeers: true)).get() }
        try await flows[1].moves()
        try await gateway.apply(UAPI.SetRequest(privateKey: .remove)).get()
        #expect(try await gateway.status().get().peers.map(\.hasSession) == [false])
        #expect(try await gateway.uapiState().get().privateKey == nil)
        try await fixture.shutdown()
    }

    @Test("a new private key counts on every loop, and a peer that has it goes")
    func privateKey() async throws {
        let fixture = try await LoopFixture()
        _ = try await fixture.flows()
        let gateway = fixture.gateway
        let old = gateway.publicKey
        // Two initiations of one peer within 20 ms are a flood.
        var status = try await gateway.status().get()
        while let last = status.peers.compactMap(\.lastHandshake).max(), status.now <= last + .milliseconds(20) {
            status = try await gateway.status().get()
        }
        // A twin for each loop: the one whose key we take goes.
        for number in 0..<2 {
            let keys = (0..<1000).lazy.map { _ in StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random)) }
            let twin = try #require(keys.first { gateway.loopNumber(of: $0.key.publicKey) == number })
            let block = try #require(IPPrefix("10.9.0.\(number)/32"))
            try await gateway.setPeer(.init(publicKey: twin.key.publicKey, allowedIPs: [block])).get()
            #expect(try await gateway.status().get().peers.count == 3)
            try await gateway.setPrivateKey(twin).get()
            let status = try await gateway.status().get()
            #expect(status.peers.count == 2 && status.peers.allSatisfy { !$0.hasSession } && gateway.publicKey == twin.key.publicKey)
        }
        for (number, agent) in fixture.agents.enumerated() {
            try await agent.removePeer(old).get()
            try await agent.setPeer(
                .init(
                    publicKey: gateway.publicKey, endpoint: PeerEndpoint("127.0.0.1:\(gateway.listenPort)"),
                    allowedIPs: [IPPrefix(host: gateway.addresses[0].address)], persistentKeepalive: .seconds(25))
            ).get()
            try await fixture.flow(number).moves()
        }
        try await fixture.shutdown()
    }

    @Test("changes from many threads at once leave all loops of one mind")
    func concurrentChanges() async throws {
        let fixture = try await LoopFixture()
        let gateway = fixture.gateway
        let blocks = try (0..<20).map { try #require(IPPrefix("10.2.0.\($0)/32")) }
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for (index, agent) in fixture.agents.enumerated() {
                for round in 0..<40 {
                    tasks.addTask {
                        let own = IPPrefix(host: try LoopFixture.agentAddress(index).address)
                        let some = blocks.indices.filter { ($0 + round) % 3 != index }.map { blocks[$0] }
                        try await gateway.setPeer(.init(publicKey: agent.publicKey, allowedIPs: [own] + some)).get()
                    }
                }
            }
            try await tasks.waitForAll()
        }
        let all = try await gateway.status().get().peers.flatMap(\.allowedIPs)
        #expect(Set(all).count == all.count, "a block belongs to two peers")
        for number in fixture.agents.indices { try await fixture.flow(number).moves() }
        try await fixture.shutdown()
    }

    // MARK: - UDP

    @Test("a UDP socket hears the peers of both loops and answers each; read one by one, none is lost")
    func udpServer() async throws {
        let fixture = try await LoopFixture()
        let server = try await fixture.gateway.bindUDP(port: 53, initializer: DatagramChannelTests.adding(DatagramChannelTests.Echo()))
            .get()
        try await server.setOption(.maxMessagesPerRead, value: 1).get()
        let remote = SocketEndpoint(fixture.gateway.addresses[0].address, port: 53)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for agent in fixture.agents {
                tasks.addTask {
                    let done = agent.eventLoop.makePromise(of: Void.self)
                    let pinger = DatagramChannelTests.Pinger(2000, done: done)
                    let channel = try await agent.connectUDP(to: remote, initializer: DatagramChannelTests.adding(pinger)).get()
                    try await done.futureResult.get()
                    #expect(pinger.state.withLockedValue { $0.wrong } == 0)
                    try await channel.close()
                }
            }
            try await tasks.waitForAll()
        }
        #expect(try await fixture.gateway.status().get().udpSockets == 1)
        await #expect(throws: TunnelError.self) {
            _ = try await fixture.gateway.bindUDP(port: 53) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        }
        try await server.close()
        let again = try await fixture.gateway.bindUDP(port: 53) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        try await again.close()
        try await fixture.shutdown()
    }

    @Test("without automatic reading a read brings one batch, whichever loops have more")
    func udpReads() async throws {
        let fixture = try await LoopFixture()
        let recorder = DatagramChannelTests.Recorder()
        let server = try await fixture.gateway.bindUDP(port: 53) { channel in
            channel.setOption(.autoRead, value: false).flatMapThrowing { try channel.pipeline.syncOperations.addHandler(recorder) }
        }.get()
        try await server.setOption(.maxMessagesPerRead, value: 1).get()
        let remote = SocketEndpoint(fixture.gateway.addresses[0].address, port: 53)
        for (number, agent) in fixture.agents.enumerated() {
            let channel = try await agent.connectUDP(to: remote) { $0.eventLoop.makeSucceededVoidFuture() }.get()
            try await channel.writeAndFlush(ByteBuffer(string: "\(number)"))
            // A refused connection: what was sent before has arrived.
            let closed = SocketEndpoint(remote.address, port: 99)
            await #expect(throws: TunnelError.refused) { _ = try await agent.dial(closed) }
        }
        for count in 1...2 {
            try await server.eventLoop.submit { server.read() }.get()
            try await waitUntil(on: server.eventLoop) { recorder.events.count { $0 == "complete" } == count }
            #expect(recorder.events.count { $0.hasPrefix("10.") } == count)
        }
        #expect(Set(recorder.events.filter { $0.hasPrefix("10.") }) == ["10.1.0.1 0", "10.1.0.2 1"])
        try await fixture.shutdown()
    }

    @Test("connected UDP sockets reach peers of both loops; one whose address moves away ends, and a new one reaches the new owner")
    func udpClients() async throws {
        let fixture = try await LoopFixture()
        let address = try LoopFixture.agentAddress(0)
        for agent in fixture.agents {
            try await agent.setAddresses([address, try LoopFixture.agentAddress(1)]).get()
            _ = try await agent.bindUDP(port: 7, initializer: DatagramChannelTests.adding(DatagramChannelTests.Echo())).get()
        }
        func ping(_ number: Int) async throws -> any Channel {
            let remote = SocketEndpoint(try LoopFixture.agentAddress(number).address, port: 7)
            let done = fixture.gateway.eventLoop.makePromise(of: Void.self)
            let pinger = DatagramChannelTests.Pinger(500, done: done)
            let channel = try await fixture.gateway.connectUDP(to: remote, initializer: DatagramChannelTests.adding(pinger)).get()
            try await done.futureResult.get()
            #expect(pinger.state.withLockedValue { $0.wrong } == 0)
            return channel
        }
        let first = try await ping(0)
        _ = try await ping(1)
        let both = try [0, 1].map { IPPrefix(host: try LoopFixture.agentAddress($0).address) }
        try await fixture.gateway.setPeer(.init(publicKey: fixture.agents[1].publicKey, allowedIPs: both)).get()
        try await first.closeFuture.get()
        _ = try await ping(0)
        #expect(try await fixture.gateway.status().get().peers.first { $0.publicKey == fixture.agents[0].publicKey }?.allowedIPs == [])
        try await fixture.shutdown()
    }

    private func waitUntil(on loop: any EventLoop, _ isTrue: @escaping @Sendable () -> Bool) async throws {
        let done = loop.makePromise(of: Void.self)
        let task = loop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(1)) { _ in if isTrue() { done.succeed(()) } }
        try await done.futureResult.get()
        task.cancel()
    }
}
