import Inet
import TCPStack
import TestSupport
import Testing

/// Random and half-right packets: nothing traps, nothing grows without bound.
@Suite struct FuzzTests {
    @Test("random bytes never trap") func randomBytes() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("fuzz seed \(seed)")
        let random = RandomSource.seeded(seed)
        let script = TCPScript()
        _ = try #require(script.establish(options: TCPScript.sack(1000, scale: 7)))
        for _ in 0..<20_000 {
            var packet = (0..<Int(random.next(below: 120))).map { _ in UInt8(truncatingIfNeeded: random.nextUInt32()) }
            if let first = packet.first { packet[0] = random.next(below: 2) == 0 ? 0x45 : first & 0x0F | 0x60 }
            script.inject(packet)
        }
        _ = script.all()
        #expect(script.stack.counts.connections == 1, "seed \(seed)")
    }

    @Test("segments with random fields and right checksums never trap on live connections", arguments: 0..<8)
    func randomSegments(round: Int) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("fuzz seed \(seed)")
        let random = RandomSource.seeded(seed)
        var configuration = StackConfiguration()
        configuration.maximumTimeWait = 50
        configuration.maximumConnections = 200
        configuration.receiveBufferMaximum = 1 << 18
        let script = TCPScript(configuration: configuration, family: round % 2 == 0 ? .v4 : .v6, seed: seed)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 8)
        var ids: [ConnectionID] = []
        var outgoing: [TCPScript.Segment] = []
        for step in 0..<8000 {
            // Half of the segments continue what the stack has just said, so that they come deep.
            let last = outgoing.isEmpty || random.next(below: 4) == 0 ? nil : outgoing[Int(random.next(below: UInt64(outgoing.count)))]
            script.forgetISS()
            script.remotePort = last?.destinationPort ?? 40_000 + UInt16(random.next(below: 20))
            script.localPort = last?.sourcePort ?? 80
            var flags = TCPFlags(rawValue: UInt8(truncatingIfNeeded: random.nextUInt32() & 0x3F))
            if random.next(below: 3) > 0 { flags.remove([.rst, .syn]) }
            if last == nil, random.next(below: 2) == 0 { flags = .syn }
            let seq = (last?.ack ?? random.nextUInt32()) &+ UInt32(random.next(below: 5) == 0 ? random.next(below: 70_000) : 0)
            let ack = last.map { $0.seq &+ UInt32($0.text.count) &+ UInt32(random.next(below: 3)) } ?? random.nextUInt32()
            var options = TCPOptions()
            if random.next(below: 2) == 0 { options.isSACKPermitted = true }
            if random.next(below: 2) == 0 { options.windowScale = UInt8(truncatingIfNeeded: random.nextUInt32()) }
            if random.next(below: 2) == 0 { options.maximumSegmentSize = UInt16(truncatingIfNeeded: random.nextUInt32()) }
            if random.next(below: 3) == 0 {
                let start = SequenceNumber(ack &+ UInt32(random.next(below: 4000)))
                options.sack.append(SequenceRange(start, start + Int(random.next(below: 4000))))
            }
            script.inject(
                TCPScript.packet(
                    from: SocketEndpoint(script.remote, port: script.remotePort),
                    to: SocketEndpoint(script.local, port: script.localPort), flags: flags, seq: seq, ack: ack,
                    window: UInt16(truncatingIfNeeded: random.nextUInt32() >> UInt32(random.next(below: 16))),
                    text: filled(Int(random.next(below: 3) == 0 ? random.next(below: 1300) : 0), with: 7), options: options))
            for event in script.events() {
                switch event {
                case .connected(let id), .accepted(_, let id): ids.append(id)
                case .closed(let id, _): ids.removeAll { $0 == id }
                case .readable, .writable, .inputClosed, .inputReset, .urgent, .datagrams, .udpWritable, .udpError, .udpClosed: break
                }
            }
            if let id = ids.randomElement(using: &script.generator) {
                switch random.next(below: 30) {
                case 0: script.stack.close(id, now: script.now)
                case 1: script.stack.closeWrite(id, now: script.now)
                case 2: script.stack.abort(id, now: script.now)
                case 21: script.stack.abortOnceAcknowledged(id, now: script.now)
                case 3...10: script.write(id, filled(Int(random.next(below: 5000)), with: 3))
                case 11...20: _ = script.read(id, atMost: 1000)
                default: break
                }
            }
            if step % 50 == 0, script.stack.counts.connections < 150 {
                _ = try? script.stack.connect(from: script.local, to: SocketEndpoint(script.remote, port: 80), now: script.now)
            }
            if random.next(below: 10) == 0 { script.advance(by: .milliseconds(Int64(random.next(below: 3000)))) }
            let fresh = script.all()
            #expect(fresh.allSatisfy { $0.packetLength <= 1420 }, "seed \(seed)")
            if step % 20 == 0 {
                let violation = script.stack.brokenInvariant()
                #expect(violation == nil, "seed \(seed) step \(step)")
                if violation != nil { return }
            }
            outgoing = Array((outgoing + fresh).suffix(20))
        }
        script.stack.setAddresses([], now: script.now)
        _ = script.events()
        script.advance(by: .seconds(61))
        #expect(script.stack.counts.connections == 0 && script.stack.counts.timeWait == 0, "seed \(seed)")
        #expect(script.stack.counts.bufferedBytes == 0 && script.stack.counts.bufferMemory == 0, "seed \(seed)")
    }
}
