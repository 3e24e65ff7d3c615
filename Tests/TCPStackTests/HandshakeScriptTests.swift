import Inet
import TCPStack
import TestSupport
import Testing

/// Opening a connection passively, and segments without a connection.
@Suite struct HandshakeScriptTests {
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

    @Test("an initial sequence number rises with time, 250 in a millisecond") func clockDriven() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 8)
        script.send(.syn, seq: 1000)
        #expect(script.next()?.seq == 5000)
        script.send(.rst, seq: 1001)
        script.advance(by: .milliseconds(100))
        script.send(.syn, seq: 1000)
        #expect(script.next()?.seq == 30_000)
    }

    @Test("one port can have one listener for an address") func portInUse() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 8)
        _ = try script.stack.listen(address: script.local, port: 80, backlog: 8)
        #expect(throws: StackError.portInUse) { try script.stack.listen(address: nil, port: 80, backlog: 8) }
    }
}
