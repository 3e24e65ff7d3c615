import Inet
import TCPStack
import TestSupport
import Testing

/// Data from the peer: order, holes, duplicates, the window we offer.
@Suite struct ReceiveScriptTests {
    @Test("text behind a hole is reported by SACK, and the hole's filling acknowledges all") func hole() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.send([], seq: 1501, ack: 5001, text: filled(500, with: 2))
        let early = try #require(script.next())
        #expect(early.flags == .ack && early.ack == 1001 && early.sack == [1501..<2001])
        #expect(script.events().isEmpty)
        script.send([], seq: 1001, ack: 5001, text: filled(500, with: 1))
        let done = try #require(script.next())
        #expect(done.ack == 2001 && done.sack.isEmpty)
        #expect(script.events() == [.readable(id)])
        #expect(script.read(id) == filled(500, with: 1) + filled(500, with: 2))
    }

    @Test("three holes give three blocks, the newest first") func threeHoles() throws {
        let script = TCPScript()
        _ = try #require(script.establish(options: TCPScript.sack()))
        var last: TCPScript.Segment?
        for seq: UInt32 in [1101, 1301, 1501] {
            script.send([], seq: seq, ack: 5001, text: filled(100, with: 1))
            last = script.next()
        }
        #expect(last?.ack == 1001)
        #expect(last?.sack == [1501..<1601, 1301..<1401, 1101..<1201])
    }

    @Test("a duplicate is acknowledged at once, with a D-SACK block") func duplicate() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.send([], seq: 1001, ack: 5001, text: filled(1000, with: 7))
        script.advance(by: .milliseconds(40))
        #expect(script.next()?.ack == 2001)
        script.send([], seq: 1001, ack: 5001, text: filled(1000, with: 9))
        let answer = try #require(script.next())
        #expect(answer.ack == 2001 && answer.sack == [1001..<2001])
        #expect(script.read(id) == filled(1000, with: 7))
    }

    @Test("of conflicting early bytes the first copy wins") func conflict() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.send([], seq: 1011, ack: 5001, text: filled(10, with: 1))
        script.send([], seq: 1006, ack: 5001, text: filled(30, with: 2))
        script.send([], seq: 1001, ack: 5001, text: filled(40, with: 3))
        #expect(script.read(id) == filled(5, with: 3) + filled(5, with: 2) + filled(10, with: 1) + filled(15, with: 2) + filled(5, with: 3))
    }

    @Test("overlapping segments give the same bytes in every order")
    func overlaps() throws {
        let stream = (0..<60).map { UInt8($0) }
        let pieces = [0..<20, 10..<30, 25..<26, 15..<45, 40..<60]
        for order in permutations(Array(pieces.indices)) {
            let script = TCPScript()
            let id = try #require(script.establish(options: TCPScript.sack()))
            for index in order {
                let piece = pieces[index]
                script.send([], seq: 1001 + UInt32(piece.lowerBound), ack: 5001, text: Array(stream[piece]))
            }
            #expect(script.read(id) == stream, "\(order)")
        }
    }

    @Test("sequence numbers wrap in mid-stream", arguments: [UInt32.max - 1500, UInt32.max - 1, UInt32.max])
    func wrap(iss: UInt32) throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        script.send(.syn, seq: iss, options: TCPScript.sack())
        #expect(script.next()?.ack == iss &+ 1)
        script.send(.ack, seq: iss &+ 1, ack: 5001)
        guard case .accepted(_, let id) = script.events().first else {
            Issue.record("not accepted")
            return
        }
        script.send([], seq: iss &+ 1001, ack: 5001, text: filled(1000, with: 2))
        script.send([], seq: iss &+ 1, ack: 5001, text: filled(1000, with: 1))
        #expect(script.all().last?.ack == iss &+ 2001)
        #expect(script.read(id) == filled(1000, with: 1) + filled(1000, with: 2))
    }

    @Test("one small segment is acknowledged within 40 ms, two full ones at once, a batch once") func delayedACK() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send([], seq: 1001, ack: 5001, text: filled(1000, with: 1))
        #expect(script.next() == nil)
        let sent = script.now
        script.advance(by: .milliseconds(100))
        let delayed = try #require(script.next())
        #expect(delayed.ack == 2001 && delayed.at - sent == .milliseconds(40))
        for index in 0..<10 { script.send([], seq: 2001 + UInt32(index) * 1000, ack: 5001, text: filled(1000, with: 1)) }
        let answers = script.all()
        #expect(answers.map(\.ack) == [12_001])
        _ = script.read(id)
    }

    @Test("an ACK rides with the answer") func ackRides() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send(.psh, seq: 1001, ack: 5001, text: filled(100, with: 1))
        _ = script.read(id)
        script.write(id, [1, 2, 3])
        let answers = script.all()
        #expect(answers.count == 1)
        #expect(answers.first?.ack == 1101 && answers.first?.text == [1, 2, 3])
        script.advance(by: .milliseconds(100))
        #expect(script.next() == nil)
    }

    @Test("a reader that stops closes the window; reading opens it in one worthwhile step and never moves the edge left")
    func slowReader() throws {
        var configuration = StackConfiguration()
        configuration.receiveBufferInitial = 16_384
        configuration.receiveBufferMaximum = 16_384
        let script = TCPScript(configuration: configuration)
        let id = try #require(script.establish(options: TCPScript.plainMSS(1000)))
        var seq: UInt32 = 1001
        var edge: UInt32 = 0
        var window: UInt32 = 16_384
        for _ in 0..<40 where window > 0 {
            let count = min(1000, Int(window))
            script.send([], seq: seq, ack: 5001, text: filled(count, with: 1))
            seq += UInt32(count)
            script.advance(by: .milliseconds(50))
            for answer in script.all() {
                window = UInt32(answer.window)
                #expect(answer.ack &+ window >= edge)
                edge = answer.ack &+ window
            }
        }
        #expect(window == 0)
        #expect(seq - 1001 == 16_384)
        // Beyond the window: dropped, and answered.
        script.send([], seq: seq, ack: 5001, text: filled(1000, with: 1))
        #expect(script.next()?.ack == seq)
        #expect(script.stack.readableBytes(id) == 16_384)
        // A few bytes are not worth a segment.
        #expect(script.read(id, atMost: 100).count == 100)
        #expect(script.next() == nil)
        #expect(script.read(id, atMost: 4000).count == 4000)
        let update = try #require(script.next())
        #expect(update.ack == seq && update.window >= 1000)
    }

    @Test("the window grows with what the application consumes") func autoTuning() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack(1000, scale: 7)))
        var seq: UInt32 = 1001
        var largest = 0
        for _ in 0..<2000 {
            for _ in 0..<8 {
                script.send([], seq: seq, ack: 5001, text: filled(1000, with: 1))
                seq &+= 1000
            }
            _ = script.read(id)
            for answer in script.all() { largest = max(largest, Int(answer.window) << 8) }
            script.now += .microseconds(10)
        }
        #expect(largest > 1 << 20)
        #expect(largest <= 16 << 20)
    }

    @Test("a window probe is answered at once, and its ACK counts") func probed() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, [1, 2, 3])
        _ = script.all()
        script.send(.ack, seq: 1000, ack: 5004)
        let answer = try #require(script.next())
        #expect(answer.ack == 1001 && answer.window == 65_535)
        #expect(script.stack.counts.bufferedBytes == 0)
    }

    @Test("20,000 one-byte segments behind holes stay bounded") func manyHoles() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack(1000, scale: 7)))
        for index in 0..<20_000 { script.send([], seq: 1003 + UInt32(index) * 2, ack: 5001, text: [1]) }
        #expect(script.stack.drops[.tooManyHoles] == 20_000 - 256)
        #expect(script.stack.counts.bufferedBytes <= 256)
        script.stack.abort(id, now: script.now)
        _ = script.events()
        #expect(script.stack.counts.bufferMemory == 0)
    }
}

func filled(_ count: Int, with byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: count) }

func permutations(_ items: [Int]) -> [[Int]] {
    guard items.count > 1 else { return [items] }
    return items.indices.flatMap { index -> [[Int]] in
        var rest = items
        let item = rest.remove(at: index)
        return permutations(rest).map { [item] + $0 }
    }
}
