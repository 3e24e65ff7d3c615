import Inet
import Noise
import Testing
import WGUserspace

/// Changes at run time, as `wg set` makes them: what they do not mention goes on.
@Suite struct DeviceChangeTests {
    private func change(_ node: Node, _ body: (inout PeerChange) -> Void = { _ in }) -> PeerChange {
        var change = PeerChange(publicKey: node.publicKey)
        body(&change)
        return change
    }

    private func expectSession(_ nodes: TwoDevices, _ what: String) {
        let start = nodes.now
        nodes.a.received = []
        nodes.b.received = []
        nodes.send(71, from: nodes.a)
        nodes.send(72, from: nodes.b)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.b.received == [71] && nodes.a.received == [72], "\(what)")
        #expect(nodes.sent(1, by: nodes.a, since: start).isEmpty && nodes.sent(1, by: nodes.b, since: start).isEmpty, "\(what)")
    }

    @Test("30,000 blocks change their peer in one request")
    func manyBlocks() throws {
        let nodes = TwoDevices()
        let other = Node(9, seed: 3)
        let blocks = (0..<30_000).map { IPPrefix(host: IPAddress(v4: 0x0B00_0000 + $0)) }
        for node in [nodes.b, other, nodes.b] {
            nodes.a.device.apply(change(node) { $0.addedAllowedIPs = blocks }, now: nodes.now)
            let id = try #require(nodes.a.peer(for: node.publicKey))
            #expect(nodes.a.peer(owning: blocks[29_999].address) == id)
        }
        let former = try #require(nodes.a.peer(for: other.publicKey))
        #expect(nodes.a.status(of: former)?.allowedIPs.isEmpty == true)
    }

    @Test("changes of other peers, and of what does not concern the keys, leave the session alone")
    func untouched() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let other = Node(9, seed: 3)
        let prefix = try #require(IPPrefix("10.9.0.0/16"))
        let id = try #require(nodes.a.apply(change(other) { $0.addedAllowedIPs = [prefix] }, now: nodes.now))
        expectSession(nodes, "another peer is added")
        #expect(nodes.a.peer(owning: IPAddress(v4: 10, 9, 1, 1)) == id)
        nodes.a.device.apply(change(other) { $0.remove = true }, now: nodes.now)
        expectSession(nodes, "another peer is removed")
        nodes.a.device.apply(change(nodes.b) { $0.addedAllowedIPs = [prefix] }, now: nodes.now)
        expectSession(nodes, "a block is added")
        #expect(try nodes.a.status().allowedIPs == [IPPrefix(host: nodes.b.address), prefix])
        nodes.a.device.apply(change(nodes.b) { $0.removedAllowedIPs = [prefix] }, now: nodes.now)
        nodes.a.device.apply(change(nodes.b) { $0.persistentKeepalive = .seconds(25) }, now: nodes.now)
        expectSession(nodes, "a keepalive is set")
        nodes.a.device.apply(change(nodes.b) { $0.persistentKeepalive = .zero }, now: nodes.now)
        #expect(try nodes.a.status().persistentKeepalive == nil)
        nodes.a.device.apply(change(nodes.b) { $0.endpoint = nodes.b.endpoint }, now: nodes.now)
        expectSession(nodes, "the endpoint that it has is set")
        nodes.a.device.apply(change(nodes.b), now: nodes.now)
        expectSession(nodes, "nothing is set")
        nodes.a.device.apply(change(nodes.b) { $0.presharedKey = StoredPresharedKey(.zero()) }, now: nodes.now)
        expectSession(nodes, "no preshared key is set")
    }

    @Test("replaced blocks are gone, the others are there; a block that another peer had is taken from it")
    func allowedIPs() throws {
        let nodes = TwoDevices()
        let (first, second) = (try #require(IPPrefix("10.1.0.0/16")), try #require(IPPrefix("10.2.0.0/16")))
        let other = Node(9, seed: 3)
        nodes.a.device.apply(change(other) { $0.addedAllowedIPs = [first, second, first] }, now: nodes.now)
        let id = try #require(nodes.a.peer(for: other.publicKey))
        #expect(nodes.a.status(of: id)?.allowedIPs == [first, second])
        nodes.a.device.apply(
            change(nodes.b) {
                $0.replaceAllowedIPs = true
                $0.addedAllowedIPs = [first]
            }, now: nodes.now)
        #expect(nodes.a.status(of: id)?.allowedIPs == [second])
        let peer = try #require(nodes.a.peer(for: nodes.b.publicKey))
        #expect(nodes.a.status(of: peer)?.allowedIPs == [first])
        #expect(nodes.a.peer(owning: nodes.b.address) == nil)
        #expect(nodes.a.peer(owning: IPAddress(v4: 10, 1, 2, 3)) == peer)
        // A block that is another's is not taken away by naming it here.
        nodes.a.device.apply(change(nodes.b) { $0.removedAllowedIPs = [second] }, now: nodes.now)
        #expect(nodes.a.peer(owning: IPAddress(v4: 10, 2, 2, 3)) == id)
    }

    @Test("a peer that is not there is not made by a change that only updates, nor by one that removes, nor with our own key")
    func nobody() throws {
        let nodes = TwoDevices()
        let other = Node(9, seed: 3)
        #expect(nodes.a.apply(change(other) { $0.updateOnly = true }, now: nodes.now) == nil)
        #expect(nodes.a.apply(change(other) { $0.remove = true }, now: nodes.now) == nil)
        #expect(nodes.a.apply(change(nodes.a), now: nodes.now) == nil)
        #expect(nodes.a.device.peerIDs.count == 1)
        #expect(nodes.a.apply(change(nodes.b) { $0.updateOnly = true }, now: nodes.now) == (try nodes.a.peer))
    }

    @Test("a preshared key that is set by a change takes effect at the next handshake")
    func presharedKey() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let key = StoredPresharedKey(.generate(using: .seeded(5)))
        nodes.a.device.apply(change(nodes.b) { $0.presharedKey = key }, now: nodes.now)
        nodes.b.device.apply(change(nodes.a) { $0.presharedKey = key }, now: nodes.now)
        expectSession(nodes, "a preshared key is set")
        #expect(try nodes.a.status().hasPresharedKey)
        nodes.advance(by: .seconds(121))
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.sent(2, by: nodes.b).count == 2)
        #expect(nodes.a.device.drops.total == 0)
        expectSession(nodes, "the next handshake")
    }

    @Test("without a private key nothing is begun or answered; with it everything works again")
    func noPrivateKey() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.b.device.removePrivateKey(now: nodes.now)
        let hasKey = nodes.b.device.hasPrivateKey
        #expect(!hasKey)
        #expect(nodes.b.device.indexCount == 0)
        #expect(nodes.send(1, from: nodes.b) == .dropped(.noPrivateKey))
        let start = nodes.now
        nodes.send(2, from: nodes.a)
        nodes.advance(by: .seconds(40))
        #expect(nodes.sent(1, by: nodes.a, since: start).count > 3)
        #expect(nodes.sent(2, by: nodes.b, since: start).isEmpty && nodes.sent(1, by: nodes.b, since: start).isEmpty)
        #expect(nodes.b.drops(.noPrivateKey) > 3)
        nodes.b.device.setPrivateKey(nodes.b.key.copy(), now: nodes.now)
        #expect(nodes.b.device.publicKey == nodes.b.publicKey)
        nodes.advance(by: .seconds(6))
        expectSession(nodes, "the key is back")
    }

    @Test("a handshake message that waited while the private key went is dropped")
    func keyGoesWhileQueued() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        var message = try #require(nodes.sent(1, by: nodes.a).last).bytes
        let result = message.withSpan { nodes.b.device.receive(&$0, from: nodes.a.endpoint, now: nodes.now, wallTime: nodes.wallTime) }
        #expect(result == .queued)
        nodes.b.device.removePrivateKey(now: nodes.now)
        #expect(nodes.b.device.handleQueuedHandshake(now: nodes.now, wallTime: nodes.wallTime) == .dropped(.noPrivateKey))
    }

    @Test("a peer that is removed and added again refuses nothing that we send, though our clock stepped back meanwhile")
    func timestampsOfReaddedPeer() throws {
        let nodes = TwoDevices()
        nodes.clockOffset = 1000
        try nodes.connect()
        let configuration = PeerConfiguration(
            publicKey: nodes.b.publicKey, endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: nodes.b.address)])
        nodes.a.device.removePeer(try nodes.a.peer, now: nodes.now)
        nodes.advance(by: .seconds(6))
        nodes.clockOffset = 0
        nodes.a.device.setPeer(configuration, now: nodes.now)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.b.received == [1])
        #expect(nodes.b.drops(.staleTimestamp) == 0)
    }

    @Test("10,000 peers: one takes little room, and none costs a key agreement before it is needed")
    func manyPeers() {
        #expect(Device.peerByteCount <= 1152)
        let random = RandomSource.seeded(7)
        var device = Device(privateKey: .generate(using: random), configuration: DeviceConfiguration(), random: random)
        let now = Instant(nanoseconds: 1)
        for number in UInt32(0)..<10_000 {
            var bytes = [UInt8](repeating: 9, count: 32)
            bytes.withSpan { $0.storeBigEndian(number, at: 4) }
            guard let key = PublicKey(bytes.span.bytes) else { continue }
            device.setPeer(PeerConfiguration(publicKey: key, allowedIPs: [IPPrefix(host: IPAddress(v4: 0x0A00_0000 + number))]), now: now)
        }
        let count = device.peerIDs.count
        #expect(count == 10_000)
        // All are silent: no timer runs.
        #expect(device.nextDeadline == nil)
        let owner = device.peer(owning: IPAddress(v4: 0x0A00_0000 + 9_999))
        #expect(owner == device.peerIDs.last)
    }
}
