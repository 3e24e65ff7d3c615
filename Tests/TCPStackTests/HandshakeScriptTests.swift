import Inet
import TCPStack
import TestSupport
import Testing

/// Opening a connection passively, and segments without a connection.
@Suite struct HandshakeScriptTests {
    @Test("a SYN gets a SYN and ACK with MSS, window scale, SACK permitted and timestamps", arguments: [IPAddress.Family.v4, .v6])
    func synOptions(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        var options = TCPScript.sack(1000, scale: 7)
        options.timestamps = .init(value: 77, echoReply: 0)
        script.send(.syn, seq: 1000, options: options)
        let answer = try #require(script.next())
        #expect(answer.flags == [.syn, .ack])
        #expect(answer.seq == 5000)
        #expect(answer.ack == 1001)
        #expect(answer.mss == (family == .v4 ? 1380 : 1360))
        #expect(answer.windowScale == 7)
        #expect(answer.sackPermitted)
        #expect(answer.tsEcr == 77)
        #expect(script.next() == nil)
    }

    @Test("a SYN without options gets none but the MSS") func noOptions() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        script.send(.syn, seq: 1000)
        let answer = try #require(script.next())
        #expect(answer.windowScale == nil)
        #expect(!answer.sackPermitted)
        #expect(answer.tsVal == nil)
    }

    @Test("a SYN that comes again gets the same SYN and ACK") func duplicateSYN() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        script.send(.syn, seq: 1000)
        let first = try #require(script.next())
        script.send(.syn, seq: 1000)
        let second = try #require(script.next())
        #expect(second.flags == [.syn, .ack] && second.seq == first.seq && second.ack == first.ack)
        #expect(script.stack.counts.halfOpen == 1)
    }

    @Test("a SYN and ACK without answer goes again with back-off, then the connection is forgotten") func synAckRepeats() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        let start = script.now
        script.send(.syn, seq: 1000)
        script.advance(by: .seconds(120))
        let times = script.all().filter { $0.flags == [.syn, .ack] }.map { $0.at - start }
        #expect(times == [0, 1, 3, 7, 15, 31].map { .seconds($0) })
        #expect(script.stack.tableEntries == 0)
        #expect(script.events().isEmpty)
    }

    @Test("a wrong ACK in SYN-RECEIVED gets a reset with its number, and the good ACK still works") func wrongACK() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        script.send(.syn, seq: 1000)
        _ = script.next()
        script.send(.ack, seq: 1001, ack: 5777)
        let reset = try #require(script.next())
        #expect(reset.flags == .rst && reset.seq == 5777)
        script.send(.ack, seq: 1001, ack: 5001)
        #expect(script.events().count == 1)
        #expect(script.next() == nil)
    }

    @Test("a SYN to a closed port gets RST and ACK with sequence 0") func closedPort() throws {
        let script = TCPScript()
        script.send(.syn, seq: 1000)
        let reset = try #require(script.next())
        #expect(reset.flags == [.rst, .ack] && reset.seq == 0 && reset.ack == 1001)
    }

    @Test("an ACK without a connection gets a reset with its number") func strayACK() throws {
        let script = TCPScript()
        script.send(.ack, seq: 1001, ack: 77)
        let reset = try #require(script.next())
        #expect(reset.flags == .rst && reset.seq == 77)
    }

    @Test("a reset without a connection gets silence") func strayReset() {
        let script = TCPScript()
        script.send(.rst, seq: 1000)
        script.send([.rst, .ack], seq: 1000, ack: 77)
        #expect(script.next() == nil)
        #expect(script.stack.drops[.noConnection] == 2)
    }

    @Test("data takes the place of a lost third ACK") func dataEstablishes() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        script.send(.syn, seq: 1000)
        _ = script.next()
        script.send(.psh, seq: 1001, ack: 5001, text: [1, 2, 3])
        let events = script.events()
        #expect(events.count == 2)
        guard case .accepted(_, let id) = events.first else {
            Issue.record("not accepted")
            return
        }
        #expect(events.last == .readable(id))
        #expect(script.read(id) == [1, 2, 3])
    }

    @Test("data in a SYN is left to be sent again") func synWithData() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        script.send(.syn, seq: 1000, text: [1, 2, 3])
        #expect(script.next()?.ack == 1001)
        script.send(.psh, seq: 1001, ack: 5001, text: [1, 2, 3])
        guard case .accepted(_, let id) = script.events().first else {
            Issue.record("not accepted")
            return
        }
        #expect(script.read(id) == [1, 2, 3])
    }

    @Test("the backlog bounds what waits to be accepted; an ACK too many is not believed") func backlog() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 1)
        for port: UInt16 in [40_000, 40_001] {
            script.remotePort = port
            script.send(.syn, seq: 1000)
        }
        let answers = script.all()
        let first = try #require(answers.first)
        let second = try #require(answers.last)
        script.remotePort = first.destinationPort
        script.send(.ack, seq: 1001, ack: 5001)
        script.remotePort = second.destinationPort
        script.send(.ack, seq: 1001, ack: second.seq &+ 1)
        #expect(script.stack.drops[.synQueueFull] == 1)
        #expect(script.events().count == 1)
        script.send(.ack, seq: 1001, ack: second.seq &+ 1)
        #expect(script.events().count == 1)
    }

    @Test("closing a listener resets what has not been accepted and leaves the rest") func closeListener() throws {
        let script = TCPScript()
        let listener = try script.stack.listen(address: nil, port: 80, backlog: 8)
        let id = try #require(script.establish())
        script.remotePort = 40_001
        script.send(.syn, seq: 1000)
        _ = script.next()
        script.stack.closeListener(listener, now: script.now)
        #expect(script.next()?.flags.contains(.rst) == true)
        #expect(script.stack.counts.connections == 1)
        #expect(script.stack.endpoints(of: id) != nil)
        #expect(script.events().isEmpty)
    }

    @Test("one port can have one listener for an address") func portInUse() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 8)
        _ = try script.stack.listen(address: script.local, port: 80, backlog: 8)
        #expect(throws: StackError.portInUse) { try script.stack.listen(address: nil, port: 80, backlog: 8) }
    }
}
