import Inet
import TCPStack
import TestSupport
import Testing

/// FIN in all its orders, half-close, TIME-WAIT, resets by our own side.
@Suite struct CloseScriptTests {
    @Test("a flood of FINs in TIME-WAIT gets a limited number of answers and leaves one record") func timeWaitFlood() throws {
        let script = try timeWait()
        for _ in 0..<10_000 {
            script.send(.fin, seq: 1001, ack: 5002)
            script.now += .microseconds(10)
        }
        #expect(script.all().count < 1200)
        #expect(script.stack.counts.timeWait == 1)
        script.advance(by: .seconds(61))
        #expect(script.stack.tableEntries == 0)
    }

    @Test("TIME-WAIT records are bounded: the oldest gives way") func timeWaitBound() throws {
        var configuration = StackConfiguration()
        configuration.maximumTimeWait = 5
        let script = TCPScript(configuration: configuration)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 100)
        for port in 0..<20 {
            script.remotePort = 40_000 + UInt16(port)
            script.forgetISS()
            let id = try #require(script.establish())
            script.stack.close(id, now: script.now)
            _ = script.next()
            script.send(.fin, seq: 1001, ack: 5002)
            _ = script.all()
            _ = script.events()
            script.now += .seconds(1)
        }
        #expect(script.stack.counts.timeWait == 5)
        script.advance(by: .seconds(100))
        #expect(script.stack.tableEntries == 0)
    }

    @Test("a purged peer leaves nothing behind") func purge() throws {
        let script = try timeWait()
        script.remotePort = 40_002
        script.forgetISS()
        let id = try #require(script.establish())
        script.stack.purge(remote: [try #require(IPPrefix("10.1.0.0/24"))], now: script.now)
        #expect(script.next() == nil)
        #expect(script.events() == [.closed(id, .aborted)])
        #expect(script.stack.tableEntries == 0)
    }

    private func timeWait() throws -> TCPScript {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.stack.close(id, now: script.now)
        _ = script.next()
        script.send(.fin, seq: 1001, ack: 5002)
        _ = script.all()
        #expect(script.events() == [.closed(id, .finished)])
        #expect(script.stack.counts.timeWait == 1)
        return script
    }
}
