import Inet
import TCPStack
import TestSupport
import Testing

/// Scenarios of opening a connection passively, and of segments without one.
@Suite struct HandshakeScriptTests {
    @Test("a SYN gets a SYN and ACK with MSS, window scale, SACK permitted and timestamps") func synOptions() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 4)
        var options = TCPScript.sack(1000, scale: 7)
        options.timestamps = .init(value: 77, echoReply: 0)
        script.send(.syn, seq: 1000, options: options)
        let answer = try #require(script.next())
        #expect(answer.flags == [.syn, .ack])
        #expect(answer.ack == 1001)
        #expect(answer.mss == 1380)
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
}
