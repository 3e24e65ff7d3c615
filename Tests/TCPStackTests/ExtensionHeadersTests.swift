import Inet
import TCPStack
import TestSupport
import Testing

/// IPv6 extension headers and IPv4 options in front of what is served, refused or never answered.
@Suite struct ExtensionHeadersTests {
    /// An IPv6 packet whose payload, of protocol `upper`, stands behind `chain`; each header without its Next Header byte.
    static func packet(to script: TCPScript, chain: [(type: UInt8, rest: [UInt8])], upper: UInt8, payload: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = []
        for (place, header) in chain.enumerated() {
            bytes.append(place + 1 < chain.count ? chain[place + 1].type : upper)
            bytes += header.rest
        }
        return Fragments.packet(
            from: script.remote, to: script.local, protocolNumber: IPProtocol(rawValue: chain.first?.type ?? upper), identification: 0,
            payload: bytes + payload)
    }

    static func echo(_ script: TCPScript) -> [UInt8] {
        Array(icmpError(type: 128, code: 0, rest: 1, quoting: [1, 2, 3], from: script.remote, to: script.local)[40...])
    }

    /// One option of `type` with two bytes of data, padded.
    static func options(_ type: UInt8) -> [UInt8] { [0, type, 2, 0, 0, 1, 0] }

    @Test("hop-by-hop, destination, routing and atomic fragment headers are walked") func walked() throws {
        let script = TCPScript(family: .v6)
        script.inject(
            Self.packet(
                to: script,
                chain: [
                    (0, Self.options(0x05)), (60, Self.options(0x1E)), (43, [0, 0, 0, 0, 0, 0, 0]), (44, [0, 0, 0, 1, 2, 3, 4]),
                    (60, [1] + [1, 12] + filled(12, with: 0)),
                ], upper: 58, payload: Self.echo(script)))
        let reply = try #require(script.nextPacket())
        #expect(reply.count == 51 && reply[6] == 58 && reply[40] == 129)
        #expect(script.stack.drops.total == 0)
    }

    @Test("an unknown option is skipped, dropped or answered as its type says", arguments: [UInt8(0), 60])
    func unknownOption(header: UInt8) throws {
        for type: UInt8 in [0x1E, 0x5E, 0x9E, 0xDE, 0xC2, 0xC9] {
            let script = TCPScript(family: .v6)
            let packet = Self.packet(to: script, chain: [(header, Self.options(type))], upper: 58, payload: Self.echo(script))
            script.inject(packet)
            let reply = script.nextPacket()
            switch type >> 6 {
            case 0: #expect(reply?[40] == 129)
            case 1: #expect(reply == nil && script.stack.drops[.refusedOption] == 1)
            default:
                #expect(reply.map { Array($0[40..<42]) } == [4, 2])
                #expect(reply.map { Array($0[44..<48]) } == [0, 0, 0, 42])
                #expect(reply.map { Array($0[48...]) } == packet)
                #expect(script.stack.drops[.refusedOption] == 1)
            }
        }
    }

    @Test("an unknown header is answered with a pointer to the field that names it; none is an end") func unknownHeader() throws {
        for (chain, pointer) in [([], 6), ([(UInt8(0), Self.options(1))], 40), ([(0, Self.options(1)), (60, Self.options(1))], 48)]
            as [([(UInt8, [UInt8])], UInt8)]
        {
            let script = TCPScript(family: .v6)
            script.inject(Self.packet(to: script, chain: chain.map { ($0.0, $0.1) }, upper: 253, payload: filled(20, with: 1)))
            let reply = try #require(script.nextPacket())
            #expect(Array(reply[40..<42]) == [4, 1] && Array(reply[44..<48]) == [0, 0, 0, pointer])
            script.inject(Self.packet(to: script, chain: chain.map { ($0.0, $0.1) }, upper: 59, payload: filled(20, with: 1)))
            #expect(script.nextPacket() == nil && script.stack.drops[.unknownProtocol] == 2)
        }
    }

    @Test("a routing header that leads on is answered, not followed") func routing() throws {
        let script = TCPScript(family: .v6)
        let chain = [(type: UInt8(43), rest: [2, 0, 1] + filled(20, with: 0))]
        script.inject(Self.packet(to: script, chain: chain, upper: 58, payload: Self.echo(script)))
        let reply = try #require(script.nextPacket())
        #expect(Array(reply[40..<42]) == [4, 0] && Array(reply[44..<48]) == [0, 0, 0, 42])
        #expect(script.nextPacket() == nil)
    }

    @Test("too many options, and options that reach beyond their header, are dropped in silence") func bounds() {
        let script = TCPScript(family: .v6)
        let option: [UInt8] = [0x1E, 1, 0]
        let many: [UInt8] = [3] + (0..<30).map { option[$0 % 3] }
        script.inject(Self.packet(to: script, chain: [(60, many)], upper: 58, payload: Self.echo(script)))
        #expect(script.stack.drops[.refusedOption] == 1)
        script.inject(Self.packet(to: script, chain: [(60, [0, 0x1E, 9, 0, 0, 0, 0])], upper: 58, payload: Self.echo(script)))
        script.inject(Self.packet(to: script, chain: [(60, [0, 0, 0, 0, 0, 0, 7])], upper: 58, payload: Self.echo(script)))
        script.inject(
            Self.packet(to: script, chain: Array(repeating: (60, Self.options(1)), count: 9), upper: 58, payload: Self.echo(script)))
        script.inject(Self.packet(to: script, chain: [(60, Self.options(1)), (0, Self.options(1))], upper: 58, payload: Self.echo(script)))
        #expect(script.stack.drops[.malformedPacket] == 4)
        #expect(script.nextPacket() == nil)
    }

    @Test("no error is answered by an error") func neverAboutErrors() {
        let script = TCPScript(family: .v6)
        let quote = filled(48, with: 1)
        let error = Array(icmpError(type: 1, code: 4, rest: 0, quoting: quote, from: script.remote, to: script.local)[40...])
        script.inject(Self.packet(to: script, chain: [(60, Self.options(0x9E))], upper: 58, payload: error))
        #expect(script.stack.drops[.refusedOption] == 1)
        for (family, types) in [(IPAddress.Family.v4, [3, 4, 5, 11, 12] as [UInt8]), (.v6, [1, 2, 3, 4, 100, 127, 137])] {
            let script = TCPScript(family: family)
            for type in types {
                script.inject(icmpError(type: type, code: 0, rest: 0, quoting: quote, from: script.remote, to: script.local))
            }
            #expect(script.nextPacket() == nil && script.stack.drops.total == UInt64(types.count))
        }
        #expect(script.nextPacket() == nil)
    }

    @Test("an IPv4 source route that leads on is dropped, one at its end and other options are skipped") func ipv4Options() throws {
        func packet(_ script: TCPScript, _ options: [UInt8]) -> [UInt8] {
            var packet = icmpError(type: 8, code: 0, rest: 1, quoting: [1, 2, 3], from: script.remote, to: script.local)
            packet.insert(contentsOf: options, at: 20)
            packet[0] = 0x45 + UInt8(options.count / 4)
            Fragments.setIPv4(&packet, identification: 1, field: 0)
            return packet
        }
        let script = TCPScript()
        for type: UInt8 in [131, 137] {
            script.inject(packet(script, [1, type, 7, 4, 10, 1, 0, 3]))
            #expect(script.nextPacket() == nil)
        }
        #expect(script.stack.drops[.refusedOption] == 2)
        for options in [[131, 7, 8, 10, 1, 0, 3, 0], [148, 4, 0, 0], [7, 7, 4, 0, 0, 0, 0, 1], [0, 200, 200, 200]] as [[UInt8]] {
            script.inject(packet(script, options))
            #expect(script.nextPacket()?[20] == 0)
        }
        for options in [[131, 2, 0, 0], [7, 1, 0, 0], [7, 9, 0, 0], [1, 1, 1, 7]] as [[UInt8]] {
            script.inject(packet(script, options))
            #expect(script.nextPacket() == nil)
        }
        #expect(script.stack.drops[.malformedPacket] == 4)
    }

    @Test("random chains, options and fragments never trap, and nothing piles up", arguments: [IPAddress.Family.v4, .v6])
    func fuzz(family: IPAddress.Family) {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("extension header seed \(seed)")
        let random = RandomSource.seeded(seed)
        let script = TCPScript(family: family)
        let types: [UInt8] = [0, 43, 44, 60, 6, 17, 58, 1, 59]
        for step in 0..<60_000 {
            var packet = Fragments.packet(
                from: random.next(below: 4) == 0 ? SYNQueueTests.address(family, Int(random.next(below: 20))) : script.remote,
                to: script.local, protocolNumber: IPProtocol(rawValue: types[Int(random.next(below: 9))]), identification: 0,
                payload: (0..<(8 * Int(random.next(below: 14)))).map { _ in
                    random.next(below: 3) > 0 ? types[Int(random.next(below: 9))] & 0x3F : UInt8(truncatingIfNeeded: random.nextUInt32())
                })
            if family == .v4 {
                packet[0] = 0x45 + UInt8(random.next(below: UInt64(min(11, (packet.count - 20) / 4 + 1))))
                let field = random.next(below: 2) == 0 ? 0 : UInt16(random.next(below: 16)) | UInt16(random.next(below: 2)) << 13
                Fragments.setIPv4(&packet, identification: UInt32(random.next(below: 3)), field: field)
            }
            script.inject(packet)
            if step % 50 == 0 {
                while script.nextPacket() != nil {}
                script.advance(by: .milliseconds(Int64(random.next(below: 2000))))
                let violation = script.stack.brokenInvariant()
                #expect(violation == nil, "seed \(seed)")
            }
        }
        script.advance(by: .seconds(31))
        while script.nextPacket() != nil {}
        #expect(script.stack.tableEntries == 0, "seed \(seed)")
    }
}
