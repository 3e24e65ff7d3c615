import Inet
import TCPStack
import TestSupport
import Testing

/// Data to the peer: windows, loss, timeouts.
@Suite struct SendScriptTests {
    @Test("ten segments without an ACK: only the first goes again, at doubling intervals") func timeout() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        let start = script.now
        script.write(id, filled(10_000, with: 1))
        #expect(script.all().map(\.seq) == (0..<10).map { 5001 + UInt32($0) * 1000 })
        script.advance(by: .seconds(7))
        let again = script.all()
        #expect(again.map(\.seq) == [5001, 5001, 5001, 5001, 5001])
        #expect(again.map { $0.at - start } == [200, 600, 1400, 3000, 6200].map { .milliseconds($0) })
    }

    @Test("after the user timeout the connection dies with a reset") func userTimeout() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        let start = script.now
        script.write(id, [1])
        script.advance(by: .seconds(200))
        #expect(script.events() == [.closed(id, .timedOut)])
        let last = try #require(script.all().last)
        #expect(last.flags.contains(.rst))
        #expect(last.at - start == .seconds(100))
        #expect(script.stack.tableEntries == 0)
    }

    @Test("three duplicate ACKs bring the segment again before the timeout, in the first flight too") func fastRetransmit() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, filled(5000, with: 1))
        #expect(script.all().count == 5)
        script.send(.ack, seq: 1001, ack: 5001)
        script.send(.ack, seq: 1001, ack: 5001)
        #expect(script.next() == nil)
        script.send(.ack, seq: 1001, ack: 5001)
        let again = script.all()
        #expect(again.map(\.seq) == [5001])
        script.send(.ack, seq: 1001, ack: 10_001)
        #expect(script.next() == nil)
        #expect(script.stack.counts.bufferedBytes == 0)
    }

    @Test("a partial ACK without SACK brings the next hole") func newRenoPartialACK() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, filled(10_000, with: 1))
        #expect(script.all().count == 10)
        for _ in 0..<3 { script.send(.ack, seq: 1001, ack: 5001) }
        #expect(script.all().map(\.seq) == [5001])
        for _ in 0..<5 { script.send(.ack, seq: 1001, ack: 5001) }
        _ = script.all()
        script.send(.ack, seq: 1001, ack: 8001)
        #expect(script.all().map(\.seq) == [8001])
    }

    @Test("a SACK of all but the first brings the first only") func sackFirstLost() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.write(id, filled(5000, with: 1))
        #expect(script.all().count == 5)
        script.send(.ack, seq: 1001, ack: 5001, options: blocks([6001..<10_001]))
        #expect(script.all().map(\.seq) == [5001])
        script.send(.ack, seq: 1001, ack: 10_001)
        #expect(script.next() == nil)
    }

    @Test("two holes are filled without a timeout") func twoHoles() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.write(id, filled(10_000, with: 1))
        #expect(script.all().count == 10)
        let start = script.now
        script.send(.ack, seq: 1001, ack: 5001, options: blocks([6001..<8001]))
        script.send(.ack, seq: 1001, ack: 5001, options: blocks([9001..<15_001, 6001..<8001]))
        #expect(script.all().map(\.seq) == [5001, 8001])
        script.send(.ack, seq: 1001, ack: 15_001)
        #expect(script.now == start)
        #expect(script.stack.counts.bufferedBytes == 0)
    }

    @Test("segments that overtake by one are not sent again") func reordering() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.write(id, filled(5000, with: 1))
        #expect(script.all().count == 5)
        script.send(.ack, seq: 1001, ack: 5001, options: blocks([6001..<7001]))
        script.send(.ack, seq: 1001, ack: 7001)
        script.send(.ack, seq: 1001, ack: 7001, options: blocks([8001..<9001]))
        script.send(.ack, seq: 1001, ack: 9001)
        #expect(script.next() == nil)
    }

    @Test("a peer that takes its SACK back gets everything again") func reneging() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.write(id, filled(3000, with: 1))
        _ = script.all()
        script.send(.ack, seq: 1001, ack: 5001, options: blocks([6001..<8001]))
        script.advance(by: .milliseconds(300))
        script.send(.ack, seq: 1001, ack: 6001)
        script.advance(by: .seconds(2))
        script.send(.ack, seq: 1001, ack: 6001)
        script.advance(by: .seconds(10))
        #expect(Set(script.all().map(\.seq)).isSuperset(of: [5001, 6001]))
        script.send(.ack, seq: 1001, ack: 7001)
        script.advance(by: .seconds(10))
        #expect(script.all().contains { $0.seq == 7001 })
    }

    @Test("bogus SACK blocks change nothing") func bogusSACK() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.write(id, filled(3000, with: 1))
        _ = script.all()
        script.send(.ack, seq: 1001, ack: 5001, options: blocks([1..<2, 5001..<50_000, 900_000..<900_001]))
        script.send(.ack, seq: 1001, ack: 5001, options: blocks([0xF000_0000..<0xF000_1000]))
        #expect(script.next() == nil)
        script.send(.ack, seq: 1001, ack: 8001)
        #expect(script.stack.counts.bufferedBytes == 0)
    }

    @Test("a shut window is probed with back-off for an hour, and its opening resumes") func zeroWindow() throws {
        let script = TCPScript()
        let id = try #require(script.establish(window: 0))
        let start = script.now
        script.write(id, filled(3000, with: 1))
        #expect(script.next() == nil)
        var probes: [Duration] = []
        for _ in 0..<3600 {
            script.advance(by: .seconds(1))
            for probe in script.all() {
                #expect(probe.seq == 5000 && probe.text.isEmpty && probe.flags == .ack)
                probes.append(probe.at - start)
                script.send(.ack, seq: 1001, ack: 5001, window: 0)
            }
        }
        #expect(Array(probes.prefix(4)) == [200, 600, 1400, 3000].map { .milliseconds($0) })
        #expect(probes.count > 60)
        #expect(zip(probes, probes.dropFirst()).allSatisfy { $1 - $0 <= .seconds(60) })
        #expect(script.events().isEmpty)
        script.send(.ack, seq: 1001, ack: 5001, window: 5000)
        #expect(script.all().map(\.seq) == [5001, 6001, 7001])
    }

    @Test("the reply to a probe makes up for a lost window update") func lostUpdate() throws {
        let script = TCPScript()
        let id = try #require(script.establish(window: 0))
        script.write(id, filled(2000, with: 1))
        script.advance(by: .milliseconds(200))
        #expect(script.next()?.seq == 5000)
        script.send(.ack, seq: 1001, ack: 5001, window: 4000)
        #expect(script.all().map(\.seq) == [5001, 6001])
    }

    @Test("a peer that never answers the probes is given up") func deadPeerBehindZeroWindow() throws {
        let script = TCPScript()
        let id = try #require(script.establish(window: 0))
        script.write(id, filled(2000, with: 1))
        script.advance(by: .seconds(400))
        #expect(script.events() == [.closed(id, .timedOut)])
    }

    @Test("a peer that shuts its window on what is in flight, and answers, is not given up") func windowShutOnFlight() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, filled(3000, with: 1))
        _ = script.all()
        for _ in 0..<600 {
            script.advance(by: .seconds(1))
            for again in script.all() {
                #expect(again.seq == 5001)
                script.send(.ack, seq: 1001, ack: 5001, window: 0)
            }
        }
        #expect(script.events().isEmpty)
        script.send(.ack, seq: 1001, ack: 5001, window: 10_000)
        #expect(script.next()?.seq == 5001)
        script.advance(by: .seconds(50))
        #expect(script.events().isEmpty)
        #expect(script.stack.endpoints(of: id) != nil)
    }

    @Test("the peer's window is never exceeded, and no silly segment is sent") func windowIsKept() throws {
        let script = TCPScript()
        let id = try #require(script.establish(window: 3000))
        script.write(id, filled(10_000, with: 1))
        #expect(script.all().map(\.seq) == [5001, 6001, 7001])
        script.send(.ack, seq: 1001, ack: 6001, window: 2010)
        #expect(script.next() == nil)
        script.send(.ack, seq: 1001, ack: 8001, window: 3000)
        #expect(script.all().map(\.seq) == [8001, 9001, 10_001])
    }

    @Test("an ACK in text that was sent again brings its window along") func windowOfRetransmission() throws {
        let script = TCPScript()
        let id = try #require(script.establish(window: 3000))
        script.send([], seq: 1101, ack: 5001, window: 3000, text: filled(100, with: 1))
        _ = script.all()
        script.write(id, filled(9000, with: 1))
        #expect(script.all().map(\.seq) == [5001, 6001, 7001])
        script.send([], seq: 1001, ack: 8001, window: 1000, text: filled(100, with: 1))
        #expect(script.all().filter { !$0.text.isEmpty }.map(\.seq) == [8001])
    }

    @Test("a short write is followed by a writable event when half of the buffer is free") func writable() throws {
        var configuration = StackConfiguration()
        configuration.sendBufferMaximum = 8000
        let script = TCPScript(configuration: configuration)
        let id = try #require(script.establish())
        #expect(script.write(id, filled(10_000, with: 1)) == 8000)
        #expect(script.stack.writableBytes(id) == 0)
        #expect(script.all().count == 8)
        script.send(.ack, seq: 1001, ack: 8001)
        #expect(script.events().isEmpty)
        script.send(.ack, seq: 1001, ack: 9001)
        #expect(script.events() == [.writable(id)])
        #expect(script.stack.writableBytes(id) == 4000)
    }

    @Test("small writes leave as full segments together") func coalescing() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        for _ in 0..<250 { script.write(id, filled(10, with: 1)) }
        #expect(script.all().map(\.text.count) == [1000, 1000, 500])
    }

    @Test("acknowledging byte by byte does not open the congestion window faster") func ackDivision() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, filled(100_000, with: 1))
        #expect(script.all().count == 10)
        for byte in 1...1000 { script.send(.ack, seq: 1001, ack: 5001 + UInt32(byte)) }
        #expect(script.all().count <= 3)
    }

    @Test("an MSS of 1 is not believed") func tinyMSS() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.plainMSS(1)))
        script.write(id, filled(480, with: 1))
        #expect(script.all().map(\.text.count) == [Int](repeating: 48, count: 10))
    }

    @Test("segments with options fit the MTU to the byte") func mtu() throws {
        let script = TCPScript()
        var options = TCPScript.sack(1380, scale: 7)
        options.timestamps = .init(value: 1, echoReply: 0)
        script.peerTimestamp = 1
        let id = try #require(script.establish(options: options))
        script.write(id, filled(5000, with: 1))
        let segments = script.all()
        #expect(segments.map(\.packetLength) == [1420, 1420, 1420, 5000 - 3 * 1368 + 52])
        #expect(segments.allSatisfy { $0.tsEcr == 1 })
    }

    @Test("keepalive probes are sent when asked for, and silence ends the connection") func keepalive() throws {
        var configuration = StackConfiguration()
        configuration.keepalive = .seconds(15)
        let script = TCPScript(configuration: configuration)
        let id = try #require(script.establish())
        script.advance(by: .seconds(16))
        let probe = try #require(script.next())
        #expect(probe.seq == 5000 && probe.text.isEmpty && probe.flags == .ack)
        script.send(.ack, seq: 1001, ack: 5001)
        script.advance(by: .seconds(14))
        #expect(script.next() == nil)
        script.advance(by: .seconds(100))
        #expect(script.events() == [.closed(id, .timedOut)])
    }

    @Test("without keepalive an idle connection lives and needs no timer") func idle() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.advance(by: .seconds(86_400))
        #expect(script.next() == nil)
        #expect(script.stack.nextDeadline == nil)
        #expect(script.stack.endpoints(of: id) != nil)
    }
}

/// An ACK's SACK blocks, in the script's relative numbers.
func blocks(_ ranges: [Range<UInt32>]) -> TCPOptions {
    var options = TCPOptions()
    for range in ranges { options.sack.append(SequenceRange(SequenceNumber(range.lowerBound), SequenceNumber(range.upperBound))) }
    return options
}
