import Inet
import TCPStack
import TestSupport
import Testing

/// When segments leave: pacing, Nagle's algorithm, small segments that are acknowledged early; urgent data; TTL.
@Suite struct SendingScriptTests {
    @Test("a window is spread over the round trip, in bursts of 64 KB at most; twice the window a round trip in slow start")
    func pacing() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack(1000, scale: 7), roundTrip: .milliseconds(100)))
        var acked: UInt32 = 5001
        // Slow start up to a window of 640 KB.
        for _ in 0..<6 {
            script.write(id, filled(1 << 20, with: 1))
            let sent = script.all()
            script.advance(by: .milliseconds(100))
            acked = try #require((sent + script.all()).last.map { $0.seq &+ UInt32($0.text.count) })
            script.send(.ack, seq: 1001, ack: acked, window: 65_535)
        }
        let window = script.congestionWindow(id)
        #expect(window > 500_000)
        script.write(id, filled(1 << 20, with: 1))
        let start = script.now
        script.advance(by: .milliseconds(99))
        let sent = script.all()
        let burst = sent.filter { $0.at == start }.reduce(0) { $0 + $1.text.count }
        #expect((60_000...70_000).contains(burst), "\(burst)")
        let half = sent.filter { $0.at - start <= .milliseconds(25) }.reduce(0) { $0 + $1.text.count }
        #expect(abs(half - burst - window / 2) < window / 5, "\(half) of \(window)")
        #expect(sent.reduce(0) { $0 + $1.text.count } > window - 1000)
    }

    @Test("after silence the window is still there, and is paced") func afterSilence() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack(1000, scale: 7), roundTrip: .milliseconds(100)))
        for _ in 0..<5 {
            script.write(id, filled(500_000, with: 1))
            script.advance(by: .milliseconds(100))
            guard let last = script.all().last else { break }
            script.send(.ack, seq: 1001, ack: last.seq &+ UInt32(last.text.count))
        }
        repeat {
            script.advance(by: .milliseconds(100))
            guard let last = script.all().last else { break }
            script.send(.ack, seq: 1001, ack: last.seq &+ UInt32(last.text.count))
        } while true
        let window = script.congestionWindow(id)
        script.advance(by: .seconds(20))
        #expect(script.congestionWindow(id) >= window)
        let start = script.now
        script.write(id, filled(200_000, with: 1))
        script.advance(by: .milliseconds(99))
        let sent = script.all()
        #expect(sent.filter { $0.at == start }.reduce(0) { $0 + $1.text.count } <= 66_000)
        #expect(sent.reduce(0) { $0 + $1.text.count } >= min(200_000, window) - 1000)
    }

    @Test("small writes leave at once, unless the application asks for Nagle's algorithm", arguments: [true, false])
    func nagle(coalesces: Bool) throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 1, options: ConnectionOptions(coalescesSmallWrites: coalesces))
        let id = try #require(script.establish())
        for _ in 0..<3 { script.write(id, filled(10, with: 1)) }
        #expect(script.next()?.text.count == 30)
        for _ in 0..<3 {
            script.write(id, filled(10, with: 2))
            #expect((script.next() == nil) == coalesces)
        }
        guard coalesces else { return }
        script.write(id, filled(1500, with: 3))
        #expect(script.next()?.text.count == 1000)
        script.send(.ack, seq: 1001, ack: 6031)
        #expect(script.next()?.text.count == 530)
        script.write(id, filled(10, with: 4))
        script.stack.closeWrite(id, now: script.now)
        #expect(script.next()?.flags.contains(.fin) == true)
    }

    @Test("the ACK of a small segment does not wait long, for the peer may wait for it; where the answer proves it needless it does")
    func earlyACK() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        func request(_ number: UInt32) {
            script.send([.ack, .psh], seq: 1001 + 10 * number, ack: 5001 + 10 * number, text: filled(10, with: 1))
        }
        var start = script.now
        request(0)
        #expect(script.next() == nil)
        script.advance(by: .milliseconds(10))
        #expect(script.next().map { $0.at - start } == .milliseconds(2))
        // The answer comes, and nothing had come before it: the ACK could have ridden with it.
        script.write(id, filled(10, with: 2))
        #expect(script.next()?.text.count == 10)
        start = script.now
        request(1)
        script.advance(by: .milliseconds(30))
        #expect(script.next() == nil)
        script.write(id, filled(10, with: 2))
        #expect(script.next()?.ack == 1021)
        // An answer that takes longer than the full delay: from now on early again.
        request(2)
        script.advance(by: .milliseconds(60))
        #expect(script.next()?.ack == 1031)
        script.write(id, filled(10, with: 2))
        _ = script.all()
        start = script.now
        request(3)
        script.advance(by: .milliseconds(10))
        #expect(script.next().map { $0.at - start } == .milliseconds(2))
    }

    @Test("urgent data is pointed to from every segment before its end, whatever its length") func urgentOut() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, filled(500, with: 1))
        let urgent = filled(2000, with: 2)
        let count = try script.stack.writeUrgent(id, urgent.span.bytes, now: script.now)
        #expect(count == 2000)
        script.write(id, filled(1500, with: 3))
        let sent = script.all()
        #expect(sent.map { $0.flags.contains(.urg) } == [true, true, true, false])
        #expect(sent.prefix(3).map(\.urgentPointer) == [2500, 1500, 500])
        script.send(.ack, seq: 1001, ack: 9001)
        script.write(id, [1])
        #expect(script.next()?.flags.contains(.urg) == false)
    }

    @Test("urgent data from the peer is announced once, before it has arrived, and read in line") func urgentIn() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send([.ack, .urg], seq: 1001, ack: 5001, text: filled(100, with: 1), urgentPointer: 300)
        #expect(script.events() == [.urgent(id), .readable(id)])
        #expect(script.stack.urgentBytes(id) == 300)
        script.send([.ack, .urg], seq: 1101, ack: 5001, text: filled(100, with: 1), urgentPointer: 200)
        #expect(script.events() == [.readable(id)])
        #expect(script.read(id).count == 200 && script.stack.urgentBytes(id) == 100)
        script.send([.ack, .urg], seq: 1201, ack: 5001, text: filled(100, with: 1), urgentPointer: 400)
        #expect(script.events() == [.urgent(id), .readable(id)])
        script.send([.ack], seq: 1301, ack: 5001, text: filled(500, with: 1))
        _ = script.read(id)
        #expect(script.stack.urgentBytes(id) == 0)
        script.send([.ack, .urg], seq: 1801, ack: 5001, text: [1], urgentPointer: 1)
        #expect(script.events().contains(.urgent(id)))
    }

    @Test("TTL and Hop Limit are what is configured", arguments: [IPAddress.Family.v4, .v6]) func hopLimit(family: IPAddress.Family) throws
    {
        var configuration = StackConfiguration()
        configuration.hopLimit = 7
        let script = TCPScript(configuration: configuration, family: family)
        _ = try script.stack.connect(from: script.local, to: SocketEndpoint(script.remote, port: 80), now: script.now)
        let packet = try #require(script.nextPacket())
        let header = try IPHeader(parsing: packet.span.bytes)
        #expect(header.hopLimit == 7)
    }
}
