import Inet
import TCPStack
import TestSupport
import Testing

/// Losses judged by time, lost tails, and losses that were none: RFC 8985, RFC 3522, RFC 3708, RFC 4015.
@Suite struct LossScriptTests {
    private let roundTrip = Duration.milliseconds(100)

    @Test("a lost tail is probed after two round trips, and its repair costs the window what a loss costs") func tailLoss() throws {
        let (script, id) = try begin()
        script.write(id, filled(3000, with: 1))
        #expect(script.all().count == 3)
        script.advance(by: roundTrip)
        script.send(.ack, seq: 1001, ack: 7001)
        script.advance(by: .milliseconds(249))
        #expect(script.next() == nil)
        // Two round trips, and what the peer may hold the ACK of a single segment back.
        script.advance(by: .milliseconds(1))
        let probe = try #require(script.next())
        #expect(probe.seq == 7001 && probe.text.count == 1000)
        let before = script.congestionWindow(id)
        script.advance(by: roundTrip)
        script.write(id, filled(1000, with: 2))
        #expect(script.next()?.seq == 8001)
        script.advance(by: roundTrip)
        script.send(.ack, seq: 1001, ack: 9001)
        #expect(script.congestionWindow(id) < before)
        script.advance(by: .seconds(5))
        #expect(script.next() == nil)
    }

    @Test("a probe that was needless, as a D-SACK says, costs nothing") func needlessProbe() throws {
        let (script, id) = try begin()
        script.write(id, filled(2000, with: 1))
        _ = script.all()
        script.advance(by: .milliseconds(200))
        #expect(script.next()?.seq == 6001)
        let before = script.congestionWindow(id)
        script.send(.ack, seq: 1001, ack: 7001)
        script.send(.ack, seq: 1001, ack: 7001, options: TCPScript.reporting(6001..<7001))
        #expect(script.congestionWindow(id) >= before)
        script.advance(by: .seconds(5))
        #expect(script.next() == nil)
    }

    @Test("a probe carries new data if there is any, though the window is full") func probeWithNewData() throws {
        let (script, id) = try begin()
        script.write(id, filled(15_000, with: 1))
        #expect(script.all().count == 10)
        script.advance(by: .milliseconds(200))
        let probe = try #require(script.next())
        #expect(probe.seq == 15_001)
        #expect(script.next() == nil)
    }

    @Test("an unanswered probe is followed by the timeout, once") func probeThenTimeout() throws {
        let (script, id) = try begin()
        let start = script.now
        script.write(id, filled(2000, with: 1))
        _ = script.all()
        script.advance(by: .milliseconds(900))
        let again = script.all()
        // RTO is SRTT and 4 RTTVAR: 300 ms, counted from the probe.
        #expect(again.map(\.seq) == [6001, 5001])
        #expect(again.map { $0.at - start } == [.milliseconds(200), .milliseconds(500)])
    }

    @Test("without SACK there is no probe") func noProbeWithoutSACK() throws {
        let (script, id) = try begin(options: TCPScript.plainMSS(1000))
        let start = script.now
        script.write(id, filled(2000, with: 1))
        _ = script.all()
        script.advance(by: .milliseconds(400))
        let again = script.all()
        #expect(again.map(\.seq) == [5001] && again.first.map { $0.at - start } == .milliseconds(300))
    }

    @Test("a segment that is overtaken by a little is not sent again; one that does not come within a quarter round trip is")
    func reorderingWindow() throws {
        let (script, id) = try begin()
        script.write(id, filled(3000, with: 1))
        _ = script.all()
        script.advance(by: roundTrip)
        script.send(.ack, seq: 1001, ack: 5001, options: TCPScript.reporting(6001..<7001))
        script.advance(by: .milliseconds(24))
        #expect(script.next() == nil)
        script.send(.ack, seq: 1001, ack: 7001)
        // Now that packets have been seen to overtake each other, three reports are not enough.
        script.write(id, filled(4000, with: 1))
        _ = script.all()
        script.advance(by: roundTrip)
        script.send(.ack, seq: 1001, ack: 8001, options: TCPScript.reporting(9001..<12_001))
        #expect(script.next() == nil)
        script.advance(by: .milliseconds(26))
        #expect(script.next()?.seq == 8001)
    }

    @Test("a lost copy is sent again before the timeout") func lostCopy() throws {
        let (script, id) = try begin()
        script.write(id, filled(20_000, with: 1))
        #expect(script.all().count == 10)
        script.advance(by: roundTrip)
        script.send(.ack, seq: 1001, ack: 5001, options: TCPScript.reporting(6001..<15_001))
        var sent = script.all()
        #expect(sent.first?.seq == 5001)
        let newest = try #require(sent.last)
        #expect(newest.seq >= 15_001)
        script.advance(by: roundTrip)
        // What was sent behind the copy has arrived, and the copy has not.
        script.send(.ack, seq: 1001, ack: 5001, options: TCPScript.reporting(6001..<(newest.seq + UInt32(newest.text.count))))
        script.advance(by: .milliseconds(26))
        sent = script.all()
        #expect(sent.first?.seq == 5001)
    }

    @Test("a timeout in vain is taken back: the echo names the original") func eifel() throws {
        let (script, id) = try begin(timestamps: true)
        script.write(id, filled(10_000, with: 1))
        let originals = script.all()
        #expect(originals.count == 10)
        let before = script.congestionWindow(id)
        // The path stalls: probe, then timeout.
        script.advance(by: .milliseconds(1000))
        #expect(script.all().contains { $0.seq == 5001 })
        #expect(script.congestionWindow(id) == 988)
        // The originals were only late.
        script.peerTimestamp = 70_000
        script.send(.ack, seq: 1001, ack: 6977, echo: try #require(originals[1].tsVal))
        #expect(script.congestionWindow(id) >= before)
        #expect(!script.all().contains { $0.seq < 15_001 && $0.text.count > 988 })
    }

    @Test("a timeout that was right is not taken back") func trueTimeout() throws {
        let (script, id) = try begin(timestamps: true)
        script.write(id, filled(9000, with: 1))
        _ = script.all()
        let before = script.congestionWindow(id)
        script.advance(by: .milliseconds(1000))
        let copy = try #require(script.all().last { $0.seq == 5001 })
        script.peerTimestamp = 70_000
        script.send(.ack, seq: 1001, ack: 5989, echo: try #require(copy.tsVal))
        #expect(script.congestionWindow(id) < before)
    }

    @Test("without timestamps D-SACKs for all copies take a reduction back") func dsackUndo() throws {
        let (script, id) = try begin()
        script.write(id, filled(10_000, with: 1))
        _ = script.all()
        let before = script.congestionWindow(id)
        script.advance(by: roundTrip)
        script.send(.ack, seq: 1001, ack: 5001, options: TCPScript.reporting(6001..<10_001))
        #expect(script.next()?.seq == 5001)
        #expect(script.congestionWindow(id) < before)
        script.send(.ack, seq: 1001, ack: 10_001)
        script.send(.ack, seq: 1001, ack: 10_001, options: TCPScript.reporting(5001..<6001))
        #expect(script.congestionWindow(id) >= before)
    }

    @Test("a peer that answers every copy with a shut window can go on so for hours") func shutForHours() throws {
        let (script, id) = try begin()
        script.write(id, filled(3000, with: 1))
        _ = script.all()
        for _ in 0..<2000 {
            script.advance(by: .seconds(10))
            for _ in script.all() { script.send(.ack, seq: 1001, ack: 5001, window: 0) }
        }
        #expect(script.isAlive(id) && script.events().isEmpty)
        // Nobody waits any more, so there is an end.
        script.stack.close(id, now: script.now)
        for _ in 0..<100 where script.isAlive(id) {
            script.advance(by: .seconds(10))
            for _ in script.all() { script.send(.ack, seq: 1001, ack: 5001, window: 0) }
        }
        #expect(script.events() == [.closed(id, .timedOut)])
    }

    @Test("a loss is sent again though none has been for 2 GB") func lateLoss() throws {
        var board = SACKScoreboard()
        let moment = Instant(nanoseconds: 5)
        var start = SequenceNumber(1000)
        // The board never empties: one segment of 1 MB always stays.
        board.append(start: start, length: 1 << 20, sentAt: moment)
        for _ in 0..<2100 {
            let next = start + (1 << 20)
            board.append(start: next, length: 1 << 20, sentAt: moment)
            var delivery = Delivery(now: moment)
            board.acknowledge(upTo: next, delivery: &delivery)
            start = next
        }
        board.append(start: start + (1 << 20), length: 1 << 20, sentAt: moment)
        _ = board.markFirstLost()
        let next = board.nextLost()
        #expect(next == 0)
    }

    @Test("a packet that waited for a session measures no round trip") func heldBack() throws {
        let script = TCPScript()
        let id = try script.stack.connect(from: script.local, to: SocketEndpoint(script.remote, port: 80), now: script.now)
        let syn = try #require(script.nextPacket().flatMap(TCPScript.parse))
        script.stack.packetWasHeldBack()
        // A handshake of almost a second.
        script.advance(by: .milliseconds(900))
        script.inject(
            TCPScript.packet(
                from: SocketEndpoint(script.remote, port: 80), to: SocketEndpoint(script.local, port: syn.sourcePort), flags: [.syn, .ack],
                seq: 1000, ack: syn.seq &+ 1, options: TCPScript.plainMSS(1000)))
        _ = script.all()
        let start = script.now
        script.write(id, [1])
        _ = script.all()
        script.advance(by: .milliseconds(1100))
        // The first RTO of RFC 6298, not three times the handshake.
        #expect(script.all().first.map { $0.at - start } == .seconds(1))
    }

    private func begin(options: TCPOptions? = nil, timestamps: Bool = false) throws -> (TCPScript, ConnectionID) {
        let script = TCPScript()
        if timestamps { script.peerTimestamp = 60_000 }
        return (script, try #require(script.establish(options: options ?? TCPScript.sack(1000), roundTrip: roundTrip)))
    }

}
