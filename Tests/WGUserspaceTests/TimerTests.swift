import Inet
import Noise
import Testing
import WGUserspace

@Suite struct TimerTests {
    private func isInitiation(_ datagram: Datagram) -> Bool { datagram.type == 1 }
    private func isKeepalive(_ datagram: Datagram) -> Bool { datagram.isKeepalive }

    // MARK: - Rekey

    @Test("the initiator asks for new keys with the first packet at 120 s, not before")
    func rekeyOnSend() throws {
        let nodes = TwoDevices()
        nodes.latency = .zero
        try nodes.connect()
        let start = try #require(nodes.a.status().lastHandshake)
        nodes.clearTrace()
        nodes.advance(by: start + .seconds(120) - nodes.now - .nanoseconds(1))
        nodes.send(1, from: nodes.a)
        #expect(nodes.sent(1, by: nodes.a).isEmpty)
        nodes.advance(by: .nanoseconds(1))
        #expect(nodes.sent(1, by: nodes.a).isEmpty)
        nodes.send(2, from: nodes.a)
        #expect(nodes.times(by: nodes.a, isInitiation) == [start + .seconds(120)])
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [1, 2])
        #expect(try nodes.a.status().lastHandshake == start + .seconds(120))
    }

    @Test("the responder does not ask at 120 s")
    func responderDoesNot() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.clearTrace()
        nodes.advance(by: .seconds(130))
        nodes.isDelivered = { $0.source == nodes.b.endpoint }
        nodes.send(1, from: nodes.b)
        #expect(nodes.sent(1, by: nodes.b).isEmpty)
    }

    @Test("the initiator that only receives asks at 165 s, once per keypair")
    func rekeyOnReceive() throws {
        let nodes = TwoDevices()
        nodes.latency = .zero
        try nodes.connect()
        let start = try #require(nodes.a.status().lastHandshake)
        nodes.clearTrace()
        nodes.isDelivered = { $0.source == nodes.b.endpoint }
        nodes.advance(by: start + .seconds(165) - nodes.now - .nanoseconds(1))
        // No keepalive of its own may ask before.
        nodes.send(1, from: nodes.b)
        nodes.advance(by: .zero)
        #expect(nodes.a.received == [1])
        #expect(nodes.sent(1, by: nodes.a).isEmpty)
        nodes.advance(by: .nanoseconds(1))
        nodes.send(2, from: nodes.b)
        nodes.advance(by: .zero)
        #expect(nodes.times(by: nodes.a, isInitiation) == [start + .seconds(165)])
        nodes.send(3, from: nodes.b)
        nodes.advance(by: .zero)
        #expect(nodes.sent(1, by: nodes.a).count == 1)
    }

    @Test("at 180 s nothing is sealed any more; the packet waits for new keys")
    func expiryOnSend() throws {
        let nodes = TwoDevices()
        nodes.latency = .zero
        try nodes.connect()
        let start = try #require(nodes.a.status().lastHandshake)
        nodes.advance(by: start + .seconds(180) - nodes.now - .nanoseconds(1))
        nodes.isDelivered = { _ in false }
        guard case .datagram = nodes.send(1, from: nodes.b) else {
            Issue.record("still valid")
            return
        }
        nodes.now += .nanoseconds(1)
        #expect(nodes.send(2, from: nodes.b) == .staged(try nodes.b.peer))
        #expect(nodes.sent(1, by: nodes.b).count == 1)
        nodes.isDelivered = { _ in true }
        nodes.advance(by: .seconds(6))
        #expect(nodes.a.received == [2])
    }

    @Test("at 180 s nothing is opened any more, though no timer ran")
    func expiryOnReceive() throws {
        let nodes = TwoDevices()
        nodes.latency = .zero
        try nodes.connect()
        let start = try #require(nodes.a.status().lastHandshake)
        nodes.now = start + .seconds(179)
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.b)
        nodes.send(2, from: nodes.b)
        let data = nodes.sent(4, by: nodes.b)
        nodes.now = start + .seconds(180) - .nanoseconds(1)
        nodes.deliver(data[data.count - 2].bytes, to: nodes.a)
        #expect(nodes.a.received == [1])
        nodes.now = start + .seconds(180)
        #expect(nodes.deliver(data[data.count - 1].bytes, to: nodes.a) == .dropped(.expiredKeypair))
    }

    @Test("2^60 messages ask for new keys; the last 2^13 counters are neither sent nor opened")
    func messageLimits() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.advance(by: .seconds(6))
        nodes.a.device.setSendCounter(Constants.rekeyAfterMessages - 1, of: try nodes.a.peer)
        nodes.clearTrace()
        nodes.send(1, from: nodes.a)
        #expect(nodes.sent(1, by: nodes.a).isEmpty)
        nodes.send(2, from: nodes.a)
        #expect(nodes.sent(1, by: nodes.a).count == 1)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [1, 2])

        nodes.advance(by: .seconds(6))
        nodes.isDelivered = { _ in false }
        nodes.a.device.setSendCounter(Constants.rejectAfterMessages - 1, of: try nodes.a.peer)
        nodes.send(3, from: nodes.a)
        #expect(nodes.send(4, from: nodes.a) == .staged(try nodes.a.peer))
        var last = try #require(nodes.sent(4, by: nodes.a).last).bytes
        #expect(nodes.deliver(last, to: nodes.b) == .packet(16..<48, from: try nodes.b.peer))
        last.withSpan { $0.storeLittleEndian(Constants.rejectAfterMessages, at: 8) }
        #expect(nodes.deliver(last, to: nodes.b) == .dropped(.counterLimit))
    }

    // MARK: - Retry

    @Test("an unanswered initiation is repeated every 5 s with jitter and given up after 90 s; new traffic begins again")
    func retryAndGiveUp() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        let start = nodes.now
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(300))
        let times = nodes.times(by: nodes.a, isInitiation)
        #expect((17...18).contains(times.count))
        for (earlier, later) in zip(times, times.dropFirst()) {
            #expect(later - earlier >= .seconds(5) && later - earlier <= .milliseconds(5333))
        }
        #expect(Set(zip(times, times.dropFirst()).map { $1 - $0 }).count > 1)
        #expect((times.last ?? start) < start + .seconds(90))
        let peer = try nodes.a.peer
        #expect(nodes.a.events.filter { $0 == .handshakeGaveUp(peer) }.count == 1)
        #expect(nodes.a.events.filter { $0 == .handshakeRetry(peer) }.count == times.count - 1)
        #expect(nodes.a.drops(.handshakeGaveUp) == 1)
        #expect(try nodes.a.status().stagedPackets == 0)

        nodes.isDelivered = { _ in true }
        nodes.send(2, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [2])
    }

    @Test("a persistent keepalive begins again what was given up")
    func keepaliveRevives() throws {
        let nodes = TwoDevices(keepalive: .seconds(25))
        nodes.isDelivered = { _ in false }
        nodes.advance(by: .seconds(95))
        #expect(nodes.a.events.contains(.handshakeGaveUp(try nodes.a.peer)))
        nodes.isDelivered = { _ in true }
        nodes.advance(by: .seconds(26))
        #expect(try nodes.a.status().hasSession)
    }

    @Test("data that nobody answers for 15 s leads to a new handshake, counted from the first such packet")
    func noAnswer() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.advance(by: .seconds(20))
        nodes.clearTrace()
        nodes.isDelivered = { _ in false }
        let first = nodes.now
        for number in UInt32(0)..<30 {
            nodes.send(number, from: nodes.b)
            nodes.advance(by: .milliseconds(500))
        }
        #expect(nodes.sent(1, by: nodes.b).isEmpty)
        nodes.advance(by: .milliseconds(400))
        let time = try #require(nodes.times(by: nodes.b, isInitiation).first)
        #expect(time >= first + .seconds(15) && time <= first + .milliseconds(15_333))
    }

    @Test("anything authenticated is an answer")
    func anAnswer() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.clearTrace()
        for number in UInt32(0)..<100 {
            nodes.send(number, from: nodes.b)
            nodes.advance(by: .seconds(1))
        }
        #expect(nodes.sent(1, by: nodes.b).isEmpty && nodes.sent(1, by: nodes.a).isEmpty)
    }

    // MARK: - Keepalives

    @Test("received data is answered by a keepalive after 10 s, a keepalive is not answered")
    func passiveKeepalive() throws {
        let nodes = TwoDevices()
        nodes.latency = .zero
        try nodes.connect()
        nodes.advance(by: .seconds(20))
        nodes.clearTrace()
        let start = nodes.now
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(4))
        nodes.send(2, from: nodes.a)
        nodes.advance(by: .seconds(60))
        #expect(nodes.times(by: nodes.b, isKeepalive) == [start + .seconds(10)])
        #expect(nodes.times(by: nodes.a, isKeepalive).isEmpty)
    }

    @Test("data that goes the other way is the answer")
    func noPassiveKeepalive() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.clearTrace()
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(5))
        nodes.send(2, from: nodes.b)
        nodes.advance(by: .seconds(9))
        #expect(nodes.times(by: nodes.b, isKeepalive).isEmpty)
    }

    @Test("the first persistent keepalive leaves at once when it is enabled, the others after silence only")
    func persistentKeepalive() throws {
        let nodes = TwoDevices(keepalive: .seconds(25))
        nodes.latency = .zero
        nodes.flush()
        #expect(nodes.sent(1, by: nodes.a).count == 1)
        nodes.advance(by: .zero)
        let start = nodes.now
        nodes.clearTrace()
        nodes.advance(by: .seconds(10))
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(60))
        // B's passive keepalive at 20 s re-arms it too.
        #expect(nodes.times(by: nodes.a, isKeepalive) == [start + .seconds(45), start + .seconds(70)])
    }

    @Test("a persistent keepalive that is enabled on a living session goes out at once, and no more when it is disabled")
    func toggledKeepalive() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.clearTrace()
        func configure(_ keepalive: Duration?) {
            nodes.a.device.setPeer(
                PeerConfiguration(
                    publicKey: nodes.b.publicKey, endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: nodes.b.address)],
                    persistentKeepalive: keepalive), now: nodes.now)
        }
        configure(.seconds(5))
        nodes.flush()
        #expect(nodes.times(by: nodes.a, isKeepalive) == [nodes.now])
        configure(nil)
        nodes.advance(by: .seconds(60))
        #expect(nodes.times(by: nodes.a, isKeepalive).count == 1)
        #expect(nodes.sent(1, by: nodes.a).isEmpty)
    }

    @Test("a handshake that moves from address to address is given up after 90 s all the same")
    func movingHandshake() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        // What a name with two addresses does on each retry.
        var number: UInt16 = 0
        for _ in 0..<100 where nodes.a.events.last != .handshakeGaveUp(try nodes.a.peer) {
            nodes.advance(by: .seconds(1))
            guard case .handshakeRetry? = nodes.a.events.last else { continue }
            nodes.a.events = []
            number += 1
            nodes.a.device.setEndpoint(SocketEndpoint(IPAddress(v4: 198, 51, 100, 1), port: number), of: try nodes.a.peer, now: nodes.now)
        }
        #expect(nodes.a.events.last == .handshakeGaveUp(try nodes.a.peer))
        #expect(nodes.a.drops(.handshakeGaveUp) == 1)
        let start = try #require(nodes.times(by: nodes.a) { $0.type == 1 }.first)
        #expect(nodes.now - start <= .seconds(91))
        // And it stays quiet.
        nodes.clearTrace()
        nodes.advance(by: .seconds(600))
        #expect(nodes.sent(1, by: nodes.a).isEmpty)
    }

    @Test("a peer whose packets come while it answers no initiation is not silent, and is answered from where it talks to")
    func notSilent() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.isDelivered = { $0.type != 1 }
        for number in UInt32(0)..<140 {
            nodes.send(number, from: nodes.a)
            nodes.send(number, from: nodes.b)
            nodes.advance(by: .seconds(1))
        }
        #expect(nodes.a.device.counters.handshakesRetried > 1)
        #expect(try !nodes.a.status().isSilent && nodes.a.status().localAddress == nodes.a.endpoint.address)
        nodes.isDelivered = { _ in false }
        nodes.advance(by: .seconds(6))
        #expect(try nodes.a.status().isSilent && nodes.a.status().localAddress == nil)
        nodes.isDelivered = { _ in true }
        nodes.advance(by: .seconds(6))
        #expect(try !nodes.a.status().isSilent)
    }

    @Test("an initiation that waits for its turn is not a retry")
    func waitingIsNoRetry() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        nodes.a.device.wipeSessions(now: nodes.now)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(6))
        #expect(nodes.b.received == [1])
        #expect(nodes.a.device.counters.handshakesRetried == 0)
        #expect(!nodes.a.events.contains(.handshakeRetry(try nodes.a.peer)))
    }

    // MARK: - Zeroing

    @Test("after ten minutes of silence no key and no index is left")
    func zeroing() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        #expect(nodes.a.device.indexCount == 1 && nodes.b.device.indexCount == 1)
        // `connect` took 61 ms; the responder's keys are 20 ms old, the initiator's 40 ms younger.
        nodes.advance(by: .milliseconds(539_930))
        #expect(nodes.a.device.indexCount == 1 && nodes.b.device.indexCount == 1)
        nodes.advance(by: .milliseconds(80))
        #expect(nodes.a.device.indexCount == 0 && nodes.b.device.indexCount == 0)
        #expect(try !nodes.a.status().hasSession && !nodes.b.status().hasSession)
        nodes.send(1, from: nodes.b)
        nodes.advance(by: .seconds(1))
        #expect(nodes.a.received == [1])
    }

    @Test("what is left of a handshake that failed is wiped too")
    func zeroingAfterFailure() {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(100))
        #expect(nodes.a.device.indexCount == 1)
        nodes.advance(by: .seconds(540))
        #expect(nodes.a.device.indexCount == 0)
    }

    @Test("all can be wiped at once, as when the machine is suspended; traffic begins anew, a persistent keepalive at once")
    func wipeSessions() throws {
        for keepalive in [nil, Duration.seconds(25)] {
            let nodes = TwoDevices(keepalive: keepalive)
            try nodes.connect()
            nodes.clearTrace()
            nodes.a.device.wipeSessions(now: nodes.now)
            #expect(nodes.a.device.indexCount == 0)
            #expect(try !nodes.a.status().hasSession)
            // REKEY-TIMEOUT has still to pass since the last initiation.
            nodes.advance(by: .seconds(6))
            #expect(nodes.sent(1, by: nodes.a).count == (keepalive == nil ? 0 : 1))
            nodes.send(1, from: nodes.a)
            nodes.advance(by: .seconds(6))
            #expect(nodes.b.received == [1])
        }
    }

    // MARK: - A long time

    @Test("traffic for 24 hours: new keys on time, and not one packet lost")
    func aDay() throws {
        let nodes = TwoDevices()
        let packets: UInt32 = 24 * 3600
        var dropped = UInt64(0)
        for number in 0..<packets {
            nodes.send(number, from: nodes.a)
            nodes.send(number, from: nodes.b)
            nodes.advance(by: .seconds(1))
            dropped = nodes.a.device.drops.total + nodes.b.device.drops.total
            if dropped > 0 { break }
            if number % 1000 == 999 { nodes.clearTrace() }
        }
        nodes.advance(by: .seconds(1))
        #expect(dropped == 0)
        #expect(nodes.a.received == Array(0..<packets))
        #expect(nodes.b.received == Array(0..<packets))
        // The first packets cross, and then one side renews: 120 s, and the packet after it.
        let sessions = nodes.a.device.counters.initiationsSent + nodes.b.device.counters.initiationsSent
        #expect((713...723).contains(sessions), "\(sessions)")
        #expect(nodes.a.device.indexCount <= 3)
    }
}

/// What the device tells its owner about sessions and timestamps.
@Suite struct DeviceEventTests {
    @Test("each timestamp that is sent and accepted is told, in rising order, so that it can be kept")
    func timestamps() throws {
        let nodes = TwoDevices()
        for _ in 0..<5 {
            nodes.send(1, from: nodes.a)
            nodes.advance(by: .seconds(200))
        }
        let sent = nodes.a.events.compactMap { if case .timestampSent(let label) = $0 { label } else { nil } }
        let accepted = nodes.b.events.compactMap { if case .timestampAccepted(_, let label) = $0 { label } else { nil } }
        #expect(sent.count == nodes.sent(1, by: nodes.a).count && sent.count >= 5)
        #expect(sent == accepted)
        #expect(zip(sent, sent.dropFirst()).allSatisfy { $0 < $1 })
        #expect(nodes.a.device.lastSentTimestamp == sent.last)
        #expect(try nodes.b.status().lastTimestamp == accepted.last)
        #expect(try nodes.b.status().handshakes.initiationsReceived == UInt32(accepted.count))
        #expect(try nodes.a.status().handshakes.initiationsSent == UInt32(sent.count))
    }

    @Test("a peer that starts again with its clock set back is refused once it has no memory, which is told once; forgetting helps")
    func refused() throws {
        let nodes = TwoDevices()
        nodes.clockOffset = 7200
        try nodes.connect()
        let last = try #require(try nodes.b.status().lastTimestamp)
        nodes.clockOffset = 0
        nodes.a.restart(seed: 31)
        nodes.a.device.setPeer(
            PeerConfiguration(publicKey: nodes.b.publicKey, endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: nodes.b.address)]),
            now: nodes.now)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(12))
        #expect(nodes.b.received.isEmpty)
        #expect(nodes.b.events.filter { if case .timestampRefused = $0 { true } else { false } }.count == 1)
        let status = try nodes.b.status()
        #expect(status.refusedTimestamps >= 2 && status.lastTimestamp == last)
        let difference = try #require(status.refusedTimestampBehind)
        #expect(difference > .seconds(7100) && difference < .seconds(7200))
        nodes.b.device.forgetTimestamp(of: try nodes.b.peer)
        nodes.advance(by: .seconds(6))
        #expect(nodes.b.received == [1])
    }

    @Test("a peer that keeps its last timestamp across a restart is not refused, though its clock was set back")
    func keptAcrossRestart() throws {
        let nodes = TwoDevices()
        nodes.clockOffset = 7200
        try nodes.connect()
        let last = nodes.a.device.lastSentTimestamp
        nodes.clockOffset = 0
        nodes.a.device.configuration.lastSentTimestamp = last
        nodes.a.restart(seed: 31)
        nodes.a.device.setPeer(
            PeerConfiguration(publicKey: nodes.b.publicKey, endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: nodes.b.address)]),
            now: nodes.now)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.b.received == [1])
        // One unit of 2^24 ns for each initiation.
        #expect(nodes.a.device.lastSentTimestamp == last?.next())
    }

    @Test("a peer whose clock is a year ahead gets through and is warned of; nothing is kept, and its clock may be put right")
    func farAhead() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let kept = try nodes.b.status().lastTimestamp
        nodes.b.events = []
        let year: UInt64 = 365 * 86_400
        var message: [UInt8] = []
        nodes.isDelivered = { _ in false }
        nodes.advance(by: .seconds(10))
        nodes.clockOffset = year
        nodes.a.device.initiateHandshake(with: try nodes.a.peer, now: nodes.now)
        nodes.flush()
        message = try #require(nodes.sent(1, by: nodes.a).last).bytes
        nodes.clockOffset = 0
        #expect(nodes.deliver(message, to: nodes.b) == .handled)
        #expect(nodes.b.events.contains { if case .timestampFarAhead = $0 { true } else { false } })
        #expect(!nodes.b.events.contains { if case .timestampAccepted = $0 { true } else { false } })
        #expect(try nodes.b.status().lastTimestamp == kept)
        nodes.now += .seconds(1)
        #expect(nodes.deliver(message, to: nodes.b) == .dropped(.staleTimestamp))
        // The peer starts again, its clock put right and its memory lost.
        nodes.isDelivered = { _ in true }
        nodes.advance(by: .seconds(10))
        nodes.a.restart(seed: 8)
        nodes.a.device.setPeer(
            PeerConfiguration(publicKey: nodes.b.publicKey, endpoint: nodes.b.endpoint, allowedIPs: [IPPrefix(host: nodes.b.address)]),
            now: nodes.now)
        nodes.send(9, from: nodes.a)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.b.received == [9])
    }

    @Test("a session that nobody answers on, or that is too old, is stale: time to look up the host name again")
    func stale() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let peer = try nodes.a.peer
        nodes.a.events = []
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(14))
        #expect(!nodes.a.events.contains(.sessionStale(peer)))
        nodes.advance(by: .seconds(2))
        #expect(nodes.a.events.filter { $0 == .sessionStale(peer) }.count == 1)
        nodes.isDelivered = { _ in true }
        nodes.advance(by: .seconds(10))
        #expect(nodes.a.events.contains(.sessionEstablished(peer)))
        nodes.a.events = []
        nodes.advance(by: .seconds(300))
        #expect(nodes.a.events.isEmpty)
        nodes.send(2, from: nodes.a)
        nodes.advance(by: .seconds(1))
        #expect(nodes.a.events.contains(.sessionStale(peer)))
        #expect(nodes.b.received.last == 2)
    }

    @Test("handshakes are counted by outcome")
    func outcomes() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        #expect(nodes.a.device.counters.sessionsAsInitiator == 1 && nodes.a.device.counters.sessionsAsResponder == 0)
        #expect(nodes.b.device.counters.sessionsAsInitiator == 0 && nodes.b.device.counters.sessionsAsResponder == 1)
        #expect(nodes.a.device.counters.responsesReceived == 1 && nodes.b.device.counters.initiationsReceived == 1)
        #expect(try nodes.a.status().handshakes.established == 1 && nodes.b.status().handshakes.established == 1)
        nodes.isDelivered = { _ in false }
        nodes.advance(by: .seconds(200))
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .seconds(100))
        #expect(nodes.a.device.counters.handshakesRetried == UInt64(nodes.sent(1, by: nodes.a).count - 2))
        #expect(nodes.a.device.counters.handshakesGivenUp == 1)
        #expect(try nodes.a.status().handshakes.gaveUp == 1)
    }
}
