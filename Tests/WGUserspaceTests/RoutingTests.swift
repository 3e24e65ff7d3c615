import Inet
import Noise
import Testing
import WGUserspace

/// Allowed IPs, endpoints, and changes of the configuration.
@Suite struct RoutingTests {
    // MARK: - Allowed IPs

    @Test("a packet with another's source address is dropped, whatever the peer's own list says")
    func spoofedSource() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.send(1, from: nodes.a, source: IPAddress(v4: 10, 0, 0, 99))
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received.isEmpty)
        #expect(nodes.b.drops(.sourceNotAllowed) == 1)

        // A may speak for all of 10.0.0.0/24, except for what somebody else was given.
        let wide = try #require(IPPrefix("10.0.0.0/24"))
        nodes.b.device.setPeer(PeerConfiguration(publicKey: nodes.a.publicKey, allowedIPs: [wide]), now: nodes.now)
        let other = Node(3, seed: 9)
        nodes.b.device.setPeer(
            PeerConfiguration(publicKey: other.publicKey, allowedIPs: [IPPrefix(host: IPAddress(v4: 10, 0, 0, 99))]), now: nodes.now)
        nodes.send(2, from: nodes.a, source: IPAddress(v4: 10, 0, 0, 98))
        nodes.send(3, from: nodes.a, source: IPAddress(v4: 10, 0, 0, 99))
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [2])
        #expect(nodes.b.drops(.sourceNotAllowed) == 2)
    }

    @Test("a packet goes to the peer with the most specific prefix, and nowhere without one")
    func mostSpecific() throws {
        let nodes = TwoDevices()
        let other = Node(3, seed: 9)
        let wide = nodes.a.device.setPeer(
            PeerConfiguration(publicKey: other.publicKey, endpoint: other.endpoint, allowedIPs: [try #require(IPPrefix("10.0.0.0/8"))]),
            now: nodes.now)
        let source = nodes.a.address
        #expect(nodes.sendRaw(packet(1, from: source, to: nodes.b.address), from: nodes.a) == .staged(try nodes.a.peer))
        #expect(nodes.sendRaw(packet(1, from: source, to: IPAddress(v4: 10, 9, 9, 9)), from: nodes.a) == .staged(wide))
        #expect(nodes.sendRaw(packet(1, from: source, to: IPAddress(v4: 11, 0, 0, 1)), from: nodes.a) == .dropped(.noRoute))
        #expect(nodes.sendRaw([UInt8](repeating: 0, count: 40), from: nodes.a) == .dropped(.malformedOutboundPacket))
        #expect(nodes.a.peer(owning: nodes.b.address) == (try nodes.a.peer))
    }

    @Test("IPv6 is routed like IPv4")
    func version6() throws {
        let nodes = TwoDevices()
        let (first, second) = (try #require(IPAddress("fd00::1")), try #require(IPAddress("fd00::2")))
        nodes.a.device.setPeer(
            PeerConfiguration(publicKey: nodes.b.publicKey, endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: second)]),
            now: nodes.now)
        nodes.b.device.setPeer(PeerConfiguration(publicKey: nodes.a.publicKey, allowedIPs: [IPPrefix(host: first)]), now: nodes.now)
        nodes.sendRaw(packet(7, from: first, to: second, size: 61), from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [7])
    }

    @Test("the last writer owns a prefix; the session of the former owner goes on without it")
    func lastWriter() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let other = Node(3, seed: 9)
        nodes.b.device.setPeer(
            PeerConfiguration(publicKey: other.publicKey, allowedIPs: [IPPrefix(host: nodes.a.address)]), now: nodes.now)
        #expect(try nodes.b.status(now: nodes.now).allowedIPs.isEmpty)
        #expect(try nodes.b.status(now: nodes.now).hasSession)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.drops(.sourceNotAllowed) == 1)

        nodes.b.device.setPeer(
            PeerConfiguration(publicKey: nodes.a.publicKey, allowedIPs: [IPPrefix(host: nodes.a.address)]), now: nodes.now)
        nodes.send(2, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [2])
        // Removing the peer that lost the prefix takes nothing from the one that has it.
        nodes.b.device.removePeer(try #require(nodes.b.peer(for: other.publicKey)), now: nodes.now)
        nodes.send(3, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [2, 3])
    }

    @Test("an inner packet is trimmed to the length it states; one that states more than came is dropped")
    func innerLength() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let result = nodes.send(1, from: nodes.a, size: 33)
        guard case .datagram(let transmit) = result else {
            Issue.record("\(result)")
            return
        }
        #expect(transmit.range.count == 16 + 48 + 16)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [1])

        var short = packet(2, from: nodes.a.address, to: nodes.b.address, size: 32)
        short.withSpan { $0.storeBigEndian(UInt16(19), at: 2) }
        #expect(nodes.sendRaw(short, from: nodes.a) == .dropped(.malformedOutboundPacket))
    }

    @Test("inside authentic data, a packet that states more than came, or is none, is dropped; unpadded and padded ones are not")
    func innerLengthFromAnother() throws {
        // A peer that seals whatever it likes.
        let nodes = TwoDevices()
        let random = RandomSource.seeded(77)
        var initiation = [UInt8](repeating: 0, count: 148)
        var span = initiation.mutableSpan
        var bytes = span.mutableBytes
        let handshake = try InitiatorHandshake.initiate(
            into: &bytes, staticPublic: nodes.a.publicKey, remote: nodes.b.publicKey,
            precomputedStaticStatic: nodes.a.key.staticStatic(with: nodes.b.publicKey), senderIndex: 7, timestamp: TAI64N(nodes.wallTime),
            random: random)
        #expect(nodes.deliver(initiation, to: nodes.b) == .handled)
        let response = try #require(nodes.poll(nodes.b)).bytes
        let keys = try handshake.finish(response: response.span.bytes, staticKey: nodes.a.key, presharedKey: .zero())
        var counter: UInt64 = 0
        func result(of plaintext: [UInt8]) -> ReceiveResult {
            var message = [4, 0, 0, 0] + response[4..<8] + [UInt8](repeating: 0, count: 8) + plaintext + [UInt8](repeating: 0, count: 16)
            message.withSpan {
                $0.storeLittleEndian(counter, at: 8)
                keys.seal(&$0, plaintext: 16..<16 + plaintext.count, counter: counter)
            }
            counter += 1
            return nodes.deliver(message, to: nodes.b)
        }
        let whole = packet(9, from: nodes.a.address, to: nodes.b.address, size: 33)
        let (first, second) = (try #require(IPAddress("fd00::1")), try #require(IPAddress("fd00::2")))
        nodes.b.device.setPeer(
            PeerConfiguration(publicKey: nodes.a.publicKey, allowedIPs: [IPPrefix(host: nodes.a.address), IPPrefix(host: first)]),
            now: nodes.now)
        #expect(result(of: whole) == .packet(16..<49, from: try nodes.b.peer))
        #expect(result(of: whole + [UInt8](repeating: 0, count: 15)) == .packet(16..<49, from: try nodes.b.peer))
        var long = whole
        long.withSpan { $0.storeBigEndian(UInt16(34), at: 2) }
        var longest = packet(9, from: first, to: second, size: 61)
        longest.withSpan { $0.storeBigEndian(UInt16.max, at: 4) }
        for wrong in [long, longest, Array(whole.prefix(19)), [0x45], [UInt8](repeating: 0x70, count: 40)] {
            #expect(result(of: wrong) == .dropped(.malformedInnerPacket))
        }
        #expect(nodes.b.drops(.malformedInnerPacket) == 5)
        #expect(nodes.b.received == [9, 9])
    }

    // MARK: - Endpoints

    @Test("authenticated data moves the endpoint; a replay or a forgery does not")
    func roaming() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.a.endpoint = SocketEndpoint(IPAddress(v4: 203, 0, 113, 7), port: 1234)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(try nodes.b.status().endpoint == nodes.a.endpoint)
        #expect(nodes.b.events.last == .endpointChanged(try nodes.b.peer, nodes.a.endpoint))
        nodes.send(2, from: nodes.b)
        nodes.advance(by: .seconds(1))
        #expect(nodes.a.received == [2])

        let data = try #require(nodes.sent(4, by: nodes.a).last).bytes
        let attacker = SocketEndpoint(IPAddress(v4: 198, 51, 100, 1), port: 1)
        #expect(nodes.deliver(data, to: nodes.b, from: attacker) == .dropped(.replayedCounter))
        #expect(nodes.deliver(data.flipping(bit: 0, at: 20), to: nodes.b, from: attacker) == .dropped(.dataNotAuthentic))
        #expect(try nodes.b.status().endpoint == nodes.a.endpoint)
    }

    @Test("a response from elsewhere moves the endpoint, a forged one does not")
    func roamingResponse() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { $0.type != 2 }
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .milliseconds(100))
        let response = try #require(nodes.sent(2, by: nodes.b).first).bytes
        let elsewhere = SocketEndpoint(IPAddress(v4: 203, 0, 113, 9), port: 99)
        #expect(nodes.deliver(response.flipping(bit: 0, at: 50), to: nodes.a, from: elsewhere) != .handled)
        #expect(try nodes.a.status().endpoint == nodes.b.endpoint)
        #expect(nodes.deliver(response, to: nodes.a, from: elsewhere) == .handled)
        #expect(try nodes.a.status().endpoint == elsewhere)
    }

    @Test("a peer that restarts with another port is back with its first packet")
    func restart() throws {
        let nodes = TwoDevices(bKnowsA: false)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(30))
        nodes.a.restart(seed: 77)
        nodes.a.endpoint.port = 40_000
        nodes.a.device.setPeer(
            PeerConfiguration(publicKey: nodes.b.publicKey, endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: nodes.b.address)]),
            now: nodes.now)
        nodes.send(2, from: nodes.a)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.b.received == [1, 2])
        nodes.send(3, from: nodes.b)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.a.received == [3])
        #expect(nodes.b.events.contains(.endpointChanged(try nodes.b.peer, nodes.a.endpoint)))
    }

    @Test("a new endpoint from outside is tried at once, without waiting for the retry")
    func newEndpoint() throws {
        let nodes = TwoDevices()
        let place = nodes.b.endpoint
        nodes.b.endpoint = SocketEndpoint(IPAddress(v4: 203, 0, 113, 50), port: 51820)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(2))
        #expect(nodes.b.received.isEmpty)
        nodes.a.device.setEndpoint(nodes.b.endpoint, of: try nodes.a.peer, now: nodes.now)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.b.received == [1])
        // A repeated configuration does not take the peer back to where it was.
        nodes.a.device.setPeer(
            PeerConfiguration(publicKey: nodes.b.publicKey, endpoint: place, allowedIPs: [IPPrefix(host: nodes.b.address)]), now: nodes.now)
        #expect(try nodes.a.status().endpoint == nodes.b.endpoint)
    }

    // MARK: - Peers

    @Test("an unchanged peer keeps its session through a change of the configuration")
    func unchangedPeer() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.clearTrace()
        let id = try nodes.b.peer
        for name in UInt8(10)..<60 {
            let other = Node(name, seed: 4)
            nodes.b.device.setPeer(
                PeerConfiguration(publicKey: other.publicKey, allowedIPs: [IPPrefix(host: other.address)]), now: nodes.now)
        }
        let again = nodes.b.device.setPeer(
            PeerConfiguration(publicKey: nodes.a.publicKey, endpoint: nodes.a.endpoint, allowedIPs: [IPPrefix(host: nodes.a.address)]),
            now: nodes.now)
        #expect(again == id)
        nodes.send(1, from: nodes.a)
        nodes.send(2, from: nodes.b)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [1] && nodes.a.received == [2])
        #expect(nodes.sent(1, by: nodes.a).isEmpty && nodes.sent(1, by: nodes.b).isEmpty)
        #expect(nodes.b.device.peerIDs.count == 51)
    }

    @Test("a removed peer leaves nothing behind, and its ID never names another")
    func removal() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let id = try nodes.b.peer
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        let data = try #require(nodes.sent(4, by: nodes.a).last).bytes
        nodes.b.device.removePeer(id, now: nodes.now)
        #expect(nodes.b.device.indexCount == 0)
        #expect(nodes.b.device.nextDeadline == nil)
        #expect(nodes.b.status(of: id) == nil)
        #expect(nodes.b.peer(for: nodes.a.publicKey) == nil)
        #expect(nodes.deliver(data, to: nodes.b) == .dropped(.unknownReceiverIndex))
        #expect(nodes.send(2, from: nodes.b) == .dropped(.noRoute))
        let next = nodes.b.device.setPeer(PeerConfiguration(publicKey: nodes.a.publicKey, allowedIPs: []), now: nodes.now)
        #expect(next != id)
        nodes.b.device.removePeer(id, now: nodes.now)
        #expect(nodes.b.device.peerIDs == [next])
    }

    @Test("a peer with our own key is not added")
    func ownKey() {
        let node = Node(1, seed: 1)
        let now = Instant(nanoseconds: 0)
        let id = node.device.setPeer(PeerConfiguration(publicKey: node.publicKey, allowedIPs: [IPPrefix(host: node.address)]), now: now)
        #expect(node.device.peerIDs.isEmpty)
        #expect(node.status(of: id) == nil)
        node.device.initiateHandshake(with: id, now: now)
        node.device.removePeer(id, now: now)
    }

    @Test("a new private key ends the sessions, removes a peer of the same key, and works")
    func newPrivateKey() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let key = PrivateKey.generate(using: .seeded(4711))
        nodes.a.device.setPeer(PeerConfiguration(publicKey: key.publicKey, allowedIPs: []), now: nodes.now)
        nodes.a.device.setPrivateKey(key.copy(), now: nodes.now)
        #expect(nodes.a.device.publicKey == key.publicKey)
        #expect(nodes.a.device.peerIDs.count == 1)
        #expect(nodes.a.device.indexCount == 0)
        nodes.b.device.removePeer(try nodes.b.peer, now: nodes.now)
        nodes.b.device.setPeer(
            PeerConfiguration(publicKey: key.publicKey, allowedIPs: [IPPrefix(host: nodes.a.address)]), now: nodes.now)
        nodes.advance(by: .seconds(6))
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [1])
    }

    @Test("a changed preshared key takes effect at the next handshake")
    func newPresharedKey() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let key = StoredPresharedKey(.generate(using: .seeded(5)))
        for node in [nodes.a, nodes.b] {
            let other = nodes.other(node)
            node.device.setPeer(
                PeerConfiguration(publicKey: other.publicKey, presharedKey: key, allowedIPs: [IPPrefix(host: other.address)]),
                now: nodes.now)
        }
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(125))
        nodes.send(2, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [1, 2])
        #expect(nodes.sent(2, by: nodes.b).count == 2)
        #expect(nodes.a.device.drops.total == 0)
    }
}
