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

    @Test("when all is reset, so is what a peer has only begun, and what it has not acknowledged; what it has whole is left to be read")
    func abortAll() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 8)
        let port = script.remotePort
        func connection(_ offset: UInt16) throws -> ConnectionID {
            script.remotePort = port + offset
            script.forgetISS()
            return try #require(script.establish())
        }
        let open = try connection(1)
        let lingering = try connection(2)
        #expect(script.write(lingering, [1, 2, 3]) == 3)
        script.stack.close(lingering, now: script.now)
        _ = script.all()
        let whole = try connection(3)
        script.stack.close(whole, now: script.now)
        _ = script.all()
        script.send(.ack, seq: 1001, ack: 5002)
        for offset: UInt16 in [4, 5] {
            script.remotePort = port + offset
            script.send(.syn, seq: 1000)
        }
        _ = script.all()
        // Established, but nobody has been told.
        script.remotePort = port + 6
        script.forgetISS()
        script.send(.syn, seq: 1000)
        _ = script.all()
        script.send(.ack, seq: 1001, ack: 5001)
        #expect((script.stack.counts.connections, script.stack.counts.halfOpen) == (4, 2))

        var reset: [[UInt16]] = []
        while true {
            let more = script.stack.abortAll(atMost: 2, now: script.now)
            let segments = script.all()
            #expect(segments.allSatisfy { $0.flags.contains(.rst) })
            reset.append(segments.map(\.destinationPort))
            if !more { break }
        }
        #expect(reset.map(\.count) == [2, 2, 1])
        #expect(reset.joined().sorted() == [1, 2, 4, 5, 6].map { port + $0 })
        let events = script.events()
        #expect(events.contains(.closed(open, .aborted)) && events.contains(.closed(lingering, .aborted)))
        #expect((script.stack.counts.connections, script.stack.counts.halfOpen) == (1, 0))
        #expect(script.isAlive(whole))
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
