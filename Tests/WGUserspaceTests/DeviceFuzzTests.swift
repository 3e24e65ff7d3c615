import Inet
import Testing
import WGUserspace

/// Nothing that comes from outside may trap, hang or grow.
@Suite struct DeviceFuzzTests {
    @Test("random bytes, damaged and repeated messages, odd inner packets and odd times never trap", arguments: 0..<6)
    func garbage(run: Int) throws {
        let seed = UInt64.random(in: 0..<1_000_000) &* 10 &+ UInt64(run)
        let random = RandomSource.seeded(seed)
        let nodes = TwoDevices(seed: seed, presharedKey: run % 2 == 0, keepalive: run % 3 == 0 ? .seconds(3) : nil)
        func below(_ bound: Int) -> Int { Int(random.next(below: UInt64(bound))) }
        var corpus: [[UInt8]] = [[]]
        nodes.isDelivered = { datagram in
            if corpus.count < 200 { corpus.append(datagram.bytes) } else { corpus[below(200)] = datagram.bytes }
            return below(10) > 0
        }
        for _ in 0..<1500 {
            let node = below(2) == 0 ? nodes.a : nodes.b
            switch below(11) {
            case 0:
                var bytes = [UInt8](repeating: 0, count: below(300))
                bytes.withSpan { random.fill(&$0) }
                if !bytes.isEmpty { bytes[0] = UInt8(below(6)) }
                if bytes.count > 4 && below(2) == 0 { bytes.replaceSubrange(1..<4, with: [0, 0, 0]) }
                nodes.deliver(bytes, to: node)
            case 1, 2:
                var bytes = corpus[below(corpus.count)]
                for _ in 0..<below(3) where !bytes.isEmpty { bytes[below(bytes.count)] ^= UInt8(1 << below(8)) }
                nodes.deliver(Array(bytes.prefix(below(2) == 0 ? bytes.count : below(bytes.count + 1))), to: node)
            case 3:
                var inner = [UInt8](repeating: 0, count: below(120))
                inner.withSpan { random.fill(&$0) }
                if !inner.isEmpty { inner[0] = UInt8([0x45, 0x60, 0x4F, 0x00][below(4)]) }
                nodes.sendRaw(inner, from: node)
            case 4: nodes.send(UInt32(below(1000)), from: node, size: 24 + below(1397))
            case 5: nodes.advance(by: .milliseconds(below(3000)))
            case 6: nodes.advance(by: .seconds(below(200)))
            case 8: node.device.recordHandshakeWork(.milliseconds(below(400)), now: nodes.now)
            case 9:
                nodes.clockOffset = below(3) == 0 ? random.next(below: 1 << 40) : 0
                let outer = ECN(trafficClass: UInt8(below(4)))
                nodes.mark = { below(2) == 0 ? outer : $0.ecn }
            case 10:
                var change = PeerChange(publicKey: nodes.other(node).publicKey)
                if below(4) == 0 { change.addedAllowedIPs = [IPPrefix(host: IPAddress(v4: random.nextUInt32()))] }
                if below(4) == 0 { change.removedAllowedIPs = [IPPrefix(host: IPAddress(v4: random.nextUInt32()))] }
                if below(4) == 0 { change.endpoint = nodes.other(node).endpoint }
                if below(4) == 0 { change.persistentKeepalive = .seconds(below(100)) }
                node.device.apply(change, now: nodes.now)
                if below(20) == 0 {
                    node.device.removePrivateKey(now: nodes.now)
                    node.device.setPrivateKey(node.key.copy(), now: nodes.now)
                }
                if below(20) == 0 { node.device.wipeSessions(now: nodes.now) }
            default:
                if below(40) == 0 {
                    nodes.now = Instant(nanoseconds: nodes.now.nanoseconds &+ random.next(below: 1 << 50))
                    node.device.handleTimeout(now: nodes.now)
                }
            }
            #expect(nodes.a.device.indexCount <= 4 && nodes.b.device.indexCount <= 4, "seed \(seed)")
        }
        // And it still works, once a clock that was far ahead is forgotten.
        nodes.isDelivered = { _ in true }
        nodes.mark = { $0.ecn }
        nodes.clockOffset = 0
        for node in [nodes.a, nodes.b] { node.device.forgetTimestamp(of: try node.peer) }
        nodes.advance(by: .seconds(200))
        nodes.a.received = []
        nodes.b.received = []
        nodes.send(1_000_001, from: nodes.a)
        nodes.send(1_000_002, from: nodes.b)
        nodes.advance(by: .seconds(2))
        #expect(nodes.b.received == [1_000_001] && nodes.a.received == [1_000_002], "seed \(seed)")
    }
}
