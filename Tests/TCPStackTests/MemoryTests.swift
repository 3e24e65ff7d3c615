import Inet
import TCPStack
import TestSupport
import Testing

/// The budget of all connections, and buffers that grow with use and shrink when idle.
@Suite struct MemoryTests {
    @Test("beyond the budget the greediest connection of the greediest address is reset, the others go on") func eviction() throws {
        var configuration = StackConfiguration()
        configuration.memoryLimit = 1 << 20
        let script = TCPScript(configuration: configuration)
        let modest = try #require(establish(script, port: 40_000))
        script.write(modest, filled(60_000, with: 1))
        // Five connections of one address hold a hundred and more each, nobody reads them or takes what they send.
        var greedy: [ConnectionID] = []
        for port in 0..<5 { greedy.append(try #require(establish(script, port: 50_000 + UInt16(port), address: 3))) }
        for (place, id) in greedy.enumerated() { script.write(id, filled(place == 2 ? 260_000 : 130_000, with: 1)) }
        for id in greedy where script.isAlive(id) { script.write(id, filled(260_000, with: 1)) }
        let events = script.events()
        #expect(events.contains { if case .closed(let id, .outOfMemory) = $0 { greedy.contains(id) } else { false } })
        #expect(script.stack.evictions > 0)
        #expect(script.stack.counts.bufferMemory <= 1 << 20)
        #expect(script.isAlive(modest))
        _ = script.all()
        let violation = script.stack.brokenInvariant()
        #expect(violation == nil)
    }

    @Test("when memory is short windows and buffers do not grow") func pressure() throws {
        var configuration = StackConfiguration()
        configuration.memoryLimit = 300_000
        let script = TCPScript(configuration: configuration)
        let hog = try #require(establish(script, port: 40_000))
        script.write(hog, filled(250_000, with: 1))
        let id = try #require(establish(script, port: 40_001))
        var seq: UInt32 = 1001
        var largest = 0
        for _ in 0..<300 {
            script.send([], seq: seq, ack: 5001, text: filled(1000, with: 1))
            seq &+= 1000
            _ = script.read(id)
            for answer in script.all() where answer.destinationPort == 40_001 { largest = max(largest, Int(answer.window) << 8) }
            script.now += .microseconds(10)
        }
        #expect(largest <= configuration.receiveBufferInitial + 256)
        #expect(script.isAlive(id))
    }

    @Test("buffers of silent connections shrink to what they hold") func shrinking() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack(1000, scale: 7)))
        var seq: UInt32 = 1001
        for _ in 0..<100 {
            script.send([], seq: seq, ack: 5001, text: filled(1000, with: 1))
            seq &+= 1000
            _ = script.all()
        }
        #expect(script.stack.counts.bufferMemory >= 100_000)
        #expect(script.read(id, atMost: 99_000).count == 99_000)
        script.advance(by: .seconds(3))
        #expect(script.stack.counts.bufferMemory <= 4096)
        #expect(script.read(id) == filled(1000, with: 1))
        script.advance(by: .seconds(3))
        #expect(script.stack.counts.bufferMemory == 0)
        #expect(script.stack.nextDeadline == nil)
    }

    @Test("the send buffer grows with the congestion window, up to its maximum") func sendBuffer() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack(1000, scale: 10), roundTrip: .milliseconds(1)))
        #expect(script.stack.writableBytes(id) == 256 * 1024)
        for _ in 0..<2000 {
            script.write(id, filled(100_000, with: 1))
            script.now += .milliseconds(1)
            guard let last = script.all().last else { break }
            script.send(.ack, seq: 1001, ack: last.seq &+ UInt32(last.text.count))
        }
        script.write(id, filled(1, with: 1))
        let room = script.stack.writableBytes(id)
        #expect(room > 1 << 20 && room <= 16 << 20)
    }

    private func establish(_ script: TCPScript, port: UInt16, address: UInt8 = 2) -> ConnectionID? {
        if script.stack.counts.listeners == 0 { _ = try? script.stack.listen(address: nil, port: 80, backlog: 16) }
        let remote = SocketEndpoint(IPAddress(v4: 10, 1, 0, address), port: port)
        let local = SocketEndpoint(script.local, port: 80)
        script.remotePort = port
        script.forgetISS()
        script.inject(TCPScript.packet(from: remote, to: local, flags: .syn, seq: 1000, options: TCPScript.sack(1000, scale: 8)))
        while let packet = script.nextPacket() {
            guard let answer = TCPScript.parse(packet), answer.flags.contains(.syn), answer.destinationPort == port else { continue }
            script.inject(TCPScript.packet(from: remote, to: local, flags: .ack, seq: 1001, ack: answer.seq &+ 1, window: 1))
        }
        for event in script.events() { if case .accepted(_, let id) = event { return id } }
        return nil
    }
}
