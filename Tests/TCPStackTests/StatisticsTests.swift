import Inet
import TCPStack
import TestSupport
import Testing

/// What a stack tells of its connections.
@Suite struct StatisticsTests {
    private func statistics(_ script: TCPScript, _ id: ConnectionID) throws -> ConnectionStatistics {
        let statistics = script.stack.statistics(of: id, now: script.now)
        return try #require(statistics)
    }

    @Test("a fresh connection has its initial window, no threshold, and nothing under way")
    func fresh() throws {
        let script = TCPScript()
        let id = try #require(script.establish(window: 30_000))
        script.advance(by: .seconds(3))
        let connection = try statistics(script, id)
        #expect(connection.isPassive && connection.state == .established && connection.local.port == 80)
        #expect(connection.remote == SocketEndpoint(script.remote, port: 40_000))
        #expect(connection.age >= .seconds(3) && connection.silence >= .seconds(3))
        #expect(connection.cwnd == 10_000 && connection.ssthresh == nil && connection.phase == .slowStart && connection.mss == 1000)
        #expect(connection.sendWindow == 30_000 && connection.receiveWindow > 60_000)
        #expect(connection.flightSize == 0 && connection.bytesSent == 0 && connection.bytesReceived == 0)
        #expect(connection.retransmittedSegments == 0 && connection.timeouts == 0)
    }

    @Test("bytes are counted once, however often and in whatever order they travel")
    func bytes() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, filled(20_000, with: 1))
        _ = script.all()
        var connection = try statistics(script, id)
        #expect(connection.flightSize == 10_000 && connection.unacknowledgedBytes == 20_000 && connection.unsentBytes == 10_000)
        #expect(connection.bytesSent == 10_000)
        script.advance(by: .seconds(1))
        _ = script.all()
        connection = try statistics(script, id)
        #expect(connection.timeouts == 2 && connection.retransmittedSegments == 2 && connection.phase == .timeout)
        #expect(connection.bytesSent == 10_000 && connection.ssthresh != nil && connection.rto == .milliseconds(800))
        script.send(.ack, seq: 2001, ack: 5001, text: filled(1000, with: 2))
        #expect(try statistics(script, id).bytesReceived == 0)
        script.send(.ack, seq: 1001, ack: 5001, text: filled(1000, with: 2))
        script.send(.ack, seq: 1001, ack: 5001, text: filled(1000, with: 2))
        connection = try statistics(script, id)
        #expect(connection.bytesReceived == 2000 && connection.unreadBytes == 2000)
        #expect(script.stack.totals.bytesReceived == 2000 && script.stack.totals.segmentsRetransmitted == 2)
    }

    @Test("losses that ACKs tell of are recovery, a timeout is not")
    func phases() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, filled(5000, with: 1))
        _ = script.all()
        for _ in 0..<4 { script.send(.ack, seq: 1001, ack: 5001) }
        _ = script.all()
        let connection = try statistics(script, id)
        #expect(connection.phase == .recovery && connection.retransmittedSegments == 1 && connection.timeouts == 0)
    }

    @Test("the list is bounded, says how many it leaves out, and begins with those for whom most waits")
    func list() throws {
        let script = TCPScript()
        var ids: [ConnectionID] = []
        for index in 0..<5 {
            script.remotePort = 40_000 + UInt16(index)
            script.forgetISS()
            ids.append(try #require(script.establish()))
        }
        script.write(ids[3], filled(100, with: 1))
        script.write(ids[1], filled(5000, with: 1))
        let (connections, more) = script.stack.statistics(limit: 3, now: script.now)
        #expect(connections.map(\.id) == [ids[1], ids[3], ids[0]] && more == 2)
        #expect(script.stack.statistics(limit: 0, now: script.now).more == 5)
        #expect(script.stack.statistics(limit: 9, now: script.now).connections.count == 5)
        script.stack.abort(ids[0], now: script.now)
        _ = script.events()
        let gone = script.stack.statistics(of: ids[0], now: script.now)
        #expect(gone == nil)
    }

    @Test("totals outlive their connections, and states add up")
    func totals() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, [1, 2, 3])
        _ = script.all()
        var totals = script.stack.totals
        #expect(totals.passiveOpens == 1 && totals.activeOpens == 0 && totals.connections[TCPState.established.rawValue] == 1)
        #expect(totals.segmentsReceived == 2 && totals.segmentsSent == 2 && totals.bytesSent == 3 && totals.bufferedBytes == 3)
        script.advance(by: .milliseconds(250))
        script.send([.rst, .ack], seq: 1001, ack: 5004)
        _ = script.events()
        totals = script.stack.totals
        #expect(totals.resetsReceived == 1 && totals.resetsSent == 0 && totals.retransmissionTimeouts == 1)
        #expect(totals.bytesSent == 3 && totals.connections.allSatisfy { $0 == 0 } && totals.bufferedBytes == 0)
        // To a connection that is gone.
        script.send(.ack, seq: 1, ack: 1)
        #expect(script.stack.totals.resetsSent == 1)
        let dialled = try script.stack.connect(from: script.local, to: SocketEndpoint(script.remote, port: 9), now: script.now)
        #expect(script.stack.totals.activeOpens == 1 && script.stack.totals.connections[TCPState.synSent.rawValue] == 1)
        script.stack.abort(dialled, now: script.now)
        script.remotePort += 1
        script.send(.syn, seq: 1000)
        #expect(script.stack.totals.halfOpen == 1 && script.stack.totals.connections[TCPState.synReceived.rawValue] == 1)
    }

    @Test("what lies in TIME-WAIT is counted there once, and a reset that we send is counted")
    func timeWait() throws {
        let pair = try #require(TCPScript().establishPair())
        #expect(pair.stack.totals.connections[TCPState.timeWait.rawValue] == 1)
        #expect(pair.stack.totals.connections[TCPState.closed.rawValue] == 0)
    }
}

extension TCPScript {
    /// A connection that both sides have closed, the script's own first.
    fileprivate func establishPair() -> TCPScript? {
        guard let id = establish() else { return nil }
        stack.close(id, now: now)
        _ = all()
        send([.fin, .ack], seq: 1001, ack: 5002)
        _ = all()
        _ = events()
        return self
    }
}
