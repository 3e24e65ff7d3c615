import Inet
import Testing
import WGUserspace

@Suite struct LossyWireTests {
    @Test("however messages are lost, doubled and overtaken, a session comes back and every packet comes at most once", arguments: 0..<5)
    func badWire(run: Int) throws {
        let seed = UInt64.random(in: 0..<1_000_000) &* 10 &+ UInt64(run)
        let random = RandomSource.seeded(seed)
        let nodes = TwoDevices(seed: seed)
        nodes.delay = { _ in
            let draw = random.next(below: 100)
            if draw < 15 { return [] }
            let delay = Duration.milliseconds(Int64(5 + random.next(below: 60)))
            return draw < 20 ? [delay, delay + .milliseconds(17)] : [delay]
        }
        var sent: UInt32 = 0
        for _ in 0..<9000 {
            sent += 1
            nodes.send(sent, from: nodes.a)
            nodes.send(sent, from: nodes.b)
            nodes.advance(by: .milliseconds(100))
        }
        for node in [nodes.a, nodes.b] {
            #expect(Set(node.received).count == node.received.count, "seed \(seed)")
            // 15 % are lost on the wire; a handshake that goes wrong costs seconds of a few staged packets at most.
            #expect(node.received.count > 9000 * 80 / 100, "seed \(seed): \(node.received.count)")
            #expect(node.device.indexCount <= 4, "seed \(seed)")
            for reason in [DropReason.dataNotAuthentic, .sourceNotAllowed, .stagingPeerFull, .handshakeGaveUp] {
                #expect(node.drops(reason) == 0, "seed \(seed): \(reason)")
            }
        }
    }
}
