import Inet
import TCPStack
import TestSupport
import Testing

/// An IP packet of `payload` and the fragments that it is cut into.
enum Fragments {
    static func packet(
        from source: IPAddress, to destination: IPAddress, protocolNumber: IPProtocol, identification: UInt32, payload: [UInt8],
        trafficClass: UInt8 = 0
    ) -> [UInt8] {
        let start = source.family == .v4 ? 20 : 40
        var packet = filled(start, with: 0) + payload
        do {
            var span = packet.mutableSpan
            var bytes = span.mutableBytes
            IPHeader.write(
                into: &bytes, source: source, destination: destination, upperProtocol: protocolNumber, payloadLength: payload.count,
                trafficClass: trafficClass)
        }
        if source.family == .v4 { setIPv4(&packet, identification: identification, field: 0) }
        return packet
    }

    /// One fragment of a packet without options and extension headers: `count` bytes of its payload at `offset`.
    static func piece(_ packet: [UInt8], identification: UInt32, offset: Int, count: Int, hasMore: Bool) -> [UInt8] {
        let isIPv4 = packet[0] >> 4 == 4
        let start = isIPv4 ? 20 : 40
        var result = Array(packet[..<start])
        if isIPv4 {
            result += packet[(start + offset)..<(start + offset + count)]
            setIPv4(&result, identification: identification, field: UInt16(offset / 8) | (hasMore ? 0x2000 : 0))
        } else {
            let field = UInt16(offset) | (hasMore ? 1 : 0)
            result += [packet[6], 0, UInt8(field >> 8), UInt8(field & 0xFF)]
            result += (0..<4).map { UInt8(truncatingIfNeeded: identification >> UInt32(24 - 8 * $0)) }
            result += packet[(start + offset)..<(start + offset + count)]
            result[6] = 44
            result[4] = UInt8((count + 8) >> 8)
            result[5] = UInt8((count + 8) & 0xFF)
        }
        return result
    }

    /// All of it, in pieces of `size` bytes.
    static func all(_ packet: [UInt8], identification: UInt32, size: Int) -> [[UInt8]] {
        let payload = packet.count - (packet[0] >> 4 == 4 ? 20 : 40)
        return stride(from: 0, to: payload, by: size).map {
            let count = min(size, payload - $0)
            return piece(packet, identification: identification, offset: $0, count: count, hasMore: $0 + count < payload)
        }
    }

    static func setIPv4(_ packet: inout [UInt8], identification: UInt32, field: UInt16) {
        packet[2] = UInt8(packet.count >> 8)
        packet[3] = UInt8(packet.count & 0xFF)
        packet[4] = UInt8(identification >> 8 & 0xFF)
        packet[5] = UInt8(identification & 0xFF)
        packet[6] = UInt8(field >> 8)
        packet[7] = UInt8(field & 0xFF)
        packet[10] = 0
        packet[11] = 0
        let length = Int(packet[0] & 0x0F) * 4
        let checksum = InternetChecksum.of(packet.span.bytes.extracting(0..<length))
        packet[10] = UInt8(checksum >> 8)
        packet[11] = UInt8(checksum & 0xFF)
    }
}

@Suite struct FragmentReassemblerTests {
    static let families: [IPAddress.Family] = [.v4, .v6]
    /// A protocol that nobody knows: any bytes will do.
    static let other = IPProtocol(rawValue: 253)

    /// A stack and an echo request to it of `count` bytes of data.
    static func echo(_ family: IPAddress.Family, count: Int) -> (script: TCPScript, packet: [UInt8]) {
        let script = TCPScript(family: family)
        let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let type: UInt8 = family == .v4 ? 8 : 128
        var packet = icmpError(type: type, code: 0, rest: 0x1234_0001, quoting: data, from: script.remote, to: script.local)
        if family == .v4 { Fragments.setIPv4(&packet, identification: 7, field: 0) }
        return (script, packet)
    }

    /// What has been received of one datagram, in plain lists.
    private struct Model {
        var pieces: [(range: Range<Int>, isLast: Bool)] = []
        var isDead = false

        /// The length of the datagram if this piece completes it.
        mutating func take(_ range: Range<Int>, isLast: Bool) -> Int? {
            if isDead || pieces.contains(where: { $0.range == range && $0.isLast == isLast }) { return nil }
            let end = pieces.first { $0.isLast }?.range.upperBound
            let isBeyond = end.map { isLast ? range.upperBound != $0 : range.upperBound >= $0 } ?? false
            let isShort = isLast && pieces.contains { $0.range.upperBound > range.upperBound }
            if isBeyond || isShort || pieces.contains(where: { $0.range.overlaps(range) }) {
                isDead = true
                return nil
            }
            pieces.append((range, isLast))
            guard let length = pieces.first(where: \.isLast)?.range.upperBound else { return nil }
            return pieces.map(\.range.count).reduce(0, +) == length ? length : nil
        }
    }

    @Test("random pieces of datagrams in random order, some twice, some wrong, agree with a list", arguments: families)
    func agreesWithModel(family: IPAddress.Family) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("fragment seed \(seed)")
        let random = RandomSource.seeded(seed)
        var generator = TCPScript(seed: seed).generator
        let destination = family == .v4 ? IPAddress(v4: 10, 1, 0, 1) : IPAddress(v6High: 0xFD00 << 48, low: 1)
        var complete = 0
        for _ in 0..<150 {
            var reassembler = FragmentReassembler()
            var drops = DropCounters()
            var deliveries: [(datagram: Int, range: Range<Int>, isLast: Bool)] = []
            var packets: [[UInt8]] = []
            for datagram in 0..<6 {
                let length = 9 + Int(random.next(below: datagram == 0 ? 60_000 : 3000))
                packets.append(
                    Fragments.packet(
                        from: SYNQueueTests.address(family, datagram / 3), to: destination, protocolNumber: Self.other,
                        identification: UInt32(datagram), payload: (0..<length).map { _ in UInt8(truncatingIfNeeded: random.nextUInt32()) })
                )
                var offset = 0
                while offset < length {
                    let rest = length - offset
                    var size = min(rest, 8 * (1 + Int(random.next(below: UInt64(length / 8 + 1)))))
                    if length > 5000 { size = min(rest, max(size, 4000)) }
                    deliveries.append((datagram, offset..<(offset + size), offset + size == length))
                    if random.next(below: 10) == 0 { deliveries.append((datagram, offset..<(offset + size), offset + size == length)) }
                    if random.next(below: 40) == 0, size >= 16 { deliveries.append((datagram, offset..<(offset + 8), false)) }
                    if random.next(below: 60) == 0 { deliveries.append((datagram, offset..<(offset + size), offset + size != length)) }
                    offset += size
                }
            }
            if random.next(below: 2) == 0 { deliveries.remove(at: Int(random.next(below: UInt64(deliveries.count)))) }
            deliveries.shuffle(using: &generator)
            var models = [Model](repeating: Model(), count: packets.count)
            for (datagram, range, isLast) in deliveries {
                // Of what is not a last fragment, the length is a multiple of eight.
                if !isLast, range.count % 8 != 0 { continue }
                let bytes = Fragments.piece(
                    packets[datagram], identification: UInt32(datagram), offset: range.lowerBound, count: range.count, hasMore: !isLast)
                let header = try IPHeader(parsing: bytes.span.bytes)
                // The whole datagram in one piece is no fragment.
                if header.fragment == nil { continue }
                let whole = reassembler.receive(bytes.span.bytes, header: header, drops: &drops, now: Instant(nanoseconds: 1))
                guard let length = models[datagram].take(range, isLast: isLast) else {
                    #expect(whole == nil, "seed \(seed)")
                    continue
                }
                // A datagram that is complete is forgotten: what comes then begins another one.
                models[datagram] = Model()
                complete += 1
                let start = family == .v4 ? 20 : 40
                let result = try #require(whole, "seed \(seed)")
                #expect(Array(result[start...]) == Array(packets[datagram][start..<(start + length)]), "seed \(seed)")
                let parsed = try IPHeader(parsing: result.span.bytes)
                #expect(parsed.fragment == nil && parsed.upperProtocol == Self.other && parsed.totalLength == result.count)
            }
            let violation = reassembler.brokenInvariant()
            #expect(violation == nil, "seed \(seed)")
        }
        #expect(complete > 100)
    }

    @Test("fragments of TCP and ICMP are put together, checked and served", arguments: families) func served(family: IPAddress.Family)
        throws
    {
        let (script, packet) = Self.echo(family, count: 1300)
        for piece in Fragments.all(packet, identification: 7, size: 400).reversed() { script.inject(piece) }
        let reply = try #require(script.nextPacket())
        #expect(Array(reply[(family == .v4 ? 24 : 44)...]) == Array(packet[(family == .v4 ? 24 : 44)...]))
        #expect(script.stack.counts.fragmentMemory == 0 && script.stack.tableEntries == 0)

        let id = try #require(script.establish(options: TCPScript.plainMSS(1000)))
        let before = script.stack.drops.total
        var segment = TCPScript.packet(
            from: SocketEndpoint(script.remote, port: 40_000), to: SocketEndpoint(script.local, port: 80), flags: .psh, seq: 1001,
            text: filled(9000, with: 3))
        // The ACK bit, and a wrong checksum: fragments do not get around it.
        segment[family == .v4 ? 33 : 53] |= 0x10
        for piece in Fragments.all(segment, identification: 8, size: 1200) { script.inject(piece) }
        #expect(script.stack.drops[.badChecksum] == 1 && script.stack.drops.total == before + 1)
        #expect(script.stack.readableBytes(id) == 0)
    }

    @Test("an echo request above the MTU is answered cut to it by IPv4, and not at all by IPv6") func largeEcho() throws {
        let (script, packet) = Self.echo(.v4, count: 3000)
        for piece in Fragments.all(packet, identification: 7, size: 1200) { script.inject(piece) }
        let reply = try #require(script.nextPacket())
        #expect(reply.count == 1420)
        #expect(Array(reply[24...]) == Array(packet[24..<1420]))
        #expect(InternetChecksum.of(reply.span.bytes.extracting(20..<1420)) == 0)
        let (other, large) = Self.echo(.v6, count: 3000)
        for piece in Fragments.all(large, identification: 7, size: 1200) { other.inject(piece) }
        #expect(other.nextPacket() == nil && other.stack.drops[.unhandledICMP] == 1)
    }

    @Test("an overlap ends its datagram, whatever comes of it later; an exact copy is ignored", arguments: families)
    func overlap(family: IPAddress.Family) throws {
        let (script, packet) = Self.echo(family, count: 1300)
        let pieces = Fragments.all(packet, identification: 7, size: 400)
        script.inject(pieces[0])
        script.inject(pieces[0])
        #expect(script.stack.drops[.duplicateFragment] == 1)
        script.inject(Fragments.piece(packet, identification: 7, offset: 392, count: 16, hasMore: true))
        #expect(script.stack.drops[.fragmentOverlap] == 2)
        #expect(script.stack.counts.fragmentMemory < 300)
        for piece in pieces { script.inject(piece) }
        #expect(script.nextPacket() == nil && script.stack.drops[.fragmentOverlap] == 6)
        // Another datagram of the same peer is not touched by it.
        for piece in Fragments.all(packet, identification: 8, size: 400) { script.inject(piece) }
        #expect(script.nextPacket() != nil)
        let third = Fragments.all(packet, identification: 9, size: 400)[1]
        var changed = third
        changed[changed.count - 1] ^= 1
        script.inject(third)
        script.inject(changed)
        #expect(script.stack.drops[.fragmentOverlap] == 8)
    }

    @Test("lengths that cannot be are refused", arguments: families) func malformed(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let packet = Fragments.packet(
            from: script.remote, to: script.local, protocolNumber: Self.other, identification: 7, payload: filled(65_000, with: 1))
        script.inject(Fragments.piece(packet, identification: 7, offset: 8, count: 15, hasMore: true))
        script.inject(Fragments.piece(packet, identification: 7, offset: 8, count: 0, hasMore: true))
        script.inject(Fragments.piece(packet, identification: 7, offset: 8, count: 0, hasMore: false))
        #expect(script.stack.drops[.malformedFragment] == 3)
        // The ping of death.
        var deadly = Fragments.piece(packet, identification: 7, offset: 64_000, count: 1000, hasMore: false)
        if family == .v4 {
            Fragments.setIPv4(&deadly, identification: 7, field: 0x1FFF)
        } else {
            deadly[42] = 0xFF
            deadly[43] = 0xF8
        }
        script.inject(deadly)
        #expect(script.stack.drops[.malformedFragment] == 4)
        #expect(script.stack.counts.fragmentMemory == 0)
        // Two ends, and something behind the end.
        for (identification, pieces) in [
            (8, [(8, 8, false), (24, 16, false)]), (9, [(8, 8, false), (24, 16, true)]), (10, [(16, 16, true), (8, 8, false)]),
            (11, [(8, 8, false), (0, 16, true)]),
        ] as [(UInt32, [(Int, Int, Bool)])] {
            for (offset, count, hasMore) in pieces {
                script.inject(Fragments.piece(packet, identification: identification, offset: offset, count: count, hasMore: hasMore))
            }
        }
        #expect(script.stack.drops[.fragmentOverlap] == 8)
        #expect(script.stack.brokenInvariant() == nil)
    }

    @Test("a first fragment has to hold the upper-layer header", arguments: families) func tiny(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let short = Fragments.packet(
            from: script.remote, to: script.local, protocolNumber: .tcp, identification: 7, payload: filled(64, with: 0x50))
        script.inject(Fragments.piece(short, identification: 7, offset: 0, count: 16, hasMore: true))
        // 24 bytes, of which the data offset claims 60.
        let packet = Fragments.packet(
            from: script.remote, to: script.local, protocolNumber: .tcp, identification: 8, payload: filled(64, with: 0xF0))
        script.inject(Fragments.piece(packet, identification: 8, offset: 0, count: 24, hasMore: true))
        #expect(script.stack.drops[.tinyFragment] == 2)
        script.inject(Fragments.piece(packet, identification: 8, offset: 0, count: 64, hasMore: true))
        #expect(script.stack.drops[.tinyFragment] == 2 && script.stack.counts.fragmentMemory > 0)
    }

    @Test("an IPv6 first fragment has to hold all extension headers too") func tinyChain() {
        let script = TCPScript(family: .v6)
        // Destination options of 24 bytes in front of TCP.
        let payload = [6, 2] + [1, 20] + filled(20, with: 0) + filled(12, with: 0) + [0x50] + filled(7, with: 0)
        let packet = Fragments.packet(
            from: script.remote, to: script.local, protocolNumber: IPProtocol(rawValue: 60), identification: 7, payload: payload)
        for count in [8, 24, 40] {
            script.inject(Fragments.piece(packet, identification: 7, offset: 0, count: count, hasMore: true))
        }
        #expect(script.stack.drops[.tinyFragment] == 3)
        script.inject(Fragments.piece(packet, identification: 7, offset: 0, count: 44, hasMore: false))
        #expect(script.stack.drops[.tinyFragment] == 3)
    }

    @Test("an atomic fragment is a whole packet, beside fragments of the same number") func atomic() throws {
        let (script, packet) = Self.echo(.v6, count: 100)
        script.inject(Fragments.piece(packet, identification: 7, offset: 0, count: 64, hasMore: true))
        script.inject(Fragments.piece(packet, identification: 7, offset: 0, count: 108, hasMore: false))
        #expect(script.nextPacket() != nil)
        script.inject(Fragments.piece(packet, identification: 7, offset: 64, count: 44, hasMore: false))
        #expect(script.nextPacket() != nil)
    }

    @Test("a fragment inside of a fragment is refused") func nested() {
        let (script, packet) = Self.echo(.v6, count: 100)
        let inner = Fragments.piece(packet, identification: 7, offset: 0, count: 64, hasMore: true)
        var outer = packet
        outer.replaceSubrange(40..., with: inner[40...])
        outer[6] = 44
        let pieces = [(0, 40, true), (40, 32, false)].map {
            Fragments.piece(outer, identification: 9, offset: $0.0, count: $0.1, hasMore: $0.2)
        }
        for piece in pieces { script.inject(piece) }
        #expect(script.nextPacket() == nil && script.stack.drops.total > 0)
        #expect(script.stack.counts.connections == 0)
    }

    @Test("congestion that one fragment has met is told of the whole; not to who does not understand it", arguments: families)
    func ecn(family: IPAddress.Family) throws {
        let destination = family == .v4 ? IPAddress(v4: 10, 1, 0, 1) : IPAddress(v6High: 0xFD00 << 48, low: 1)
        for (marks, expected) in [([2, 2], 2), ([2, 3], 3), ([3, 1], 3), ([0, 0], 0), ([0, 3], nil), ([3, 0], nil)] as [([UInt8], UInt8?)] {
            var reassembler = FragmentReassembler()
            var drops = DropCounters()
            var whole: [UInt8]?
            for (index, mark) in marks.enumerated() {
                let packet = Fragments.packet(
                    from: SYNQueueTests.address(family, 1), to: destination, protocolNumber: Self.other, identification: 7,
                    payload: filled(32, with: 1), trafficClass: 0xB8 | mark)
                let piece = Fragments.piece(packet, identification: 7, offset: 16 * index, count: 16, hasMore: index == 0)
                let header = try IPHeader(parsing: piece.span.bytes)
                whole = reassembler.receive(piece.span.bytes, header: header, drops: &drops, now: Instant(nanoseconds: 1))
            }
            let header = try whole.map { try IPHeader(parsing: $0.span.bytes) }
            #expect(header?.trafficClass == expected.map { 0xB8 | $0 })
            #expect(drops[.malformedFragment] == (expected == nil ? 2 : 0))
        }
    }

    @Test("after 30 s the source is told, if the first fragment has come and is no error", arguments: families)
    func timeout(family: IPAddress.Family) throws {
        let (script, packet) = Self.echo(family, count: 1300)
        let pieces = Fragments.all(packet, identification: 7, size: 400)
        script.inject(pieces[0])
        script.inject(pieces[2])
        for piece in Fragments.all(packet, identification: 8, size: 400).dropFirst() { script.inject(piece) }
        let error = icmpError(
            type: family == .v4 ? 3 : 1, code: 1, rest: 0, quoting: filled(100, with: 0x45), from: script.remote, to: script.local)
        script.inject(Fragments.piece(error, identification: 9, offset: 0, count: 40, hasMore: true))
        #expect(script.stack.nextDeadline == script.now + FragmentReassembler.lifetime)
        script.now += FragmentReassembler.lifetime - .milliseconds(1)
        script.stack.handleTimeout(now: script.now)
        #expect(script.nextPacket() == nil)
        script.now += .milliseconds(1)
        script.stack.handleTimeout(now: script.now)
        let reply = try #require(script.nextPacket())
        let start = family == .v4 ? 20 : 40
        #expect(Array(reply[start..<(start + 2)]) == (family == .v4 ? [11, 1] : [3, 1]))
        #expect(Array(reply[(start + 8)...]) == Array(pieces[0].prefix(reply.count - start - 8)))
        #expect(script.nextPacket() == nil)
        #expect(script.stack.drops[.fragmentTimeout] == 2 + 3 + 1)
        #expect(script.stack.tableEntries == 0 && script.stack.counts.fragmentMemory == 0 && script.stack.nextDeadline == nil)
    }

    @Test("a flood of one peer displaces itself, a flood of all displaces the oldest; memory stays bounded", arguments: families)
    func flood(family: IPAddress.Family) throws {
        let (script, packet) = Self.echo(family, count: 1300)
        let pieces = Fragments.all(packet, identification: 7, size: 400)
        script.inject(pieces[0])
        for step in 0..<20_000 {
            // From one, then from 1,000 addresses; small ones, then as large as can be.
            let source = SYNQueueTests.address(family, step < 10_000 ? 1 : step % 1000)
            let size = step % 2 == 0 ? 1200 : 8
            let attack = Fragments.packet(
                from: source, to: script.local, protocolNumber: Self.other, identification: UInt32(step), payload: filled(size, with: 1))
            script.inject(Fragments.piece(attack, identification: UInt32(step), offset: 0, count: size, hasMore: true))
            #expect(script.stack.counts.fragmentMemory <= FragmentReassembler.maximumBytes)
            if step == 9_999 {
                for piece in pieces.dropFirst() { script.inject(piece) }
                #expect(script.nextPacket() != nil)
                #expect(script.stack.tableEntries == FragmentReassembler.maximumDatagramsPerPeer)
            }
        }
        #expect(script.stack.tableEntries == FragmentReassembler.maximumDatagrams)
        #expect(script.stack.brokenInvariant() == nil)
        // What comes together gets through.
        for piece in pieces { script.inject(piece) }
        #expect(script.nextPacket() != nil)
        #expect(script.stack.drops[.fragmentLimit] >= 19_000)
        script.now += FragmentReassembler.lifetime
        script.stack.handleTimeout(now: script.now)
        while script.nextPacket() != nil {}
        #expect(script.stack.tableEntries == 0 && script.stack.counts.fragmentMemory == 0)
    }

    @Test("large datagrams of many peers stay below 1 MB, and pieces below their number") func memory() {
        let script = TCPScript()
        for step in 0..<3000 {
            let attack = Fragments.packet(
                from: SYNQueueTests.address(.v4, step / 400), to: script.local, protocolNumber: Self.other,
                identification: UInt32(step / 50),
                payload: filled(65_000, with: 1))
            script.inject(
                Fragments.piece(attack, identification: UInt32(step / 50), offset: step % 50 * 1200, count: 1200, hasMore: true))
            #expect(script.stack.counts.fragmentMemory <= FragmentReassembler.maximumBytes)
        }
        #expect(script.stack.counts.fragmentMemory > FragmentReassembler.maximumBytes / 2)
        #expect(script.stack.brokenInvariant() == nil)
        let small = Fragments.packet(
            from: script.remote, to: script.local, protocolNumber: Self.other, identification: 1, payload: filled(4000, with: 1))
        for step in 0...FragmentReassembler.maximumPieces {
            script.inject(Fragments.piece(small, identification: 1, offset: 16 * step, count: 8, hasMore: true))
        }
        #expect(script.stack.brokenInvariant() == nil)
        #expect(script.stack.drops[.fragmentLimit] > UInt64(FragmentReassembler.maximumPieces))
    }

    @Test("fragments of a peer that is removed, and to an address that is no longer ours, are forgotten") func purge() throws {
        let (script, packet) = Self.echo(.v4, count: 1300)
        script.inject(Fragments.all(packet, identification: 7, size: 400)[0])
        script.stack.purge(remote: [try #require(IPPrefix(script.remote, length: 32))], now: script.now)
        #expect(script.stack.tableEntries == 0)
        script.inject(Fragments.all(packet, identification: 7, size: 400)[0])
        script.stack.setAddresses([], now: script.now)
        #expect(script.stack.tableEntries == 0 && script.stack.counts.fragmentMemory == 0)
    }
}
