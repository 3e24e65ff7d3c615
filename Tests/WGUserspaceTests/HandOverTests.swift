import Inet
import Noise
import Testing
import WGUserspace

/// An interface with two loops, whose peers each know it by its one key; in virtual time. What the kernel would give to the wrong loop
/// is given there on purpose.
@Suite struct HandOverTests {
    /// Two devices with one key and a peer each, and those peers.
    final class TwoLoops {
        let loops: [Node]
        let peers: [Node]
        var now = Instant(nanoseconds: 1_000_000_000_000)
        var wallTime: WallTime { WallTime(seconds: 1_700_000_000 + now.nanoseconds / 1_000_000_000, nanoseconds: 0) }

        init(sharesCookies: Bool = true) throws {
            let root = CookieRoot(random: .seeded(77), now: now)
            // The node's key depends on its number and seed alone: both loops have one.
            loops = (0..<2).map { index in
                var configuration = DeviceConfiguration()
                configuration.share = LoopShare(index, of: 2)
                if sharesCookies { configuration.cookieRoot = root }
                return Node(1, seed: 1, configuration: configuration)
            }
            peers = try (0..<2).map { index in
                let node = (2..<100).lazy.map { Node($0, seed: 1) }.first { LoopShare(0, of: 2).loop(of: $0.publicKey) == index }
                return try #require(node)
            }
            for (loop, peer) in zip(loops, peers) {
                loop.device.setPeer(
                    PeerConfiguration(publicKey: peer.publicKey, endpoint: peer.endpoint, allowedIPs: [IPPrefix(host: peer.address)]),
                    now: now)
                peer.device.setPeer(
                    PeerConfiguration(publicKey: loop.publicKey, endpoint: loop.endpoint, allowedIPs: [IPPrefix(host: loop.address)]),
                    now: now)
            }
        }

        /// Hands a packet to a node and answers what it wants to send.
        @discardableResult
        func send(_ number: UInt32, from node: Node, to other: Node) -> [[UInt8]] {
            let inner = packet(number, from: node.address, to: other.address)
            var buffer = [UInt8](repeating: 0, count: inner.count + 64)
            buffer.replaceSubrange(16..<16 + inner.count, with: inner)
            var messages: [[UInt8]] = []
            if case .datagram(let transmit) = buffer.withSpan({ node.device.send(16..<16 + inner.count, in: &$0, now: now) }) {
                messages.append(Array(buffer[transmit.range]))
            }
            return messages + poll(node)
        }

        func poll(_ node: Node) -> [[UInt8]] {
            var messages: [[UInt8]] = []
            var buffer = [UInt8](repeating: 0, count: 2048)
            while let transmit = buffer.withSpan({ node.device.pollTransmit(into: &$0, at: 0, now: now, wallTime: wallTime) }) {
                messages.append(Array(buffer[transmit.range]))
            }
            return messages
        }

        @discardableResult
        func receive(_ bytes: [UInt8], at node: Node, from source: Node) -> ReceiveResult {
            var bytes = bytes
            let result = bytes.withSpan { node.device.receive(&$0, from: source.endpoint, now: now, wallTime: wallTime) }
            if case .packet(let range, from: _) = result { node.received.append(number(in: Array(bytes[range]))) }
            return result == .queued ? node.device.handleQueuedHandshake(now: now, wallTime: wallTime) ?? result : result
        }

        /// The rest of an initiation that was handed over.
        func finish(from loop: Node) -> ReceiveResult? {
            guard let handOver = loop.device.pollHandOver() else { return nil }
            let other = loops[handOver.loop]
            let result = other.device.receive(handOver.initiation)
            return result == .queued ? other.device.handleQueuedHandshake(now: now, wallTime: wallTime) : result
        }

        /// A session of `peers[index]`, begun by it at the first loop.
        func connect(_ index: Int) throws {
            let (peer, loop) = (peers[index], loops[index])
            let initiation = try #require(send(1, from: peer, to: loop).first)
            let result = receive(initiation, at: loops[0], from: peer)
            #expect(index == 0 ? result == .handled : finish(from: loops[0]) == .handled)
            for response in poll(loop) { receive(response, at: peer, from: loop) }
            for data in poll(peer) { receive(data, at: loop, from: peer) }
            #expect(try peer.status(now: now).hasSession && loop.status(now: now).hasSession)
            #expect(loop.received == [1])
        }

        func counters(_ loop: Int) -> DeviceCounters { loops[loop].device.counters }
    }

    @Test("an initiation for the other loop's peer is read once, answered there, and its data goes there")
    func initiation() throws {
        let loops = try TwoLoops()
        try loops.connect(1)
        try loops.connect(0)
        #expect(loops.counters(0).initiationsHandedOver == 1 && loops.counters(0).initiationsReceived == 1)
        #expect(loops.counters(1).initiationsReceived == 1 && loops.counters(1).initiationsHandedOver == 0)
        let reply = try #require(loops.send(7, from: loops.loops[1], to: loops.peers[1]).first)
        #expect(loops.receive(reply, at: loops.peers[1], from: loops.loops[1]) != .handled)
        #expect(loops.peers[1].received == [7])
    }

    @Test("responses, cookie replies and data that come to the wrong loop are for the other one, untouched, and counted")
    func misdirected() throws {
        let loops = try TwoLoops()
        let (loop, peer) = (loops.loops[1], loops.peers[1])
        // Ours begins; the peer is under load first, and its cookie comes to the wrong loop too.
        peer.device.recordHandshakeWork(.milliseconds(300), now: loops.now)
        let first = try #require(loops.send(1, from: loop, to: peer).first)
        #expect(loops.receive(first, at: peer, from: loop) == .dropped(.cookieRequired))
        let cookie = try #require(loops.poll(peer).first)
        #expect(loops.receive(cookie, at: loops.loops[0], from: peer) == .misdirected(to: 1))
        #expect(loops.receive(cookie, at: loop, from: peer) == .handled)
        let second = try #require(loops.poll(loop).first)
        #expect(loops.receive(second, at: peer, from: loop) == .handled)
        let response = try #require(loops.poll(peer).first)
        #expect(response.first == 2)
        #expect(loops.receive(response, at: loops.loops[0], from: peer) == .misdirected(to: 1))
        #expect(loops.receive(response, at: loop, from: peer) == .handled)
        for message in loops.poll(loop) { loops.receive(message, at: peer, from: loop) }
        let data = try #require(loops.send(9, from: peer, to: loop).first)
        #expect(loops.receive(data, at: loops.loops[0], from: peer) == .misdirected(to: 1))
        loops.receive(data, at: loop, from: peer)
        #expect(loop.received == [9] && loops.loops[0].received.isEmpty)
        #expect(loops.counters(0).misdirectedMessages == 3 && loops.counters(1).misdirectedMessages == 0)
        // An index of this loop's that it does not know is nobody's.
        var unknown = data
        unknown[7] &= 0x7F
        #expect(loops.receive(unknown, at: loops.loops[0], from: peer) == .dropped(.unknownReceiverIndex))
        #expect(loops.loops[0].drops(.unknownReceiverIndex) == 1)
    }

    @Test("an initiation of nobody is refused by the loop that would have the peer, without a key agreement of its own")
    func stranger() throws {
        let loops = try TwoLoops()
        let peer = loops.peers[1]
        loops.loops[1].device.removePeer(try loops.loops[1].peer, now: loops.now)
        let initiation = try #require(loops.send(1, from: peer, to: loops.loops[1]).first)
        #expect(loops.receive(initiation, at: loops.loops[0], from: peer) == .misdirected(to: 1))
        #expect(loops.finish(from: loops.loops[0]) == .dropped(.unknownPeer))
        #expect(loops.loops[1].drops(.unknownPeer) == 1)
    }

    @Test("load is judged where an initiation comes in; the cookie of one loop is good at the other, unless each draws its own")
    func cookies() throws {
        for sharesCookies in [true, false] {
            let loops = try TwoLoops(sharesCookies: sharesCookies)
            let peer = loops.peers[1]
            for loop in loops.loops { loop.device.recordHandshakeWork(.milliseconds(300), now: loops.now) }
            let first = try #require(loops.send(1, from: peer, to: loops.loops[1]).first)
            #expect(loops.receive(first, at: loops.loops[0], from: peer) == .dropped(.cookieRequired))
            let cookie = try #require(loops.poll(loops.loops[0]).first)
            #expect(loops.receive(cookie, at: peer, from: loops.loops[0]) == .handled)
            let second = try #require(loops.poll(peer).first)
            let result = loops.receive(second, at: loops.loops[1], from: peer)
            #expect(result == (sharesCookies ? .handled : .dropped(.cookieRequired)))
            // The loop that goes on asks for nothing more, though it is under load.
            #expect(loops.receive(second, at: loops.loops[0], from: peer) == .misdirected(to: 1))
            #expect(loops.finish(from: loops.loops[0]) == (sharesCookies ? .dropped(.staleTimestamp) : .handled))
        }
    }

    @Test("what waits between the loops is bounded; a loop that has no room makes the other one ask for cookies")
    func bounds() throws {
        let loops = try TwoLoops()
        let (peer, first) = (loops.peers[1], loops.loops[0])
        let initiation = try #require(loops.send(1, from: peer, to: loops.loops[1]).first)
        for count in 0..<600 {
            #expect(
                loops.receive(initiation, at: first, from: peer)
                    == (count < Constants.maximumHandedInitiations ? .misdirected(to: 1) : .dropped(.handOverFull)))
        }
        var results: [ReceiveResult] = []
        let more = try TwoLoops()
        let again = try #require(more.send(1, from: more.peers[1], to: more.loops[1]).first)
        more.receive(again, at: more.loops[0], from: more.peers[1])
        while let handOver = first.device.pollHandOver() { results.append(loops.loops[1].device.receive(handOver.initiation)) }
        if let handOver = more.loops[0].device.pollHandOver() { results.append(loops.loops[1].device.receive(handOver.initiation)) }
        #expect(results.count == Constants.maximumHandedInitiations + 1)
        #expect(results.last == .dropped(.handshakeQueueFull) && results.dropLast().allSatisfy { $0 == .queued })
        #expect(loops.loops[1].device.queuedHandshakeCount == Constants.maximumHandedInitiations)
        #expect(!first.isUnderLoad(now: loops.now))
        first.device.handOverFailed(isInitiation: false, now: loops.now)
        #expect(!first.isUnderLoad(now: loops.now))
        first.device.handOverFailed(isInitiation: true, now: loops.now)
        #expect(first.isUnderLoad(now: loops.now) && first.drops(.handOverFull) == 600 - 512 + 2)
    }

    @Test("a peer cannot speak for a narrower block of a peer of the other loop, and nothing is sent to that block from here")
    func spoofing() throws {
        let loops = try TwoLoops()
        let (loop, peer) = (loops.loops[0], loops.peers[0])
        let wide = try #require(IPPrefix("10.0.0.0/8"))
        loop.device.setPeer(PeerConfiguration(publicKey: peer.publicKey, endpoint: peer.endpoint, allowedIPs: [wide]), now: loops.now)
        try loops.connect(0)
        let other = loops.peers[1].address
        func speak() throws -> ReceiveResult {
            let inner = packet(5, from: other, to: loop.address)
            var buffer = [UInt8](repeating: 0, count: inner.count + 64)
            buffer.replaceSubrange(16..<16 + inner.count, with: inner)
            guard case .datagram(let transmit) = buffer.withSpan({ peer.device.send(16..<16 + inner.count, in: &$0, now: loops.now) })
            else {
                return .handled
            }
            return loops.receive(Array(buffer[transmit.range]), at: loop, from: peer)
        }
        #expect(try speak() != .dropped(.sourceNotAllowed))
        loop.device.place([AllowedIPsPlacement(IPPrefix(host: other), loop: 1)])
        #expect(try speak() == .dropped(.sourceNotAllowed))
        #expect(loops.send(6, from: loop, to: loops.peers[1]).isEmpty)
        #expect(loop.drops(.noRoute) == 1)
        loop.device.place([AllowedIPsPlacement(IPPrefix(host: other), loop: nil)])
        #expect(try speak() != .dropped(.sourceNotAllowed))
    }
}
