import Inet
import NIOCore
import NIOPosix
import NIOWireGuard
import Noise
import TCPStack
import Testing
import WGUserspace

/// What `wg set` and its like do to a running interface, and what `wg show` sees of it.
@Suite(.timeLimit(.minutes(1))) struct UAPIChangesTests {
    @Test("replaced peers: the one that is named again keeps session, connection and endpoint, the others go")
    func replacePeers() async throws {
        let flow = try await RuntimeChangeTests.Flow()
        let (gateway, agent) = (flow.pair.gateway, flow.pair.agent)
        let before = try await flow.handshakes()
        let third = PrivateKey.generate(using: SystemEdges.random).publicKey
        let block = try #require(IPPrefix("10.1.0.7/32"))
        let own = IPPrefix(host: agent.addresses[0].address)
        try await gateway.apply(UAPI.SetRequest(peers: [PeerChange(publicKey: third, addedAllowedIPs: [block])])).get()
        #expect(try await gateway.uapiState().get().peers.map(\.allowedIPs) == [[own], [block]])
        try await gateway.apply(
            UAPI.SetRequest(replacePeers: true, peers: [PeerChange(publicKey: agent.publicKey, addedAllowedIPs: [own])])
        ).get()
        try await flow.moves()
        #expect(try await flow.handshakes() == before)
        let state = try await gateway.uapiState().get()
        let peer = try #require(state.peers.first)
        #expect(state.peers.count == 1 && state.listenPort == gateway.listenPort && state.fwmark == 0)
        #expect(state.privateKey?.key.publicKey == gateway.publicKey)
        #expect(peer.publicKey == agent.publicKey && peer.allowedIPs == [own] && peer.persistentKeepalive == nil)
        #expect(peer.endpoint?.port == agent.listenPort && peer.lastHandshake != nil && peer.receivedBytes > 0 && peer.sentBytes > 0)
        try await flow.end()
    }

    @Test("a port that is taken fails the whole request: key and peers are as before")
    func portTaken() async throws {
        let flow = try await RuntimeChangeTests.Flow()
        let (gateway, agent) = (flow.pair.gateway, flow.pair.agent)
        let (key, port) = (gateway.publicKey, gateway.listenPort)
        let request = UAPI.SetRequest(
            privateKey: .set(StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))), listenPort: agent.listenPort,
            replacePeers: true)
        await #expect(throws: UAPI.Fault.portInUse) { try await gateway.apply(request).get() }
        #expect(gateway.publicKey == key && gateway.listenPort == port)
        #expect(try await gateway.uapiState().get().peers.map(\.publicKey) == [agent.publicKey])
        try await flow.moves()
        try await flow.end()
    }

    @Test("an address that a request gives to another peer ends its connections; a removed key ends sessions")
    func takenAddress() async throws {
        let flow = try await RuntimeChangeTests.Flow()
        let (gateway, agent) = (flow.pair.gateway, flow.pair.agent)
        let third = PrivateKey.generate(using: SystemEdges.random).publicKey
        let own = IPPrefix(host: agent.addresses[0].address)
        try await gateway.apply(UAPI.SetRequest(peers: [PeerChange(publicKey: third, addedAllowedIPs: [own])])).get()
        try await flow.channel.closeFuture.get()
        #expect(try await gateway.uapiState().get().peers.map(\.allowedIPs) == [[], [own]])
        #expect(try await gateway.status().get().peers.first?.hasSession == true)
        let key = gateway.publicKey
        try await gateway.apply(UAPI.SetRequest(privateKey: .remove, listenPort: 0)).get()
        #expect(try await gateway.uapiState().get().privateKey == nil && gateway.publicKey == key)
        #expect(try await gateway.status().get().peers.first?.hasSession == false)
        try await gateway.close().get()
        await #expect(throws: UAPI.Fault.io) { try await gateway.apply(UAPI.SetRequest()).get() }
        await #expect(throws: UAPI.Fault.io) { _ = try await gateway.uapiState().get() }
        try await flow.pair.shutdown()
    }

    @Test("a peer that talks to 127.0.0.2 is answered from there")
    func stickySource() async throws {
        let pair = try await InterfacePair()
        _ = try await pair.gateway.listen(port: 80) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(LoopbackTests.EchoHandler()) }
        }.get()
        let key = StoredPrivateKey(PrivateKey.generate(using: SystemEdges.random))
        let address = try #require(InterfaceAddress("10.1.0.3/24"))
        try await pair.gateway.setPeer(.init(publicKey: key.key.publicKey, allowedIPs: [IPPrefix(host: address.address)])).get()
        let target = SocketEndpoint(IPAddress(v4: 127, 0, 0, 2), port: pair.gateway.listenPort)
        let interface = try await WireGuardInterface.start(
            InterfaceConfiguration(
                privateKey: key, addresses: [address],
                peers: [
                    .init(
                        publicKey: pair.gateway.publicKey, endpoint: .address(target),
                        allowedIPs: [IPPrefix(host: pair.gateway.addresses[0].address)])
                ]), on: pair.group.next()
        ).get()
        let pump = RuntimeChangeTests.Pump(chunk: 10_000)
        let channel = try await interface.dial(SocketEndpoint(pair.gateway.addresses[0].address, port: 80)) {
            try $0.pipeline.syncOperations.addHandler(pump)
        }
        try await pump.moves(1_000_000, on: channel.eventLoop)
        // Had an answer come from elsewhere, the interface would have followed it.
        #expect(try await interface.status().get().peers.first?.endpoint == target)
        let seen = try await pair.gateway.status().get().peers.first { $0.publicKey == key.key.publicKey }
        #expect(seen?.localAddress == target.address)
        try await channel.close()
        try await interface.close().get()
        try await pair.shutdown()
    }
}
