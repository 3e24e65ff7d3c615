import Inet
import TCPStack
import TestSupport
import Testing

/// FIN in all its orders, half-close, TIME-WAIT, resets by our own side.
@Suite struct CloseScriptTests {
    @Test("a FIN with the request is answered by data, then by our FIN") func finWithRequest() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send([.psh, .fin], seq: 1001, ack: 5001, text: [1, 2, 3])
        #expect(script.next()?.ack == 1005)
        #expect(script.events() == [.readable(id), .inputClosed(id)])
        #expect(script.read(id) == [1, 2, 3])
        script.write(id, filled(2500, with: 9))
        script.stack.close(id, now: script.now)
        let segments = script.all()
        #expect(segments.map(\.text.count) == [1000, 1000, 500])
        #expect(segments.last?.flags.contains(.fin) == true)
        script.send(.ack, seq: 1005, ack: 7502)
        #expect(script.events() == [.closed(id, .finished)])
        #expect(script.stack.tableEntries == 0)
    }

    @Test("our FIN is sent again until it is acknowledged, the peer's gets TIME-WAIT") func activeClose() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        let start = script.now
        script.stack.close(id, now: script.now)
        script.advance(by: .seconds(1))
        let fins = script.all()
        #expect(fins.allSatisfy { $0.flags == [.fin, .ack] && $0.seq == 5001 })
        #expect(fins.map { $0.at - start } == [0, 200, 600].map { .milliseconds($0) })
        script.send(.ack, seq: 1001, ack: 5002)
        #expect(script.events().isEmpty)
        script.send(.fin, seq: 1001, ack: 5002)
        let last = try #require(script.next())
        #expect(last.flags == .ack && last.seq == 5002 && last.ack == 1002)
        #expect(script.events() == [.closed(id, .finished)])
        #expect(script.stack.counts.timeWait == 1 && script.stack.counts.connections == 0)
        script.advance(by: .seconds(60))
        #expect(script.stack.tableEntries == 0)
    }

    @Test("a FIN before a hole waits for the missing bytes") func earlyFIN() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack()))
        script.send(.fin, seq: 1101, ack: 5001, text: filled(100, with: 2))
        let duplicate = try #require(script.next())
        #expect(duplicate.ack == 1001 && duplicate.sack == [1101..<1201])
        #expect(script.events().isEmpty)
        script.send([], seq: 1001, ack: 5001, text: filled(100, with: 1))
        #expect(script.next()?.ack == 1202)
        #expect(script.events() == [.readable(id), .inputClosed(id)])
    }

    @Test("both sides close at once: CLOSING, then TIME-WAIT") func simultaneousClose() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.stack.close(id, now: script.now)
        #expect(script.next()?.flags == [.fin, .ack])
        script.send(.fin, seq: 1001, ack: 5001)
        #expect(script.next()?.ack == 1002)
        #expect(script.stack.counts.timeWait == 0)
        script.send(.ack, seq: 1002, ack: 5002)
        #expect(script.stack.counts.timeWait == 1)
        #expect(script.events() == [.closed(id, .finished)])
    }

    @Test("in TIME-WAIT a FIN is acknowledged again and restarts the wait") func timeWaitFIN() throws {
        let script = try timeWait()
        script.advance(by: .seconds(30))
        script.send(.fin, seq: 1001, ack: 5002)
        let answer = try #require(script.next())
        #expect(answer.flags == .ack && answer.seq == 5002 && answer.ack == 1002)
        script.advance(by: .seconds(59))
        #expect(script.stack.counts.timeWait == 1)
        script.advance(by: .seconds(2))
        #expect(script.stack.counts.timeWait == 0)
    }

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

    @Test("in TIME-WAIT a SYN with a higher number opens a new connection, one with a lower number does not") func timeWaitSYN() throws {
        let script = try timeWait()
        script.send(.syn, seq: 500)
        #expect(script.next()?.flags == .ack)
        script.send(.syn, seq: 100_000)
        let answer = try #require(script.next())
        #expect(answer.flags == [.syn, .ack] && answer.ack == 100_001)
        #expect(script.stack.counts.timeWait == 0)
    }

    @Test("in TIME-WAIT a reset is ignored") func timeWaitReset() throws {
        let script = try timeWait()
        script.send(.rst, seq: 1002)
        #expect(script.next() == nil)
        #expect(script.stack.counts.timeWait == 1)
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

    @Test("FIN-WAIT-2 ends after 60 s once the application has closed both ways") func finWait2Reaped() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.stack.close(id, now: script.now)
        _ = script.next()
        script.send(.ack, seq: 1001, ack: 5002)
        script.advance(by: .seconds(59))
        #expect(script.stack.counts.connections == 1)
        script.advance(by: .seconds(2))
        #expect(script.events() == [.closed(id, .finished)])
        #expect(script.stack.tableEntries == 0)
    }

    @Test("a half-closed connection that still reads lives on") func halfClosed() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, [1])
        script.stack.closeWrite(id, now: script.now)
        #expect(script.next()?.flags == [.fin, .ack, .psh])
        script.send(.ack, seq: 1001, ack: 5003)
        script.advance(by: .seconds(3600))
        script.send(.psh, seq: 1001, ack: 5003, text: [7, 8])
        #expect(script.events() == [.readable(id)])
        #expect(script.write(id, [1]) == nil)
        script.send(.fin, seq: 1003, ack: 5003)
        // The bytes stay readable though the protocol is through.
        #expect(script.events() == [.inputClosed(id)])
        #expect(script.stack.counts.timeWait == 1)
        #expect(script.read(id) == [7, 8])
        #expect(script.events() == [.closed(id, .finished)])
    }

    @Test("closing with unread data resets") func closeWithUnread() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send(.psh, seq: 1001, ack: 5001, text: [1, 2, 3])
        script.stack.close(id, now: script.now)
        let reset = try #require(script.next())
        #expect(reset.flags.contains(.rst) && reset.seq == 5001)
        #expect(script.events() == [.closed(id, .aborted)])
        #expect(script.stack.tableEntries == 0)
    }

    @Test("data for an application that has closed resets") func dataAfterClose() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.stack.close(id, now: script.now)
        _ = script.next()
        script.send(.ack, seq: 1001, ack: 5002)
        script.send(.psh, seq: 1001, ack: 5002, text: [1])
        #expect(script.next()?.flags.contains(.rst) == true)
        #expect(script.events() == [.closed(id, .aborted)])
    }

    @Test("data behind a FIN is not acknowledged") func dataAfterFIN() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send(.fin, seq: 1001, ack: 5001)
        #expect(script.next()?.ack == 1002)
        script.send(.psh, seq: 1002, ack: 5001, text: [1, 2])
        #expect(script.all().allSatisfy { $0.ack == 1002 })
        #expect(script.events() == [.inputClosed(id)])
        #expect(script.stack.readableBytes(id) == 0)
    }

    @Test("abort resets at once") func abort() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, filled(5000, with: 1))
        script.stack.abort(id, now: script.now)
        let segments = script.all()
        #expect(segments.count == 1 && segments.first?.flags == [.rst, .ack])
        #expect(script.events() == [.closed(id, .aborted)])
        #expect(script.write(id, [1]) == nil)
        #expect(script.stack.tableEntries == 0 && script.stack.counts.bufferedBytes == 0)
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

    @Test("a FIN waits for a shut window and probes it") func finBehindZeroWindow() throws {
        let script = TCPScript()
        let id = try #require(script.establish(window: 0))
        script.stack.close(id, now: script.now)
        #expect(script.next() == nil)
        script.advance(by: .milliseconds(200))
        #expect(script.next()?.flags == .ack)
        script.send(.ack, seq: 1001, ack: 5001, window: 1)
        #expect(script.next()?.flags == [.fin, .ack])
        script.send(.ack, seq: 1001, ack: 5002, window: 0)
        script.send(.fin, seq: 1001, ack: 5002)
        #expect(script.events() == [.closed(id, .finished)])
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
