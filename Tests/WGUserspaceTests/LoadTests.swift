import Inet
import Noise
import Testing
import WGUserspace

/// Handshakes come faster than they can be served: the queue, the load signal, cookies, the rate of a source.
@Suite struct LoadTests {
    /// An initiation with a right mac1 and nothing else right, which anybody can make who knows the public key.
    private func junk(to node: Node, _ random: RandomSource) -> [UInt8] {
        var message = [UInt8](repeating: 0, count: 148)
        let keys = MACKeys(publicKey: node.publicKey)
        message.withSpan {
            random.fill(&$0)
            $0.storeLittleEndian(UInt32(1), at: 0)
            keys.writeMAC1(into: &$0, byteCount: 148)
        }
        return message
    }

    private func receive(_ message: [UInt8], _ node: Node, of nodes: TwoDevices, from source: SocketEndpoint) -> ReceiveResult {
        var message = message
        return message.withSpan { node.device.receive(&$0, from: source, now: nodes.now, wallTime: nodes.wallTime) }
    }

    private func isLoaded(_ node: Node, _ nodes: TwoDevices) -> Bool { node.isUnderLoad(now: nodes.now) }

    private let stranger = SocketEndpoint(IPAddress(v4: 198, 51, 100, 7), port: 7)

    // MARK: - Queue

    @Test("4,096 handshake messages wait, behind data; the newest is dropped, and all are served in turn")
    func queue() throws {
        let nodes = TwoDevices()
        try nodes.connect()
        let random = RandomSource.seeded(1)
        for count in 0..<5000 {
            let result = receive(junk(to: nodes.b, random), nodes.b, of: nodes, from: stranger)
            #expect(result == (count < 4096 ? .queued : .dropped(.handshakeQueueFull)))
        }
        #expect(nodes.b.device.queuedHandshakeCount == 4096)
        #expect(nodes.b.drops(.handshakeQueueFull) == 904)
        // Data does not wait.
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .milliseconds(30))
        #expect(nodes.b.received == [1])
        #expect(nodes.b.device.queuedHandshakeCount == 4096)
        var served = 0
        while nodes.b.device.handleQueuedHandshake(now: nodes.now, wallTime: nodes.wallTime) != nil { served += 1 }
        #expect(served == 4096)
        #expect(nodes.b.device.queuedHandshakeCount == 0)
        #expect(nodes.b.drops(.cookieRequired) + nodes.b.drops(.cookieReplyQueueFull) == 4096)
    }

    @Test("what waits keeps its bytes, its source and its order, whatever was read in between")
    func queueOrder() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        let random = RandomSource.seeded(2)
        // A true initiation somewhere among others; only it is answered, and to where it came from.
        nodes.send(1, from: nodes.a)
        let initiation = try #require(nodes.sent(1, by: nodes.a).last).bytes
        for round in 0..<3 {
            for _ in 0..<100 * (round + 1) { _ = receive(junk(to: nodes.b, random), nodes.b, of: nodes, from: stranger) }
            for _ in 0..<90 { nodes.b.device.handleQueuedHandshake(now: nodes.now, wallTime: nodes.wallTime) }
        }
        let elsewhere = SocketEndpoint(try #require(IPAddress("2001:db8::77")), port: 60_001)
        #expect(receive(initiation, nodes.b, of: nodes, from: elsewhere) == .queued)
        var results: [ReceiveResult] = []
        while let result = nodes.b.device.handleQueuedHandshake(now: nodes.now, wallTime: nodes.wallTime) { results.append(result) }
        #expect(results.last == .handled)
        #expect(try nodes.b.status().endpoint == elsewhere)
    }

    @Test("a message with a wrong mac1 does not wait")
    func wrongMAC1() {
        let nodes = TwoDevices()
        let message = junk(to: nodes.a, .seeded(1))
        #expect(receive(message, nodes.b, of: nodes, from: stranger) == .dropped(.invalidMAC1))
        #expect(nodes.b.device.queuedHandshakeCount == 0)
    }

    // MARK: - Load

    @Test("an eighth of the queue is load, until a second after the last such moment; begin and end are told")
    func queueLoad() {
        let nodes = TwoDevices()
        let random = RandomSource.seeded(3)
        for _ in 0..<511 { _ = receive(junk(to: nodes.b, random), nodes.b, of: nodes, from: stranger) }
        nodes.b.device.handleQueuedHandshake(now: nodes.now, wallTime: nodes.wallTime)
        #expect(!isLoaded(nodes.b, nodes))
        for _ in 0..<2 { _ = receive(junk(to: nodes.b, random), nodes.b, of: nodes, from: stranger) }
        nodes.b.device.handleQueuedHandshake(now: nodes.now, wallTime: nodes.wallTime)
        #expect(isLoaded(nodes.b, nodes))
        while nodes.b.device.handleQueuedHandshake(now: nodes.now, wallTime: nodes.wallTime) != nil {}
        nodes.flush()
        #expect(nodes.b.events.filter { $0 == .underLoad(true) }.count == 1)
        nodes.advance(by: .milliseconds(999))
        #expect(isLoaded(nodes.b, nodes))
        #expect(!nodes.b.events.contains(.underLoad(false)))
        // Nothing comes, and yet the end is told: it is a deadline.
        nodes.advance(by: .milliseconds(2))
        #expect(!isLoaded(nodes.b, nodes))
        #expect(nodes.b.events.filter { $0 == .underLoad(false) }.count == 1)
    }

    @Test("more than a fifth of the last second spent on handshakes is load; a fifth is not, nor is what was longer ago")
    func workLoad() {
        let nodes = TwoDevices()
        for _ in 0..<100 {
            nodes.b.device.recordHandshakeWork(.milliseconds(20), now: nodes.now)
            nodes.now += .milliseconds(125)
        }
        #expect(!isLoaded(nodes.b, nodes))
        nodes.b.device.recordHandshakeWork(.milliseconds(200), now: nodes.now)
        #expect(isLoaded(nodes.b, nodes))
        nodes.advance(by: .seconds(3))
        #expect(!isLoaded(nodes.b, nodes))
        nodes.b.device.recordHandshakeWork(.milliseconds(200), now: nodes.now)
        #expect(!isLoaded(nodes.b, nodes))
        nodes.b.device.recordHandshakeWork(.milliseconds(1), now: nodes.now)
        #expect(isLoaded(nodes.b, nodes))
        nodes.b.device.recordHandshakeWork(.seconds(Int64.max), now: nodes.now)
    }

    // MARK: - Cookies

    /// Keeps a node under load.
    private func load(_ node: Node, _ nodes: TwoDevices) { node.device.recordHandshakeWork(.milliseconds(300), now: nodes.now) }

    @Test("under load an initiation without mac2 gets a cookie and nothing else; the next one has it at once, and the handshake completes")
    func cookieForInitiation() throws {
        let nodes = TwoDevices()
        let before = try nodes.a.status().endpoint
        load(nodes.b, nodes)
        nodes.isDelivered = { $0.type != 3 }
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.sent(2, by: nodes.b).isEmpty)
        let reply = try #require(nodes.sent(3, by: nodes.b).first)
        #expect(reply.bytes.count == 64)
        #expect(reply.destination == nodes.a.endpoint)
        // It leaves from the address that was asked.
        #expect(reply.local == nodes.b.endpoint.address)
        #expect(nodes.b.drops(.cookieRequired) == 1)
        #expect(nodes.b.device.counters.cookieRepliesSent == 1)
        // No key agreement was computed: no initiation was accepted or refused.
        #expect(nodes.b.device.counters.initiationsReceived == 0)
        #expect(nodes.sent(1, by: nodes.a).count == 1)
        #expect(nodes.deliver(reply.bytes, to: nodes.a) == .handled)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.a.device.counters.cookiesReceived == 1)
        #expect(try nodes.a.status().endpoint == before)
        #expect(nodes.sent(1, by: nodes.a).count == 2)
        #expect(nodes.b.received == [1])
        #expect(nodes.sent(3, by: nodes.b).count == 1)
    }

    @Test("cookie replies make the initiator send once at once, then once in 5 s, whoever forges them")
    func forgedCookies() {
        let nodes = TwoDevices()
        // Somebody on the way answers each initiation with a cookie that is worth nothing.
        nodes.isDelivered = { _ in false }
        nodes.send(1, from: nodes.a)
        let start = nodes.now
        let worthless = Cookie(source: [192, 0, 2, 1, 0, 1].span.bytes, secret: SecretBytes(count: 32))
        var answered = 0
        while nodes.now < start + .seconds(60) {
            let initiations = nodes.sent(1, by: nodes.a)
            for initiation in initiations[answered...] {
                let bytes = initiation.bytes.span.bytes
                guard let mac1 = MAC(bytes, at: 116) else { return #expect(Bool(false), "no mac1") }
                var reply = [UInt8](repeating: 0, count: HandshakeMessage.cookieReplyByteCount)
                reply.withSpan {
                    worthless.writeReply(
                        into: &$0, receiverIndex: bytes.littleEndian32(at: 4), mac1: mac1,
                        keys: MACKeys(publicKey: nodes.b.publicKey), random: .seeded(9))
                }
                #expect(nodes.deliver(reply, to: nodes.a) == .handled)
            }
            answered = initiations.count
            nodes.advance(by: .milliseconds(100))
        }
        // The first, the one at once, and the ones that REKEY-TIMEOUT and its jitter allow.
        #expect((12...13).contains(nodes.sent(1, by: nodes.a).count))
    }

    @Test("a response is answered by a cookie too, and the next response has it")
    func cookieForResponse() throws {
        let nodes = TwoDevices()
        load(nodes.a, nodes)
        nodes.send(1, from: nodes.a)
        nodes.advance(by: .milliseconds(100))
        #expect(nodes.sent(2, by: nodes.b).count == 1)
        #expect(nodes.sent(3, by: nodes.a).map(\.destination) == [nodes.b.endpoint])
        #expect(nodes.b.device.counters.cookiesReceived == 1)
        #expect(try !nodes.a.status().hasSession)
        nodes.advance(by: .milliseconds(4800))
        load(nodes.a, nodes)
        nodes.advance(by: .seconds(1))
        #expect(nodes.b.received == [1])
        #expect(nodes.sent(3, by: nodes.a).count == 1)
        #expect(nodes.a.drops(.cookieRequired) == 1)
    }

    @Test("a cookie is good for the address and port that it was sent to, and for nobody else's")
    func cookieOfAnotherSource() throws {
        let nodes = TwoDevices()
        nodes.isDelivered = { _ in false }
        let message = try messageWithCookie(nodes)
        load(nodes.b, nodes)
        var other = nodes.a.endpoint
        other.port += 1
        #expect(nodes.deliver(message, to: nodes.b, from: other) == .dropped(.cookieRequired))
        other = SocketEndpoint(IPAddress(v4: 192, 0, 2, 99), port: nodes.a.endpoint.port)
        #expect(nodes.deliver(message, to: nodes.b, from: other) == .dropped(.cookieRequired))
        #expect(nodes.deliver(message.flipping(bit: 0, at: 147), to: nodes.b) == .dropped(.cookieRequired))
        #expect(nodes.deliver(message, to: nodes.b) == .handled)
    }

    /// An initiation of `a` whose mac2 is made with a cookie of `b`; nothing is delivered.
    private func messageWithCookie(_ nodes: TwoDevices) throws -> [UInt8] {
        nodes.isDelivered = { _ in false }
        load(nodes.b, nodes)
        nodes.send(1, from: nodes.a)
        nodes.deliver(try #require(nodes.sent(1, by: nodes.a).last).bytes, to: nodes.b)
        nodes.flush()
        nodes.deliver(try #require(nodes.sent(3, by: nodes.b).last).bytes, to: nodes.a)
        nodes.advance(by: .seconds(6))
        return try #require(nodes.sent(1, by: nodes.a).last).bytes
    }

    @Test("a cookie is taken for as long as its owner uses it; its secret is changed every 120 s and forgotten 120 s later")
    func secretRotation() throws {
        for (age, isTaken) in [(119, true), (121, true), (239, true), (241, false)] {
            let nodes = TwoDevices()
            let message = try messageWithCookie(nodes)
            // The secret is 6 s old by now.
            nodes.now += .seconds(age - 6)
            load(nodes.b, nodes)
            let result = nodes.deliver(message, to: nodes.b)
            #expect(result == (isTaken ? .handled : .dropped(.cookieRequired)), "\(age) s")
        }
    }

    @Test("cookie replies that wait to be sent are bounded, and none is longer than what it answers")
    func replyBound() {
        let nodes = TwoDevices()
        let random = RandomSource.seeded(9)
        load(nodes.b, nodes)
        for _ in 0..<600 { nodes.deliver(junk(to: nodes.b, random), to: nodes.b, from: stranger) }
        var replies = 0
        while let reply = nodes.poll(nodes.b) {
            #expect(reply.type == 3 && reply.bytes.count == 64 && reply.destination == stranger)
            replies += 1
        }
        #expect(replies == Constants.maximumCookieReplies)
        #expect(nodes.b.drops(.cookieReplyQueueFull) == 600 - UInt64(replies))
    }

    @Test("after mac2 a source is served 5 times at once; its 6th message costs no key agreement")
    func rateLimit() throws {
        let nodes = TwoDevices()
        let message = try messageWithCookie(nodes)
        load(nodes.b, nodes)
        var results: [ReceiveResult] = []
        for _ in 0..<8 { results.append(nodes.deliver(message, to: nodes.b)) }
        #expect(results.first == .handled)
        #expect(results[1...4].allSatisfy { $0 == .dropped(.staleTimestamp) })
        #expect(results[5...].allSatisfy { $0 == .dropped(.rateLimited) })
        #expect(nodes.b.drops(.rateLimited) == 3)
    }

    @Test("without load neither mac2 nor the rate counts")
    func noLoad() throws {
        let nodes = TwoDevices()
        let random = RandomSource.seeded(11)
        for _ in 0..<50 { nodes.deliver(junk(to: nodes.b, random), to: nodes.b, from: stranger) }
        #expect(nodes.b.drops(.cookieRequired) == 0 && nodes.b.drops(.rateLimited) == 0)
        #expect(nodes.b.drops(.handshakeNotAuthentic) + nodes.b.drops(.lowOrderPoint) == 50)
    }

    @Test("a flood of right mac1s from everywhere: a lawful peer completes its handshake with its first retry")
    func lawfulPeerInFlood() throws {
        let nodes = TwoDevices()
        let random = RandomSource.seeded(12)
        // Each millisecond 5 messages of the flood; serving one takes 100 microseconds, a cookie 5.
        for step in 0..<6500 {
            if step == 1000 { nodes.send(1, from: nodes.a) }
            for _ in 0..<5 {
                let source = SocketEndpoint(
                    IPAddress(v4: 0x7F00_0000 + UInt32(random.next(below: 1 << 24))), port: UInt16(step % 60_000 + 1))
                _ = receive(junk(to: nodes.b, random), nodes.b, of: nodes, from: source)
            }
            var spent = Duration.zero
            while spent < .microseconds(900), let result = nodes.b.device.handleQueuedHandshake(now: nodes.now, wallTime: nodes.wallTime) {
                spent += result == .dropped(.cookieRequired) ? .microseconds(5) : .microseconds(100)
            }
            nodes.b.device.recordHandshakeWork(spent, now: nodes.now)
            nodes.advance(by: .milliseconds(1))
            // The replies to the flood go nowhere.
            nodes.clearTrace()
            if !nodes.b.received.isEmpty { break }
        }
        #expect(nodes.b.received == [1])
        #expect(nodes.b.drops(.cookieRequired) > 1000)
    }
}
