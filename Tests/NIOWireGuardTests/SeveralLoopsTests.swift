import CSocketShim
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

/// One interface on two loops, on real sockets. One test at a time: each has several busy loops.
@Suite(.serialized, .timeLimit(.minutes(2))) struct SeveralLoopsTests {
    @Test(
        "peers of both loops carry traffic at once, whoever begins; every datagram comes to its loop",
        arguments: [IPAddress.Family.v4, .v6], [LoopFixture.Initiator.agents, .gateway])
    func bothCarry(outer: IPAddress.Family, initiator: LoopFixture.Initiator) async throws {
        let fixture = try await LoopFixture(outer: outer, initiator: initiator)
        #expect(fixture.gateway.loopCount == 2)
        let flows = try await fixture.flows()
        // Pipelines run where their peers are.
        #expect(flows[0].channel.eventLoop === fixture.gateway.eventLoop && flows[1].channel.eventLoop !== fixture.gateway.eventLoop)
        let before = try await fixture.gateway.status().get()
        for _ in 0..<3 { try await LoopFixture.move(flows) }
        let status = try await fixture.gateway.status().get()
        for (loop, former) in zip(status.loops, before.loops) {
            #expect(loop.peers == 1)
            #expect(loop.datagramsReceived > former.datagramsReceived + 300 && loop.datagramsSent > former.datagramsSent + 300)
        }
        #expect(status.peers.allSatisfy { $0.hasSession } && Set(status.peers.map(\.publicKey)) == Set(fixture.agents.map(\.publicKey)))
        #expect(status.tcpConnections == 2 && status.tcp.activeOpens == 2 && status.tcp.bytesSent > 3_000_000)
        #expect(status.counters.misdirectedMessages == 0)
        #expect(status.drops.filter { $0.reason.hasPrefix("wireguard") }.isEmpty)
        // Those of the second loop's peer; if we began, there were none.
        #expect((status.counters.initiationsHandedOver > 0) == (initiator == .agents))
        let (connections, more) = try await fixture.gateway.connections(limit: 1).get()
        #expect(connections.count == 1 && more == 1)
        try await fixture.shutdown()
    }

    @Test("what the kernel gives to the wrong loop is handed over and counted", arguments: [IPAddress.Family.v4, .v6])
    func misdirected(outer: IPAddress.Family) async throws {
        var sharing = PortSharing()
        // All to the first.
        sharing.steer = { descriptor, _ in csocket_steer(descriptor, 0) }
        for initiator in [LoopFixture.Initiator.agents, .gateway] {
            let fixture = try await LoopFixture(outer: outer, initiator: initiator, sharing: sharing)
            let flows = try await fixture.flows()
            try await LoopFixture.move(flows, 2_000_000)
            let status = try await fixture.gateway.status().get()
            #expect(status.counters.misdirectedMessages > 1000)
            #expect(status.loops[1].datagramsReceived == 0 && status.loops[1].datagramsSent > 1000)
            try await fixture.shutdown()
        }
    }

    @Test("more loops than two, and not a power of two")
    func three() async throws {
        let fixture = try await LoopFixture(loops: 3)
        let flows = try await fixture.flows()
        try await LoopFixture.move(flows)
        let status = try await fixture.gateway.status().get()
        #expect(status.loops.map(\.peers) == [1, 1, 1] && status.counters.misdirectedMessages == 0)
        try await fixture.shutdown()
    }

    @Test("a kernel that refuses leaves one loop, with a notice", arguments: ["share", "bind", "steer"])
    func refused(what: String) async throws {
        var sharing = PortSharing()
        switch what {
        case "share": sharing.share = { _ in -92 }
        case "bind": sharing.bind = { _, _, _ in -92 }
        default: sharing.steer = { _, _ in -92 }
        }
        let lines = UDPSocketsTests.Lines()
        let fixture = try await LoopFixture(sharing: sharing, logger: Logger(label: "test") { _ in lines })
        #expect(fixture.gateway.loopCount == 1)
        #expect(lines.written.withLockedValue { $0 } == ["The kernel cannot share a UDP port among loops; one loop is used"])
        for flow in try await fixture.flows() { try await flow.moves() }
        try await fixture.shutdown()
    }

    @Test("a port that another socket has is refused, also if that one would share it")
    func portTaken() async throws {
        let fixture = try await LoopFixture()
        let group = fixture.group
        for port in [fixture.gateway.listenPort, fixture.agents[0].listenPort] {
            let configuration = InterfaceConfiguration(
                privateKey: StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random)), addresses: [], listenPort: port, peers: [])
            await #expect(throws: InterfaceError.bindFailed(port: port, errno: 98)) {
                _ = try await WireGuardInterface.start(configuration, onEach: [group.next(), group.next()]).get()
            }
        }
        let flows = try await fixture.flows()
        let (former, taken) = (fixture.gateway.listenPort, fixture.agents[0].listenPort)
        await #expect(throws: InterfaceError.bindFailed(port: taken, errno: 98)) { try await fixture.gateway.setListenPort(taken).get() }
        #expect(fixture.gateway.listenPort == former)
        try await LoopFixture.move(flows)
        try await fixture.shutdown()
    }

    @Test("the port moves under transfers of both loops: sessions and connections go on, and datagrams find their loop as before")
    func portMoves() async throws {
        let fixture = try await LoopFixture()
        let flows = try await fixture.flows()
        let before = try await fixture.gateway.status().get()
        for _ in 0..<3 {
            let former = fixture.gateway.listenPort
            let port = try await fixture.gateway.setListenPort(0).get()
            #expect(port != former && fixture.gateway.listenPort == port)
            try await LoopFixture.move(flows)
            #expect(try await fixture.gateway.setListenPort(port).get() == port)
        }
        // Former sockets are closed one after the other, which turns the kernel's numbers over; the new ones are in order.
        let between = try await fixture.gateway.status().get()
        try await LoopFixture.move(flows)
        let status = try await fixture.gateway.status().get()
        #expect(status.counters.misdirectedMessages == between.counters.misdirectedMessages)
        #expect(Set(status.peers.map(\.lastHandshake)) == Set(before.peers.map(\.lastHandshake)))
        for agent in fixture.agents { #expect(try await agent.status().get().peers.first?.endpoint?.port == fixture.gateway.listenPort) }
        try await fixture.shutdown()
    }

    @Test("a loop that loses its socket gets it back in its place", arguments: [0, 1], [IPAddress.Family.v4, .v6])
    func lostSocket(loop: Int, outer: IPAddress.Family) async throws {
        let fixture = try await LoopFixture(outer: outer)
        let flows = try await fixture.flows()
        let port = fixture.gateway.listenPort
        for _ in 0..<2 {
            try await fixture.gateway.loseSocket(of: loop, outer).get()
            try await LoopFixture.move(flows)
        }
        // While one was missing, the kernel's numbers were wrong; now they are right again.
        let between = try await fixture.gateway.status().get()
        try await LoopFixture.move(flows, 2_000_000)
        let status = try await fixture.gateway.status().get()
        #expect(status.counters.misdirectedMessages == between.counters.misdirectedMessages)
        for (loop, former) in zip(status.loops, between.loops) { #expect(loop.datagramsReceived > former.datagramsReceived + 500) }
        #expect(fixture.gateway.listenPort == port)
        try await fixture.shutdown()
    }

    @Test("peers of both loops connect to one listener, which closes for both")
    func listener() async throws {
        let fixture = try await LoopFixture()
        let listener = try await fixture.gateway.listen(port: 81) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler()) }
        }.get()
        await #expect(throws: StackError.self) {
            _ = try await fixture.gateway.listen(port: 81) { $0.eventLoop.makeSucceededVoidFuture() }.get()
        }
        let remote = SocketEndpoint(fixture.gateway.addresses[0].address, port: 81)
        for agent in fixture.agents {
            let pump = LoopFixture.Pump()
            let channel = try await agent.dial(remote) { try $0.pipeline.syncOperations.addHandler(pump) }
            try await pump.moves(100_000, over: channel)
        }
        #expect(try await fixture.gateway.status().get().listeners == 1)
        try await listener.close().get()
        for agent in fixture.agents { await #expect(throws: TunnelError.refused) { _ = try await agent.dial(remote) } }
        try await fixture.shutdown()
    }

    @Test("closing ends the connections of both loops and frees the port for somebody who does not share it")
    func close() async throws {
        let fixture = try await LoopFixture()
        let flows = try await fixture.flows()
        let port = fixture.gateway.listenPort
        try await fixture.gateway.close().get()
        for flow in flows { #expect(!flow.channel.isActive) }
        let configuration = InterfaceConfiguration(
            privateKey: StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random)), addresses: [], listenPort: port, peers: [])
        let other = try await WireGuardInterface.start(configuration, on: fixture.group.next()).get()
        try await other.close().get()
        await #expect(throws: TunnelError.interfaceClosed) { _ = try await fixture.gateway.dial(try fixture.endpoint(1)) }
        await #expect(throws: TunnelError.interfaceClosed) { _ = try await fixture.gateway.setListenPort(0).get() }
        try await fixture.shutdown()
    }

    @Test("packets of both loops are in one capture")
    func capture() async throws {
        let fixture = try await LoopFixture()
        let capture = try await fixture.gateway.capture(PacketCapture.Options(), application: "test").get()
        let reader = PacketCaptureTests.Reader(fixture.gateway.eventLoop)
        reader.follow(capture)
        let flows = try await fixture.flows()
        try await LoopFixture.move(flows, 1000)
        capture.stop()
        let (_, counts) = try await reader.end.futureResult.get()
        #expect(counts.written > 10 && counts.written == counts.seen)
        let text = String(decoding: reader.bytes.withLockedValue { $0 }, as: UTF8.self)
        for agent in fixture.agents {
            #expect(text.contains("in from \(agent.publicKey)") && text.contains("out to \(agent.publicKey)"))
        }
        try await fixture.shutdown()
    }

    @Test("events tell of the peers of both loops; the closed connections of both are waited for")
    func events() async throws {
        let established = NIOLockedValueBox<Set<PublicKey>>([])
        let fixture = try await LoopFixture { event in
            if case .sessionEstablished(let peer) = event { established.withLockedValue { _ = $0.insert(peer) } }
        }
        for flow in try await fixture.flows() { try await flow.channel.close() }
        #expect(established.withLockedValue { $0 } == Set(fixture.agents.map(\.publicKey)))
        try await fixture.gateway.drain(within: .seconds(20)).get()
        let status = try await fixture.gateway.status().get()
        #expect(status.tcpConnections == 0)
        try await fixture.shutdown()
    }
}
