import Inet
import Testing

@Suite struct ECNTests {
    @Test("RFC 6040 figure 4: what leaves a tunnel, for each inner and outer field")
    func decapsulation() {
        // Rows inner, columns outer: not-ECT, ECT(0), ECT(1), CE.
        let outer: [ECN] = [.notECT, .ect0, .ect1, .ce]
        let table: [(inner: ECN, result: [ECN?])] = [
            (.notECT, [.notECT, .notECT, .notECT, nil]),
            (.ect0, [.ect0, .ect0, .ect1, .ce]),
            (.ect1, [.ect1, .ect1, .ect1, .ce]),
            (.ce, [.ce, .ce, .ce, .ce]),
        ]
        for (inner, result) in table { #expect(outer.map { ECN.decapsulated(inner: inner, outer: $0) } == result, "inner \(inner)") }
    }

    @Test("the bits are read and changed in both headers; an IPv4 checksum moves along, and a wrong one stays wrong")
    func rewriting() throws {
        let random = RandomSource.seeded(6040)
        for round in 0..<200 {
            for family in [IPAddress.Family.v4, .v6] {
                let addresses = (0..<2).map { _ in
                    family == .v4
                        ? IPAddress(v4: random.nextUInt32()) : IPAddress(v6High: random.nextUInt64(), low: random.nextUInt64())
                }
                let before = ECN(trafficClass: UInt8(random.next(below: 4)))
                let after = ECN(trafficClass: UInt8(random.next(below: 4)))
                let dscp = UInt8(random.next(below: 64)) << 2
                var packet = [UInt8](repeating: 0, count: 60)
                var span = packet.mutableSpan
                var bytes = span.mutableBytes
                IPHeader.write(
                    into: &bytes, at: 3, source: addresses[0], destination: addresses[1], upperProtocol: .udp, payloadLength: 8,
                    trafficClass: dscp | before.rawValue)
                #expect(ECN(of: bytes.bytes.extracting(3..<60)) == before)
                after.write(into: &bytes, at: 3)
                #expect(ECN(of: bytes.bytes.extracting(3..<60)) == after)
                // It parses, checksum included, and nothing else is another.
                let header = try IPHeader(parsing: bytes.bytes.extracting(3..<60))
                #expect(header.trafficClass == dscp | after.rawValue, "round \(round)")
                #expect(header.source == addresses[0] && header.destination == addresses[1] && header.upperProtocol == .udp)
                guard family == .v4 else { continue }
                bytes.store(bytes.bytes.byte(at: 13) ^ 0x10, at: 13)
                before.write(into: &bytes, at: 3)
                let damaged = bytes.bytes.extracting(3..<60)
                #expect(throws: IPHeader.ParseError.badChecksum) { try IPHeader(parsing: damaged) }
            }
        }
    }
}
