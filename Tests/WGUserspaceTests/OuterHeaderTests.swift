import Inet
import Noise
import Testing
import WGUserspace

/// What the device has to do with the outer header: congestion bits, local addresses, index bits.
@Suite struct OuterHeaderTests {
    // MARK: - ECN (RFC 6040)

    private func inner(_ ecn: ECN, from source: Node, to destination: Node) -> [UInt8] {
        var bytes = packet(5, from: source.address, to: destination.address)
        bytes.withSpan { ecn.write(into: &$0, at: 0) }
        return bytes
    }

    @Test("RFC 6040 §4.1: the outer header says what the inner one says; handshakes and keepalives say not-ECT", arguments: ECN.allCases)
    func encapsulation(ecn: ECN) throws {
        let nodes = TwoDevices()
        // The first one is staged, the second one is not.
        for _ in 0..<2 {
            nodes.sendRaw(inner(ecn, from: nodes.a, to: nodes.b), from: nodes.a)
            nodes.advance(by: .milliseconds(100))
        }
        nodes.advance(by: .seconds(11))
        #expect(nodes.sent(4, by: nodes.a).filter { !$0.isKeepalive }.map(\.ecn) == [ecn, ecn])
        #expect(nodes.b.received.count == 2)
        for message in nodes.sent(1, by: nodes.a) + nodes.sent(2, by: nodes.b) + nodes.sent(4, by: nodes.b) {
            #expect(message.ecn == .notECT)
        }
        #expect(!nodes.sent(4, by: nodes.b).isEmpty)
    }

    @Test("RFC 6040 §4.2: congestion on the way comes out in the inner header, its checksum right; a packet that cannot tell is dropped")
    func decapsulation() throws {
        for innerECN in ECN.allCases {
            for outerECN in ECN.allCases {
                let nodes = TwoDevices()
                try nodes.connect()
                nodes.mark = { _ in outerECN }
                nodes.sendRaw(inner(innerECN, from: nodes.a, to: nodes.b), from: nodes.a)
                nodes.advance(by: .milliseconds(100))
                guard let expected = ECN.decapsulated(inner: innerECN, outer: outerECN) else {
                    #expect(nodes.b.received.isEmpty)
                    #expect(nodes.b.drops(.congestionUnseen) == 1)
                    continue
                }
                #expect(nodes.b.received == [5])
                let bytes = nodes.b.lastPacket
                let header = try IPHeader(parsing: bytes.span.bytes)
                #expect(header.trafficClass == expected.rawValue, "\(innerECN) \(outerECN)")
            }
        }
    }

    // MARK: - Local address

    @Test("an address of ours that nothing comes back to is left to the kernel again: at a retry, and when nobody answers data")
    func silence() throws {
        let nodes = TwoDevices()
        try nodes.connect(from: nodes.b)
        nodes.send(1, from: nodes.b)
        nodes.advance(by: .seconds(1))
        #expect(try nodes.b.status().localAddress == nodes.b.endpoint.address)
        nodes.isDelivered = { _ in false }
        nodes.send(2, from: nodes.b)
        nodes.clearTrace()
        nodes.advance(by: .seconds(16))
        #expect(nodes.sent(1, by: nodes.b).map(\.local) == [nil])

        let others = TwoDevices()
        try others.connect(from: others.b)
        others.advance(by: .seconds(200))
        others.isDelivered = { _ in false }
        others.clearTrace()
        others.send(3, from: others.b)
        others.advance(by: .seconds(6))
        #expect(others.sent(1, by: others.b).map(\.local) == [others.b.endpoint.address, nil])
    }

    @Test("answers leave from the address that the peer talked to; a new endpoint from outside leaves it to the kernel")
    func stickiness() throws {
        let nodes = TwoDevices()
        nodes.send(1, from: nodes.a)
        #expect(nodes.sent(1, by: nodes.a).map(\.local) == [nil])
        nodes.advance(by: .milliseconds(100))
        // The response already leaves from there.
        #expect(nodes.sent(2, by: nodes.b).map(\.local) == [nodes.b.endpoint.address])
        #expect(try nodes.b.status().localAddress == nodes.b.endpoint.address)
        let second = IPAddress(v4: 192, 0, 2, 200)
        nodes.isDelivered = { _ in false }
        nodes.send(2, from: nodes.a)
        let data = try #require(nodes.sent(4, by: nodes.a).last).bytes
        #expect(nodes.deliver(data.flipping(bit: 0, at: 30), to: nodes.b, at: IPAddress(v4: 1, 1, 1, 1)) == .dropped(.dataNotAuthentic))
        #expect(try nodes.b.status().localAddress == nodes.b.endpoint.address)
        nodes.deliver(data, to: nodes.b, at: second)
        #expect(try nodes.b.status().localAddress == second)
        nodes.send(3, from: nodes.b)
        #expect(nodes.sent(4, by: nodes.b).last?.local == second)
        nodes.b.device.setEndpoint(SocketEndpoint(IPAddress(v4: 203, 0, 113, 3), port: 3), of: try nodes.b.peer, now: nodes.now)
        #expect(try nodes.b.status().localAddress == nil)
        nodes.send(4, from: nodes.b)
        #expect(nodes.sent(4, by: nodes.b).last?.local == nil)
    }

    // MARK: - Indices

    @Test(
        "the upper bits of every index are the tag's, six at most, and all others are random", arguments: [(0, 0), (1, 1), (3, 5), (6, 63)])
    func indexTag(bitCount: Int, value: Int) throws {
        var configuration = DeviceConfiguration()
        configuration.share = LoopShare(value, of: 1 << bitCount)
        let nodes = TwoDevices(configuration: configuration)
        nodes.isDelivered = { $0.type == 1 }
        for _ in 0..<60 {
            nodes.send(1, from: nodes.a)
            nodes.advance(by: .seconds(30))
        }
        let indices = (nodes.sent(1, by: nodes.a) + nodes.sent(2, by: nodes.b)).map { $0.bytes.span.bytes.littleEndian32(at: 4) }
        #expect(indices.count > 200)
        #expect(Set(indices).count == indices.count)
        if bitCount > 0 { #expect(indices.allSatisfy { $0 >> UInt32(32 - bitCount) == UInt32(value) }) }
        // Each other bit is set in about a half of them.
        for bit in 0..<(32 - bitCount) {
            let share = Double(indices.filter { $0 >> UInt32(bit) & 1 == 1 }.count) / Double(indices.count)
            #expect(share > 0.3 && share < 0.7, "bit \(bit): \(share)")
        }
    }
}
