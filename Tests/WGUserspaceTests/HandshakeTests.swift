import Inet
import Noise
import TestSupport
import Testing
import WGUserspace

@Suite struct HandshakeTests {
    @Test("either side can begin, with and without a preshared key", arguments: [true, false], [true, false])
    func bothWays(aBegins: Bool, presharedKey: Bool) throws {
        let nodes = TwoDevices(presharedKey: presharedKey)
        let first = aBegins ? nodes.a : nodes.b
        nodes.send(7, from: first)
        nodes.advance(by: .seconds(1))
        #expect(nodes.other(first).received == [7])
        nodes.send(8, from: nodes.other(first))
        nodes.advance(by: .seconds(1))
        #expect(first.received == [8])
        #expect(nodes.sent(1, by: first).count == 1)
        #expect(nodes.sent(1, by: nodes.other(first)).isEmpty)
        #expect(first.events.contains(.sessionEstablished(try first.peer)))
        #expect(nodes.other(first).events.contains(.sessionEstablished(try nodes.other(first).peer)))
        #expect(try first.status().lastHandshakeWallTime != nil)
        #expect(try first.status().hasPresharedKey == presharedKey)
        #expect(nodes.a.device.drops.total == 0 && nodes.b.device.drops.total == 0)
    }

    @Test("an initiator without traffic confirms the session with a keepalive")
    func confirmation() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        #expect(nodes.sent(4, by: nodes.a).map(\.isKeepalive) == [true])
    }

    @Test("the responder does not send before the session is confirmed, and does not begin another handshake meanwhile")
    func waitsForConfirmation() throws {
        let nodes = TwoDevices()
        nodes.a.device.initiateHandshake(with: try nodes.a.peer, now: nodes.now)
        nodes.advance(by: .milliseconds(21))
        #expect(nodes.sent(2, by: nodes.b).count == 1)
        #expect(nodes.send(1, from: nodes.b) == .staged(try nodes.b.peer))
        #expect(nodes.sent(1, by: nodes.b).isEmpty)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.a.received == [1])
    }

    @Test("a peer that is not configured is dropped and counted")
    func unknownPeer() throws {
        let nodes = TwoDevices()
        nodes.b.device.removePeer(try nodes.b.peer, now: nodes.now)
        nodes.send(from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.drops(.unknownPeer) == 1)
        #expect(nodes.sent(2, by: nodes.b).isEmpty)
    }

    @Test("an initiation to another key fails at mac1")
    func wrongKey() throws {
        let nodes = TwoDevices()
        let stranger = Node(3, seed: 1)
        stranger.device.setPeer(PeerConfiguration(publicKey: nodes.a.publicKey, allowedIPs: []), now: nodes.now)
        nodes.send(from: nodes.a)
        let initiation = try #require(nodes.sent(1, by: nodes.a).first)
        #expect(nodes.deliver(initiation.bytes, to: stranger, from: nodes.a.endpoint) == .dropped(.invalidMAC1))
    }

    @Test("different preshared keys are found out at the response, and the initiator tries on")
    func wrongPresharedKey() throws {
        let nodes = TwoDevices(presharedKey: true)
        nodes.a.device.setPeer(
            PeerConfiguration(
                publicKey: nodes.b.publicKey, presharedKey: StoredPresharedKey(.generate(using: .seeded(99))),
                endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: nodes.b.address)]), now: nodes.now)
        nodes.send(from: nodes.a)
        nodes.advance(by: .seconds(11))
        #expect(nodes.sent(1, by: nodes.a).count == 3)
        #expect(nodes.a.drops(.handshakeNotAuthentic) == 3)
        #expect(try !nodes.a.status().hasSession)
        #expect(nodes.b.received.isEmpty)
    }

    @Test("a replayed initiation is dropped, and does not move the endpoint")
    func replayedInitiation() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let initiation = try #require(nodes.sent(1, by: nodes.a).first)
        nodes.advance(by: .seconds(10))
        let elsewhere = SocketEndpoint(IPAddress(v4: 203, 0, 113, 9), port: 1)
        #expect(nodes.deliver(initiation.bytes, to: nodes.b, from: elsewhere) == .dropped(.staleTimestamp))
        #expect(try nodes.b.status().endpoint == nodes.a.endpoint)
        #expect(try nodes.b.status().refusedTimestamps == 1)
        #expect(try nodes.b.status().lastRefusedTimestamp == nodes.b.status().lastTimestamp)
        #expect(nodes.sent(2, by: nodes.b).count == 1)
        nodes.b.device.forgetTimestamp(of: try nodes.b.peer)
        #expect(nodes.deliver(initiation.bytes, to: nodes.b, from: elsewhere) == .handled)
    }

    @Test("a timestamp that was stored before a restart refuses older initiations")
    func storedTimestamp() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let initiation = try #require(nodes.sent(1, by: nodes.a).first)
        let last = try #require(try nodes.b.status().lastTimestamp)
        nodes.b.restart(seed: 5)
        nodes.b.device.setPeer(
            PeerConfiguration(publicKey: nodes.a.publicKey, allowedIPs: [IPPrefix(host: nodes.a.address)], lastTimestamp: last),
            now: nodes.now)
        #expect(nodes.deliver(initiation.bytes, to: nodes.b) == .dropped(.staleTimestamp))
    }

    @Test("timestamps grow though the clock stands still, steps back, or the program starts again")
    func clockSteps() throws {
        var configuration = DeviceConfiguration()
        configuration.lastSentTimestamp = TAI64N(WallTime(seconds: 1_800_000_000))
        let nodes = TwoDevices(configuration: configuration)
        nodes.isDelivered = { $0.type == 1 }
        nodes.latency = .zero
        nodes.send(from: nodes.a)
        nodes.advance(by: .seconds(30))
        #expect(nodes.sent(1, by: nodes.a).count >= 5)
        #expect(nodes.b.drops(.staleTimestamp) == 0)
        #expect(nodes.a.device.lastSentTimestamp ?? TAI64N(WallTime(seconds: 0)) > TAI64N(WallTime(seconds: 1_800_000_000)))
    }

    @Test("initiations closer than 20 ms are dropped")
    func flood() throws {
        let nodes = TwoDevices()
        var initiations: [[UInt8]] = []
        nodes.isDelivered = { _ in false }
        nodes.send(from: nodes.a)
        nodes.advance(by: .seconds(20))
        initiations = nodes.sent(1, by: nodes.a).map(\.bytes)
        try #require(initiations.count >= 4)
        #expect(nodes.deliver(initiations[0], to: nodes.b) == .handled)
        nodes.now += .microseconds(19_999)
        #expect(nodes.deliver(initiations[1], to: nodes.b) == .dropped(.initiationFlood))
        nodes.now += .microseconds(1)
        #expect(nodes.deliver(initiations[2], to: nodes.b) == .handled)
    }

    @Test("a handshake message with any bit turned over, or cut anywhere, is dropped and counted, and the true one still works")
    func damagedMessages() throws {
        let nodes = TwoDevices(presharedKey: true)
        nodes.isDelivered = { _ in false }
        nodes.send(5, from: nodes.a)
        let initiation = try #require(nodes.sent(1, by: nodes.a).last).bytes
        expectDamageDropped(initiation, to: nodes.b, of: nodes)
        #expect(nodes.deliver(initiation, to: nodes.b) == .handled)
        nodes.flush()
        let response = try #require(nodes.sent(2, by: nodes.b).last).bytes
        expectDamageDropped(response, to: nodes.a, of: nodes)
        #expect(nodes.deliver(response, to: nodes.a) == .handled)
        nodes.flush()
        let data = try #require(nodes.sent(4, by: nodes.a).last).bytes
        expectDamageDropped(data, to: nodes.b, of: nodes)
        #expect(try !nodes.b.status().hasSession)
        nodes.deliver(data, to: nodes.b)
        #expect(nodes.b.received == [5])
    }

    private func expectDamageDropped(_ message: [UInt8], to node: Node, of nodes: TwoDevices) {
        let before = node.device.drops.total
        var count: UInt64 = 0
        func expectDropped(_ bytes: [UInt8], _ what: String) {
            count += 1
            if case .dropped = nodes.deliver(bytes, to: node) { return }
            Issue.record("\(what) of message \(message[0]) got through")
        }
        // mac2, the last 16 bytes of a handshake message, counts only under load.
        let end = message[0] == 4 ? message.count : message.count - 16
        for offset in 0..<end { expectDropped(message.flipping(bit: offset % 8, at: offset), "bit \(offset % 8) of byte \(offset)") }
        for length in 0..<message.count { expectDropped(Array(message.prefix(length)), "the first \(length) bytes") }
        expectDropped(message + [0], "one byte more")
        #expect(node.device.drops.total == before + count)
    }

    @Test("a forged response with a valid mac1 does not end the handshake")
    func forgedResponse() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        nodes.deliver(try #require(nodes.sent(1, by: nodes.a).last).bytes, to: nodes.b)
        nodes.flush()
        let response = try #require(nodes.sent(2, by: nodes.b).last).bytes
        let keys = MACKeys(publicKey: nodes.a.publicKey)
        for offset in stride(from: 12, to: 60, by: 5) {
            var forged = response.flipping(bit: 0, at: offset)
            forged.withSpan { keys.writeMAC1(into: &$0, byteCount: 92) }
            #expect(nodes.deliver(forged, to: nodes.a) == .dropped(.handshakeNotAuthentic))
        }
        #expect(nodes.deliver(response, to: nodes.a) == .handled)
        #expect(nodes.deliver(response, to: nodes.a) == .dropped(.unknownReceiverIndex))
    }

    @Test("a response to nothing, or to an earlier initiation, is dropped")
    func staleResponse() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        nodes.send(from: nodes.a)
        nodes.deliver(try #require(nodes.sent(1, by: nodes.a).last).bytes, to: nodes.b)
        nodes.flush()
        let response = try #require(nodes.sent(2, by: nodes.b).last).bytes
        nodes.advance(by: .seconds(6))
        #expect(nodes.sent(1, by: nodes.a).count == 2)
        #expect(nodes.deliver(response, to: nodes.a) == .dropped(.unknownReceiverIndex))
    }

    @Test("initiations that cross both complete, no packet waits for a retry, and both sides settle on one keypair", arguments: 1...8)
    func crossing(seed: Int) throws {
        let nodes = TwoDevices(seed: UInt64(seed))
        nodes.send(1, from: nodes.a)
        nodes.send(2, from: nodes.b)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.b.received == [1] && nodes.a.received == [2])
        #expect(nodes.sent(1, by: nodes.a).count == 1 && nodes.sent(1, by: nodes.b).count == 1)
        #expect(nodes.sent(2, by: nodes.a).count == 1 && nodes.sent(2, by: nodes.b).count == 1)
        // From then on there is one initiator: in ten minutes of traffic both ways nobody's initiations cross again.
        let start = nodes.now
        for number in UInt32(10)..<1210 {
            nodes.send(number, from: nodes.a)
            nodes.send(number, from: nodes.b)
            nodes.advance(by: .milliseconds(500))
        }
        let initiations = (nodes.sent(1, by: nodes.a, since: start).count, nodes.sent(1, by: nodes.b, since: start).count)
        #expect(min(initiations.0, initiations.1) == 0 && max(initiations.0, initiations.1) == 4, "\(initiations)")
        #expect(nodes.a.received.count == 1201 && nodes.b.received.count == 1201)
        #expect(nodes.a.device.drops.total == 0 && nodes.b.device.drops.total == 0)
    }

    @Test("rekeying initiations that cross lose nothing that is under way")
    func crossingRekey() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.advance(by: .seconds(6))
        nodes.latency = .milliseconds(150)
        var number: UInt32 = 0
        for round in 0..<60 {
            if round == 20 {
                nodes.a.device.initiateHandshake(with: try nodes.a.peer, now: nodes.now)
                nodes.b.device.initiateHandshake(with: try nodes.b.peer, now: nodes.now)
                nodes.flush()
            }
            number += 1
            nodes.send(number, from: nodes.a)
            nodes.send(number, from: nodes.b)
            nodes.advance(by: .milliseconds(10))
        }
        nodes.advance(by: .seconds(1))
        #expect(nodes.sent(1, by: nodes.b).count == 1)
        #expect(nodes.a.received == Array(1...60) && nodes.b.received == Array(1...60))
        #expect(nodes.a.device.drops.total == 0 && nodes.b.device.drops.total == 0)
    }

    @Test("a peer with a key of low order can neither begin nor be begun with")
    func lowOrderPeer() throws {
        let nodes = TwoDevices()
        let key = try #require(PublicKey(base64: String(repeating: "A", count: 43) + "="))
        let address = IPAddress(v4: 10, 0, 0, 77)
        let id = nodes.a.device.setPeer(
            PeerConfiguration(publicKey: key, endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: address)]), now: nodes.now)
        nodes.a.device.initiateHandshake(with: id, now: nodes.now)
        #expect(nodes.sendRaw(packet(1, from: nodes.a.address, to: address), from: nodes.a) == .dropped(.unusablePeer))
        #expect(nodes.poll(nodes.a) == nil)
    }
}

/// Two initiations that cross on the way, which stall for 5 s elsewhere.
@Suite struct CrossingTests {
    @Test("initiations that cross complete without a stall, for every delay and gap between them", arguments: 0..<8)
    func noStall(run: Int) throws {
        let seed = UInt64.random(in: 0..<1_000_000) &* 10 &+ UInt64(run)
        let random = RandomSource.seeded(seed)
        for round in 0..<60 {
            let nodes = TwoDevices(seed: seed &+ UInt64(round))
            let there = Duration.microseconds(Int64(1000 + random.next(below: 300_000)))
            let back = Duration.microseconds(Int64(1000 + random.next(below: 300_000)))
            let gap = Duration.microseconds(Int64(random.next(below: 700_000)))
            let roundTrip = there + back
            nodes.delay = { [unowned nodes] in [$0.source == nodes.a.endpoint ? there : back] }
            let what = "seed \(seed) round \(round): there \(there), back \(back), gap \(gap)"
            nodes.send(1, from: nodes.a)
            nodes.advance(by: gap)
            nodes.send(2, from: nodes.b)
            // Each needs its own handshake at most: one round trip, and the way of the packet.
            nodes.advance(by: roundTrip + max(there, back) + .milliseconds(1))
            #expect(nodes.b.received == [1] && nodes.a.received == [2], "\(what)")
            // And what follows at once goes through too, whichever of the keypairs is in use.
            let start = nodes.now
            for number in UInt32(10)..<30 {
                nodes.send(number, from: nodes.a)
                nodes.send(number, from: nodes.b)
                nodes.advance(by: .milliseconds(Int64(random.next(below: 200))))
            }
            nodes.advance(by: roundTrip)
            #expect(nodes.a.received.count == 21 && nodes.b.received.count == 21, "\(what)")
            #expect(nodes.sent(1, by: nodes.a, since: start).isEmpty && nodes.sent(1, by: nodes.b, since: start).isEmpty, "\(what)")
            #expect(nodes.a.device.indexCount <= 4 && nodes.b.device.indexCount <= 4, "\(what)")
        }
    }

    /// Two handshakes within a round trip drop the keys before the last two, as everywhere; what is under way with those is lost.
    @Test(
        "re-keying initiations that cross stall nobody, and lose no more than what is under way once, for every delay and gap",
        arguments: 0..<6)
    func rekey(run: Int) throws {
        let seed = UInt64.random(in: 0..<1_000_000) &* 10 &+ UInt64(run)
        let random = RandomSource.seeded(seed)
        for round in 0..<25 {
            let nodes = TwoDevices(seed: seed &+ UInt64(round))
            let there = Duration.microseconds(Int64(1000 + random.next(below: 200_000)))
            let back = Duration.microseconds(Int64(1000 + random.next(below: 200_000)))
            nodes.delay = { [unowned nodes] in [$0.source == nodes.a.endpoint ? there : back] }
            nodes.send(0, from: nodes.a)
            nodes.advance(by: .seconds(10))
            let gap = Int64(random.next(below: 500_000))
            var sent: UInt32 = 0
            var askedB = false
            nodes.a.device.initiateHandshake(with: try nodes.a.peer, now: nodes.now)
            let start = nodes.now
            while nodes.now < start + .seconds(4) {
                if !askedB, nodes.now >= start + .microseconds(gap) {
                    askedB = true
                    nodes.b.device.initiateHandshake(with: try nodes.b.peer, now: nodes.now)
                }
                sent += 1
                nodes.send(sent, from: nodes.a)
                nodes.send(sent, from: nodes.b)
                nodes.advance(by: .milliseconds(20))
            }
            nodes.advance(by: .seconds(1))
            let what = "seed \(seed) round \(round): there \(there), back \(back), gap \(gap)"
            let roundTrip = there + back
            let settled = UInt32((.microseconds(gap) + roundTrip + roundTrip) / .milliseconds(20)) + 1
            for node in [nodes.a, nodes.b] {
                #expect(Set(node.received).count == node.received.count, "\(what)")
                #expect(node.received.filter { $0 > settled } == Array(settled + 1...sent), "\(what)")
                let lost = (1...settled).filter { !node.received.contains($0) }.count
                #expect(Double(lost) <= roundTrip / .milliseconds(20) + 1, "\(what)")
                for reason in DropReason.allCases where reason != .unknownReceiverIndex { #expect(node.drops(reason) == 0, "\(what)") }
            }
            #expect(nodes.sent(1, by: nodes.a, since: start).count == 1 && nodes.sent(1, by: nodes.b, since: start).count <= 1, "\(what)")
        }
    }
}
