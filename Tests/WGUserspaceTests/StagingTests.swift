import Inet
import Testing
import WGUserspace

@Suite struct StagingTests {
    private func configuration(packets: Int = 4, bytes: Int = 1000, total: Int = 1_000_000) -> DeviceConfiguration {
        var configuration = DeviceConfiguration()
        configuration.stagedPacketsPerPeer = packets
        configuration.stagedBytesPerPeer = bytes
        configuration.stagedBytesTotal = total
        return configuration
    }

    @Test("what waits for a session leaves in order when there is one")
    func inOrder() {
        let nodes = TwoDevices()
        for number in UInt32(1)...100 { nodes.send(number, from: nodes.a) }
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == Array(1...100))
        #expect(nodes.a.device.stagedBytes == 0)
    }

    @Test("a peer's packets are bounded by number; the oldest give way")
    func packetBound() {
        let nodes = TwoDevices(configuration: configuration(bytes: 100_000))
        for number in UInt32(1)...10 { nodes.send(number, from: nodes.a) }
        #expect(nodes.a.drops(.stagingPeerFull) == 6)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [7, 8, 9, 10])
    }

    @Test("a peer's packets are bounded by bytes")
    func byteBound() {
        let nodes = TwoDevices(configuration: configuration(packets: 1000))
        for number in UInt32(1)...10 { nodes.send(number, from: nodes.a, size: 300) }
        #expect(nodes.a.device.stagedBytes == 900)
        #expect(nodes.send(11, from: nodes.a, size: 1001) == .dropped(.stagingPeerFull))
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [8, 9, 10])
    }

    @Test("the packets of all peers together are bounded; a peer that has some gives up its own oldest")
    func totalBound() throws {
        let nodes = TwoDevices(configuration: configuration(packets: 100, bytes: 100_000, total: 100))
        let other = Node(3, seed: 9)
        let id = nodes.a.device.setPeer(
            PeerConfiguration(publicKey: other.publicKey, allowedIPs: [IPPrefix(host: other.address)]), now: nodes.now)
        nodes.send(1, from: nodes.a)
        nodes.send(2, from: nodes.a)
        #expect(nodes.sendRaw(packet(3, from: nodes.a.address, to: other.address), from: nodes.a) == .staged(id))
        #expect(nodes.a.device.stagedBytes == 96)
        #expect(nodes.sendRaw(packet(4, from: nodes.a.address, to: other.address, size: 40), from: nodes.a) == .dropped(.stagingFull))
        nodes.send(5, from: nodes.a)
        #expect(nodes.a.device.stagedBytes <= 100)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [1, 2, 5] || nodes.b.received == [2, 5])
        #expect(nodes.a.drops(.stagingFull) >= 2)
    }

    @Test("without an endpoint nothing is begun, but what waits leaves with the peer's own handshake")
    func withoutEndpoint() {
        let nodes = TwoDevices(bKnowsA: false)
        nodes.send(1, from: nodes.b)
        nodes.advance(by: .seconds(20))
        #expect(nodes.sent(1, by: nodes.b).isEmpty)
        nodes.send(2, from: nodes.a)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.a.received == [1] && nodes.b.received == [2])
    }

    @Test("without an endpoint nothing waits for ever")
    func withoutEndpointGivenUp() throws {
        let nodes = TwoDevices(bKnowsA: false)
        nodes.send(1, from: nodes.b)
        nodes.advance(by: .seconds(91))
        #expect(nodes.b.drops(.handshakeGaveUp) == 1)
        #expect(try nodes.b.status().stagedPackets == 0)
    }

    @Test("a removed peer's packets are counted as dropped")
    func removed() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        nodes.send(2, from: nodes.a)
        nodes.a.device.removePeer(try nodes.a.peer, now: nodes.now)
        #expect(nodes.a.drops(.peerRemoved) == 2)
        #expect(nodes.a.device.stagedBytes == 0)
    }

    @Test("events that nobody polls are bounded")
    func eventBound() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.isDelivered = { _ in false }
        for number in UInt32(0)..<5000 { nodes.send(number, from: nodes.a) }
        var port = UInt16(1)
        for datagram in nodes.sent(4, by: nodes.a).dropFirst() {
            var bytes = datagram.bytes
            port += 1
            _ = bytes.withSpan {
                nodes.b.device.receive(
                    &$0, from: SocketEndpoint(IPAddress(v4: 192, 0, 2, 1), port: port), now: nodes.now, wallTime: nodes.wallTime)
            }
        }
        #expect(nodes.b.drops(.eventQueueFull) == 5000 - UInt64(Constants.maximumEvents))
        var count = 0
        while nodes.b.device.pollEvent() != nil { count += 1 }
        #expect(count == Constants.maximumEvents)
    }
}
