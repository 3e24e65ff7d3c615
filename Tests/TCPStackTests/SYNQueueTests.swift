import Inet
import TCPStack
import TestSupport
import Testing

extension TCPScript {
    /// The peer at `source` sends a segment with real numbers.
    func sendRaw(
        from source: SocketEndpoint, _ flags: TCPFlags, seq: UInt32, ack: UInt32 = 0, window: UInt16 = 65_535, text: [UInt8] = [],
        options: TCPOptions = TCPOptions()
    ) {
        inject(
            Self.packet(
                from: source, to: SocketEndpoint(local, port: localPort), flags: flags, seq: seq, ack: ack, window: window, text: text,
                options: options))
    }

    /// What the stack says, in real numbers.
    func rawAnswers() -> [Segment] {
        var result: [Segment] = []
        while let packet = nextPacket() {
            if let segment = Self.parse(packet) { result.append(segment) }
        }
        return result
    }

    /// MSS, SACK permitted, a window scale and timestamps.
    static func fullOptions(_ mss: UInt16 = 1000, scale: UInt8 = 7, timestamp: UInt32 = 1000) -> TCPOptions {
        var options = sack(mss, scale: scale)
        options.timestamps = .init(value: timestamp, echoReply: 0)
        return options
    }
}

/// SYN-RECEIVED behind a listener: bounds, timers, and segments that do not fit.
@Suite struct SYNQueueTests {
    static func address(_ family: IPAddress.Family, _ number: Int) -> IPAddress {
        family == .v4
            ? IPAddress(v4: 0x0A02_0000 + UInt32(number)) : IPAddress(v6High: 0xFD01 << 48 | UInt64(number) << 16, low: UInt64(number))
    }

    static func listening(_ family: IPAddress.Family = .v4, _ change: (inout StackConfiguration) -> Void = { _ in }) throws -> TCPScript {
        var configuration = StackConfiguration()
        change(&configuration)
        let script = TCPScript(configuration: configuration, family: family)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 16)
        return script
    }

    @Test("a half-open connection takes at most 100 bytes") func size() { #expect(Stack.halfOpenSize <= 100) }

    @Test("half-open connections are bounded for each listener; what finds no room gets a cookie") func boundOfListener() throws {
        let script = try Self.listening { $0.maximumHalfOpenPerListener = 10 }
        for port in 0..<30 {
            script.remotePort = 40_000 + UInt16(port)
            script.send(.syn, seq: 1000)
        }
        #expect(script.stack.counts.halfOpen == 10 && script.stack.counts.connections == 0)
        #expect(script.stack.synCounters.synCookiesSent == 20)
        #expect(script.rawAnswers().count == 30)
        script.advance(by: .seconds(120))
        _ = script.all()
        #expect(script.stack.tableEntries == 0)
    }

    @Test("and for the whole stack") func boundOfStack() throws {
        let script = try Self.listening { $0.maximumHalfOpen = 10 }
        _ = try script.stack.listen(address: nil, port: 81, backlog: 16)
        for number in 0..<30 {
            script.localPort = number % 2 == 0 ? 80 : 81
            script.sendRaw(from: SocketEndpoint(Self.address(.v4, number), port: 5000), .syn, seq: 1)
        }
        #expect(script.stack.counts.halfOpen == 10)
        #expect(script.stack.synCounters.synCookiesSent == 20)
        #expect(script.stack.brokenInvariant() == nil)
    }

    @Test("one peer, which is an address or a /64, cannot take the queue from the others", arguments: [IPAddress.Family.v4, .v6])
    func boundOfPeer(family: IPAddress.Family) throws {
        let script = try Self.listening(family) {
            $0.maximumHalfOpenPerListener = 32
            $0.maximumHalfOpenPerPeer = 8
        }
        for number in 0..<100 {
            let address = family == .v4 ? Self.address(.v4, 1) : IPAddress(v6High: 0xFD01 << 48, low: UInt64(number) << 32 | 7)
            script.sendRaw(from: SocketEndpoint(address, port: 5000 + UInt16(number)), .syn, seq: 1)
        }
        #expect(script.stack.counts.halfOpen == 8)
        #expect(script.stack.synCounters.synCookiesSent == 92)
        script.sendRaw(from: SocketEndpoint(Self.address(family, 2), port: 5000), .syn, seq: 1)
        #expect(script.stack.counts.halfOpen == 9)
        #expect(script.stack.synCounters.synCookiesSent == 92)
        #expect(script.stack.brokenInvariant() == nil)
    }

    @Test("a queue that is half full gives up after three transmissions: a flood's remains are gone in 7 s") func crowded() throws {
        let script = try Self.listening { $0.maximumHalfOpenPerListener = 100 }
        for number in 0..<100 { script.sendRaw(from: SocketEndpoint(Self.address(.v4, number), port: 5000), .syn, seq: 1) }
        #expect(script.stack.counts.halfOpen == 100)
        script.advance(by: .seconds(7))
        #expect(script.stack.counts.halfOpen == 50)
        script.advance(by: .seconds(57))
        #expect(script.stack.counts.halfOpen == 0)
        #expect(script.stack.brokenInvariant() == nil)
    }

    @Test("a SYN that comes again with a newer timestamp gets that one back") func newerTimestamp() throws {
        let script = try Self.listening()
        script.send(.syn, seq: 1000, options: TCPScript.fullOptions(timestamp: 50))
        script.send(.syn, seq: 1000, options: TCPScript.fullOptions(timestamp: 60))
        script.send(.syn, seq: 1000, options: TCPScript.fullOptions(timestamp: 40))
        #expect(script.all().map(\.tsEcr) == [50, 60, 60])
    }

    @Test("a reset counts at exactly the next number; elsewhere in the window it is challenged, outside it is ignored") func resets() throws
    {
        let script = try Self.listening()
        script.send(.syn, seq: 1000, options: TCPScript.plainMSS(1000))
        #expect(script.next()?.flags == [.syn, .ack])
        script.send(.rst, seq: 900)
        #expect(script.next() == nil && script.stack.drops[.badReset] == 1)
        script.send(.rst, seq: 1500)
        let challenge = try #require(script.next())
        #expect(challenge.flags == .ack && challenge.seq == 5001 && challenge.ack == 1001)
        #expect(script.stack.counts.halfOpen == 1)
        script.send(.rst, seq: 1001)
        #expect(script.next() == nil)
        #expect(script.stack.tableEntries == 0)
        #expect(script.events().isEmpty)
    }

    @Test("another SYN is challenged; the reset that follows makes room for it") func anotherSYN() throws {
        let script = try Self.listening()
        script.send(.syn, seq: 1000)
        _ = script.next()
        script.send(.syn, seq: 77_000)
        let challenge = try #require(script.next())
        #expect(challenge.flags == .ack && challenge.ack == 1001)
        script.send(.rst, seq: challenge.ack)
        script.send(.syn, seq: 77_000)
        let answer = try #require(script.next())
        #expect(answer.flags == [.syn, .ack] && answer.ack == 77_001)
    }

    @Test("old timestamps, missing ones and segments outside the window do not open; few are answered") func suspicious() throws {
        let script = try Self.listening()
        script.send(.syn, seq: 1000, options: TCPScript.fullOptions(timestamp: 1000))
        _ = script.next()
        script.send(.ack, seq: 1001, ack: 5001)
        #expect(script.next() == nil && script.stack.drops[.missingTimestamp] == 1)
        var answers = 0
        for _ in 0..<100 {
            script.peerTimestamp = 900
            script.send(.ack, seq: 1001, ack: 5001)
            script.peerTimestamp = 1000
            script.send(.ack, seq: 200_000, ack: 5001)
            answers += script.all().count
        }
        #expect(answers == 1)
        #expect(script.stack.drops[.oldTimestamp] == 100 && script.stack.drops[.outsideWindow] == 100)
        script.advance(by: .milliseconds(300))
        script.peerTimestamp = 900
        script.send(.ack, seq: 1001, ack: 5001)
        #expect(script.next()?.flags == .ack)
        #expect(script.events().isEmpty)
        script.peerTimestamp = 1001
        script.send(.ack, seq: 1001, ack: 5001)
        #expect(script.events().count == 1)
    }

    @Test("the ACK may bring text and FIN along") func textAndFIN() throws {
        let script = try Self.listening()
        script.send(.syn, seq: 1000)
        _ = script.next()
        script.send([.psh, .fin], seq: 1001, ack: 5001, text: [1, 2, 3])
        let events = script.events()
        guard case .accepted(_, let id) = events.first else {
            Issue.record("not accepted")
            return
        }
        #expect(Array(events.dropFirst()) == [.readable(id), .inputClosed(id)])
        #expect(script.read(id) == [1, 2, 3])
        #expect(script.next()?.ack == 1005)
    }

    @Test("the round trip of the handshake is measured, unless the SYN and ACK was repeated") func roundTrip() throws {
        for repeats in [false, true] {
            let script = try Self.listening()
            script.send(.syn, seq: 1000, options: TCPScript.plainMSS(1000))
            script.advance(by: repeats ? .milliseconds(1100) : .milliseconds(100))
            script.send(.ack, seq: 1001, ack: 5001)
            guard case .accepted(_, let id) = script.events().first else {
                Issue.record("not accepted")
                return
            }
            _ = script.all()
            let start = script.now
            script.write(id, [1])
            script.advance(by: .seconds(5))
            let times = script.all().map { $0.at - start }
            // srtt + max(200 ms, 4 * rttvar), or the fallback of RFC 6298 §5.7.
            #expect(times.dropFirst().first == (repeats ? .seconds(3) : .milliseconds(300)))
        }
    }

    @Test("with all connections in use the ACK is not believed until one is free") func maximumConnections() throws {
        let script = try Self.listening { $0.maximumConnections = 1 }
        script.send(.syn, seq: 1000)
        let answer = try #require(script.next())
        script.remotePort = 40_001
        script.send(.syn, seq: 1000)
        let second = try #require(script.next())
        script.send(.ack, seq: 1001, ack: second.seq)
        script.remotePort = 40_001
        script.send(.ack, seq: 1001, ack: second.seq &+ 1)
        guard case .accepted(_, let id) = script.events().first else {
            Issue.record("not accepted")
            return
        }
        script.remotePort = 40_000
        script.send(.ack, seq: 1001, ack: answer.seq &+ 1)
        #expect(script.stack.drops[.tooManyConnections] == 1)
        script.stack.abort(id, now: script.now)
        _ = script.events()
        script.send(.ack, seq: 1001, ack: answer.seq &+ 1)
        #expect(script.events().count == 1)
    }

    @Test("a purge and a change of addresses empty the queue") func purge() throws {
        let script = try Self.listening()
        for number in 0..<10 { script.sendRaw(from: SocketEndpoint(Self.address(.v4, number), port: 5000), .syn, seq: 1) }
        let prefix = try #require(IPPrefix(Self.address(.v4, 0), length: 29))
        script.stack.purge(remote: [prefix], now: script.now)
        #expect(script.stack.counts.halfOpen == 2)
        script.stack.setAddresses([], now: script.now)
        #expect(script.stack.counts.halfOpen == 0)
        _ = script.rawAnswers()
        #expect(script.stack.tableEntries == 0)
    }

    @Test("a SYN that offers ECN is answered without it") func ecn() throws {
        let script = try Self.listening()
        script.send([.syn, .ece, .cwr], seq: 1000, options: TCPScript.fullOptions())
        #expect(script.next()?.flags == [.syn, .ack])
    }
}
