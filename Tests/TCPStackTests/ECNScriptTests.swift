import Inet
import TCPStack
import TestSupport
import Testing

/// Explicit congestion notification: RFC 3168.
@Suite struct ECNScriptTests {
    @Test("a SYN that offers ECN gets it; data is marked as capable, ACKs and copies are not", arguments: [IPAddress.Family.v4, .v6])
    func passive(family: IPAddress.Family) throws {
        let script = TCPScript(family: family, ecn: true)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 1)
        script.send([.syn, .ece, .cwr], seq: 1000, options: TCPScript.plainMSS(1000))
        let answer = try #require(script.next())
        #expect(answer.flags == [.syn, .ack, .ece] && answer.ecn == .notECT)
        script.send(.ack, seq: 1001, ack: 5001)
        let id = try #require(accepted(script))
        script.write(id, filled(1000, with: 1))
        #expect(script.next()?.ecn == .ect0)
        script.advance(by: .milliseconds(250))
        let copy = try #require(script.next())
        #expect(copy.seq == 5001 && copy.ecn == .notECT)
        script.send([], seq: 1001, ack: 6001, text: filled(1000, with: 1))
        script.advance(by: .milliseconds(50))
        let ack = try #require(script.next())
        #expect(ack.text.isEmpty && ack.ecn == .notECT)
    }

    @Test("a SYN without ECN, or with one bit only, gets none", arguments: [TCPFlags.syn, [.syn, .ece], [.syn, .cwr]])
    func notOffered(flags: TCPFlags) throws {
        let script = TCPScript(ecn: true)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 1)
        script.send(flags, seq: 1000, options: TCPScript.plainMSS(1000))
        #expect(script.next()?.flags == [.syn, .ack])
        script.send(.ack, seq: 1001, ack: 5001)
        script.write(try #require(accepted(script)), [1])
        #expect(script.next()?.ecn == .notECT)
    }

    @Test("our SYN offers ECN, and goes again without if nobody answers")
    func active() throws {
        let script = TCPScript(ecn: true)
        _ = try script.stack.connect(from: script.local, to: SocketEndpoint(script.remote, port: 80), now: script.now)
        #expect(script.next()?.flags == [.syn, .ece, .cwr])
        script.advance(by: .seconds(4))
        #expect(script.all().map(\.flags) == [.syn, .syn])
    }

    @Test("an answer with ECE alone agrees; one that mirrors both bits does not", arguments: [true, false])
    func agreement(agrees: Bool) throws {
        let script = TCPScript(ecn: true)
        let id = try script.stack.connect(from: script.local, to: SocketEndpoint(script.remote, port: 80), now: script.now)
        script.localPort = try #require(script.next()).sourcePort
        script.remotePort = 80
        script.send(agrees ? [.syn, .ece] : [.syn, .ece, .cwr], seq: 1000, ack: 5001, options: TCPScript.plainMSS(1000))
        _ = script.all()
        script.write(id, [1])
        #expect(script.next()?.ecn == (agrees ? .ect0 : .notECT))
    }

    @Test("a mark is echoed by every ACK until the peer says CWR") func echo() throws {
        let script = TCPScript(ecn: true)
        let id = try #require(script.establish(flags: [.syn, .ece, .cwr]))
        script.send([], seq: 1001, ack: 5001, text: filled(1000, with: 1), ecn: .ce)
        script.send([], seq: 2001, ack: 5001, text: filled(1000, with: 1))
        #expect(script.next()?.flags == [.ack, .ece])
        script.write(id, [1])
        #expect(script.next()?.flags == [.ack, .psh, .ece])
        script.send([.ack, .cwr], seq: 3001, ack: 5002, text: filled(1000, with: 1))
        script.send([], seq: 4001, ack: 5002, text: filled(1000, with: 1))
        #expect(script.next()?.flags == .ack)
    }

    @Test("an echo reduces the window once a round trip, and CWR answers it") func reduction() throws {
        let script = TCPScript(ecn: true)
        let id = try #require(script.establish(flags: [.syn, .ece, .cwr]))
        script.write(id, filled(20_000, with: 1))
        #expect(script.all().count == 10)
        let before = script.congestionWindow(id)
        for ack in 1...4 { script.send([.ack, .ece], seq: 1001, ack: 5001 + UInt32(ack) * 1000) }
        #expect((before * 7 / 10...before * 8 / 10).contains(script.congestionWindow(id)))
        let next = try #require(script.next())
        #expect(next.flags.contains(.cwr))
        #expect(!script.all().contains { $0.flags.contains(.cwr) })
        // No loss, so nothing is sent again.
        #expect(next.seq == 15_001)
    }

    @Test("without agreement an echo means nothing") func uninvited() throws {
        let script = TCPScript(ecn: true)
        let id = try #require(script.establish())
        script.write(id, filled(10_000, with: 1))
        _ = script.all()
        let before = script.congestionWindow(id)
        script.send([.ack, .ece], seq: 1001, ack: 6001)
        #expect(script.congestionWindow(id) >= before)
    }

    private func accepted(_ script: TCPScript) -> ConnectionID? {
        for event in script.events() { if case .accepted(_, let id) = event { return id } }
        return nil
    }
}
