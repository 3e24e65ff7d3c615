import Inet
import TCPStack
import TestSupport
import Testing

/// What a socket sends and receives.
@Suite struct UDPTests {
    static let families: [IPAddress.Family] = [.v4, .v6]

    @Test("a datagram comes with its bytes, its source and the address it was sent to; one event for a batch", arguments: families)
    func receive(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let id = try script.stack.openUDP(address: nil, port: 53)
        script.sendDatagram([1, 2, 3], to: 53)
        script.sendDatagram([], to: 53)
        #expect(script.events() == [.datagrams(id)])
        let (datagram, data) = try #require(script.receiveDatagram(id))
        #expect(data == [1, 2, 3])
        #expect(datagram == UDPDatagram(count: 3, length: 3, source: script.peer, localAddress: script.local))
        #expect(script.receiveAll(id) == [[]])
        #expect(script.receiveDatagram(id) == nil)
        #expect(script.events().isEmpty && script.nextPacket() == nil)
    }

    @Test("a datagram leaves as one packet with the expected bytes") func bytes() throws {
        let script = TCPScript()
        var options = UDPOptions()
        options.hopLimit = 9
        options.trafficClass = 0xB8
        let id = try script.stack.openUDP(address: script.local, port: 1000, options: options)
        #expect(try script.sendFrom(id, [0xAA, 0xBB, 0xCC], to: SocketEndpoint(script.remote, port: 2000)))
        let packet = try #require(script.nextPacket())
        #expect(
            packet == [
                0x45, 0xB8, 0, 31, 0, 0, 0x40, 0, 9, 17, 0x5D, 0x12, 10, 1, 0, 1, 10, 1, 0, 2,  //
                0x03, 0xE8, 0x07, 0xD0, 0, 11, 0x69, 0x5F, 0xAA, 0xBB, 0xCC,
            ])
        #expect(script.nextPacket() == nil)
    }

    @Test("what is sent is read back, from empty to the largest that fits the MTU", arguments: families)
    func sizes(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let id = try script.stack.openUDP(address: nil, port: 1000)
        let limit = 1420 - (family == .v4 ? 28 : 48)
        #expect(script.stack.maximumUDPPayload(family) == limit)
        for size in [0, 1, 2, 3, 511, limit] {
            #expect(try script.sendFrom(id, filled(size, with: 0xA5), to: script.peer))
            let sent = try #require(script.nextDatagram())
            #expect(sent.source == SocketEndpoint(script.local, port: 1000) && sent.destination == script.peer)
            #expect(sent.data == filled(size, with: 0xA5))
        }
        #expect(throws: StackError.messageTooLarge(limit: limit)) { try script.sendFrom(id, filled(limit + 1, with: 0), to: script.peer) }
        #expect(script.nextPacket() == nil)
    }

    @Test("a bad checksum is dropped", arguments: families) func badChecksum(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let id = try script.stack.openUDP(address: nil, port: 53)
        var packet = TCPScript.datagram(from: script.peer, to: SocketEndpoint(script.local, port: 53), [1, 2, 3])
        packet[packet.count - 1] ^= 0x10
        script.inject(packet)
        #expect(script.receiveAll(id).isEmpty && script.stack.drops[.badChecksum] == 1 && script.nextPacket() == nil)
    }

    @Test("no checksum is taken over IPv4 and refused over IPv6", arguments: families) func noChecksum(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let id = try script.stack.openUDP(address: nil, port: 53)
        var packet = TCPScript.datagram(from: script.peer, to: SocketEndpoint(script.local, port: 53), [1, 2, 3])
        let start = SegmentWriter.ipHeaderLength(family)
        packet[start + 6] = 0
        packet[start + 7] = 0
        script.inject(packet)
        #expect(script.receiveAll(id).count == (family == .v4 ? 1 : 0))
        #expect(script.stack.drops[.badChecksum] == (family == .v4 ? 0 : 1))
    }

    @Test("a checksum that comes out as zero is sent as 0xFFFF, and is right", arguments: families)
    func zeroChecksum(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let id = try script.stack.openUDP(address: nil, port: 1000)
        let start = SegmentWriter.ipHeaderLength(family)
        // The data that makes up for the rest of the sum is that rest's checksum.
        try script.sendFrom(id, [0, 0], to: script.peer)
        let plain = try #require(script.nextPacket())
        try script.sendFrom(id, [plain[start + 6], plain[start + 7]], to: script.peer)
        let packet = try #require(script.nextPacket())
        #expect(packet[start + 6] == 0xFF && packet[start + 7] == 0xFF)
        #expect(TCPScript.parseDatagram(packet)?.data == [plain[start + 6], plain[start + 7]])
    }

    @Test("a length below 8 or beyond the packet is malformed; what lies behind a shorter one is not of the datagram", arguments: families)
    func lengths(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let id = try script.stack.openUDP(address: nil, port: 53)
        let start = SegmentWriter.ipHeaderLength(family)
        for length in [0, 7, 12, 0xFFFF] {
            var packet = TCPScript.datagram(from: script.peer, to: SocketEndpoint(script.local, port: 53), [1, 2, 3])
            packet[start + 4] = UInt8(length >> 8)
            packet[start + 5] = UInt8(length & 0xFF)
            script.inject(packet)
        }
        var short = filled(start + 7, with: 0)
        do {
            var span = short.mutableSpan
            var bytes = span.mutableBytes
            IPHeader.write(into: &bytes, source: script.remote, destination: script.local, upperProtocol: .udp, payloadLength: 7)
        }
        script.inject(short)
        #expect(script.stack.drops[.malformedDatagram] == 5)
        #expect(script.receiveAll(id).isEmpty && script.nextPacket() == nil)
        // Nine bytes behind three of data: the IP header says so, the UDP header does not.
        var padded = TCPScript.datagram(from: script.peer, to: SocketEndpoint(script.local, port: 53), [1, 2, 3]) + filled(9, with: 0xEE)
        do {
            var span = padded.mutableSpan
            var bytes = span.mutableBytes
            IPHeader.write(into: &bytes, source: script.remote, destination: script.local, upperProtocol: .udp, payloadLength: 20)
        }
        script.inject(padded)
        #expect(script.receiveAll(id) == [[1, 2, 3]])
    }

    @Test("a target that is too small gets the beginning, and is told") func truncation() throws {
        let script = TCPScript()
        let id = try script.stack.openUDP(address: nil, port: 53)
        script.sendDatagram([1, 2, 3, 4], to: 53)
        script.sendDatagram([5], to: 53)
        #expect(script.stack.nextUDPLength(id) == 4)
        let (datagram, data) = try #require(script.receiveDatagram(id, room: 3))
        #expect(data == [1, 2, 3] && datagram.wasTruncated && datagram.length == 4)
        #expect(script.receiveAll(id) == [[5]])
        #expect(script.stack.nextUDPLength(id) == nil)
    }

    @Test("a fixed remote goes before an address, an address before none") func matching() throws {
        let script = TCPScript()
        let second = IPAddress(v4: 10, 1, 0, 9)
        script.stack.setAddresses([script.local, second], now: script.now)
        let any = try script.stack.openUDP(address: nil, port: 53)
        let bound = try script.stack.openUDP(address: script.local, port: 53)
        let connected = try script.stack.openUDP(address: script.local, port: 53, remote: script.peer)
        let stranger = SocketEndpoint(script.remote, port: 4)
        script.sendDatagram([1], to: 53)
        script.sendDatagram([2], to: 53, from: stranger)
        script.inject(TCPScript.datagram(from: script.peer, to: SocketEndpoint(second, port: 53), [3]))
        #expect(script.receiveAll(connected) == [[1]])
        #expect(script.receiveAll(bound) == [[2]])
        #expect(script.receiveAll(any) == [[3]])
        #expect(throws: StackError.portInUse) { try script.stack.openUDP(address: nil, port: 53) }
        #expect(throws: StackError.portInUse) { try script.stack.openUDP(address: script.local, port: 53, remote: script.peer) }
        let remote = script.stack.udpEndpoints(of: connected)?.remote
        #expect(remote == script.peer)
    }

    @Test("a connected socket hears and speaks to its remote only, from an address that stays", arguments: families)
    func connected(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let id = try script.stack.openUDP(address: nil, port: nil, remote: script.peer)
        let found = script.stack.udpEndpoints(of: id)
        let ends = try #require(found)
        #expect(ends.address == script.local && EphemeralPorts.range.contains(ends.port))
        try script.sendFrom(id, [1])
        #expect(script.nextDatagram()?.destination == script.peer)
        #expect(throws: StackError.invalidRemote) { try script.sendFrom(id, [1], to: SocketEndpoint(script.remote, port: 7)) }
        script.sendDatagram([1], to: ends.port, from: SocketEndpoint(script.remote, port: 7))
        #expect(script.receiveAll(id).isEmpty && script.stack.drops[.noSocket] == 1)
        script.sendDatagram([2], to: ends.port)
        #expect(script.receiveAll(id) == [[2]])
    }

    @Test("the source is the application's choice among our addresses, or the first of the family") func sources() throws {
        let script = TCPScript()
        let (second, six) = (IPAddress(v4: 10, 1, 0, 9), IPAddress(v6High: 0xFD00 << 48, low: 1))
        script.stack.setAddresses([script.local, second, six], now: script.now)
        let id = try script.stack.openUDP(address: nil, port: 53)
        try script.sendFrom(id, [1], to: script.peer)
        try script.sendFrom(id, [2], to: script.peer, from: second)
        try script.sendFrom(id, [3], to: SocketEndpoint(IPAddress(v6High: 0xFD00 << 48, low: 2), port: 1))
        for address in [script.local, second, six] { #expect(script.nextDatagram()?.source == SocketEndpoint(address, port: 53)) }
        #expect(throws: StackError.addressNotAvailable) { try script.sendFrom(id, [1], to: script.peer, from: IPAddress(v4: 10, 1, 0, 8)) }
        #expect(throws: StackError.addressNotAvailable) { try script.sendFrom(id, [1], to: script.peer, from: six) }
        let bound = try script.stack.openUDP(address: second, port: 54)
        #expect(throws: StackError.addressNotAvailable) { try script.sendFrom(bound, [1], to: script.peer, from: script.local) }
    }

    @Test("remotes that cannot be, addresses that are not ours and port 0 are refused") func refusals() throws {
        let script = TCPScript()
        let id = try script.stack.openUDP(address: nil, port: 53)
        let six = SocketEndpoint(IPAddress(v6High: 0xFD00 << 48, low: 2), port: 9)
        for remote in ["10.1.0.1:9", "127.0.0.1:9", "224.0.0.1:9", "255.255.255.255:9", "0.0.0.0:9", "10.1.0.2:0"] {
            let remote = try #require(SocketEndpoint(remote))
            #expect(throws: StackError.invalidRemote) { try script.sendFrom(id, [1], to: remote) }
            #expect(throws: StackError.invalidRemote) { try script.stack.openUDP(address: nil, port: nil, remote: remote) }
        }
        #expect(throws: StackError.invalidRemote) { try script.sendFrom(id, [1]) }
        #expect(throws: StackError.addressNotAvailable) { try script.sendFrom(id, [1], to: six) }
        #expect(throws: StackError.addressNotAvailable) { try script.stack.openUDP(address: script.remote, port: 54) }
        #expect(throws: StackError.addressNotAvailable) { try script.stack.openUDP(address: nil, port: 0) }
        #expect(throws: StackError.addressNotAvailable) {
            try script.stack.openUDP(address: nil, port: nil, remote: six)
        }
        script.stack.closeUDP(id)
        #expect(throws: StackError.noSuchSocket) { try script.sendFrom(id, [1], to: script.peer) }
        #expect(script.receiveDatagram(id) == nil)
    }

    @Test("ephemeral ports are random, spare what is taken, and end") func ephemeralPorts() throws {
        var configuration = StackConfiguration()
        configuration.maximumUDPSockets = 65_536
        let script = TCPScript(configuration: configuration)
        var ports: Set<UInt16> = []
        var rises = 0
        var last: UInt16 = 0
        for _ in 0..<EphemeralPorts.range.count {
            let id = try script.stack.openUDP(address: nil, port: nil)
            let port = script.stack.udpEndpoints(of: id)?.port ?? 0
            ports.insert(port)
            if port == last &+ 1 { rises += 1 }
            last = port
            if ports.count == 1000 { #expect(rises < 10) }
        }
        #expect(ports.count == EphemeralPorts.range.count)
        #expect(throws: StackError.portsExhausted) { try script.stack.openUDP(address: nil, port: nil) }
        _ = try script.stack.openUDP(address: nil, port: 53)
    }

    @Test("random datagrams, errors and calls never trap, and every table is empty at the end", arguments: 0..<4)
    func fuzz(round: Int) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("fuzz seed \(seed)")
        let random = RandomSource.seeded(seed)
        var configuration = StackConfiguration()
        configuration.maximumUDPSockets = 20
        configuration.udpReceiveDatagramsMaximum = 8
        configuration.udpSendDatagramsMaximum = 8
        let script = TCPScript(configuration: configuration, family: round % 2 == 0 ? .v4 : .v6, seed: seed)
        var ids: [UDPSocketID] = []
        func below(_ bound: Int) -> Int { Int(random.next(below: UInt64(bound))) }
        for step in 0..<10_000 {
            let source = SocketEndpoint(script.remote, port: UInt16(below(8)))
            let target = SocketEndpoint(script.local, port: UInt16(50 + below(8)))
            var packet = TCPScript.datagram(from: source, to: target, filled(below(1500), with: UInt8(below(256))))
            switch below(8) {
            case 0:
                let start = SegmentWriter.ipHeaderLength(script.local.family)
                packet[start + below(packet.count - start)] ^= UInt8(1 << below(8))
                script.inject(packet)
            case 1: script.inject(Array(packet[..<below(packet.count)]))
            case 2:
                // An error about what the stack may have sent, cut anywhere.
                let quoted = TCPScript.datagram(from: target, to: source, filled(below(40), with: 1))
                let isFour = script.local.family == .v4
                script.inject(
                    icmpError(
                        type: isFour ? 3 : UInt8(1 + below(4)), code: UInt8(below(16)), rest: random.nextUInt32(),
                        quoting: Array(quoted[..<below(quoted.count)]) + filled(below(2) * 20, with: 0), from: script.remote,
                        to: script.local))
            default: script.inject(packet)
            }
            switch below(12) {
            case 0:
                let isConnected = below(2) == 0
                if let id = try? script.stack.openUDP(
                    address: below(2) == 0 ? script.local : nil, port: below(4) == 0 ? nil : target.port, remote: isConnected ? source : nil
                ) {
                    ids.append(id)
                }
            case 1 where !ids.isEmpty: script.stack.closeUDP(ids[below(ids.count)])
            case 2 where below(20) == 0: script.stack.purge(remote: [IPPrefix(host: script.remote)], now: script.now)
            case 3 where below(20) == 0:
                script.stack.setAddresses([], now: script.now)
                script.stack.setAddresses([script.local], now: script.now)
            case 4...6 where !ids.isEmpty: _ = script.receiveDatagram(ids[below(ids.count)], room: below(2000))
            case 7 where !ids.isEmpty: _ = script.receiveAll(ids[below(ids.count)])
            case 8 where below(4) == 0: while script.nextPacket() != nil {}
            case 9: script.advance(by: .milliseconds(Int64(below(700))))
            case 10: _ = script.events()
            default: if let id = ids.last { _ = try? script.sendFrom(id, filled(below(1400), with: 2), to: below(2) == 0 ? nil : source) }
            }
            if step % 50 == 0 {
                while script.nextPacket() != nil {}
                let violation = script.stack.brokenInvariant()
                #expect(violation == nil, "seed \(seed) step \(step)")
            }
        }
        script.stack.setAddresses([], now: script.now)
        while script.nextPacket() != nil {}
        _ = script.events()
        for id in ids { script.stack.closeUDP(id) }
        let counts = script.stack.counts
        #expect(counts.udpSockets == 0 && counts.bufferedBytes == 0 && counts.bufferMemory == 0, "seed \(seed): \(counts)")
        #expect(script.stack.brokenInvariant() == nil, "seed \(seed)")
    }
}
