import Inet
import TCPStack
import TestSupport
import Testing

/// More SYNs than the SYN queue holds.
@Suite struct SYNCookieTests {
    /// A listener whose queue of one is taken.
    static func full(_ family: IPAddress.Family = .v4, seed: UInt64 = 1) throws -> TCPScript {
        var configuration = StackConfiguration()
        configuration.maximumHalfOpenPerListener = 1
        let script = TCPScript(configuration: configuration, family: family, seed: seed)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 16)
        occupy(script)
        return script
    }

    static func occupy(_ script: TCPScript) {
        script.sendRaw(from: SocketEndpoint(SYNQueueTests.address(script.local.family, 99), port: 9), .syn, seq: 1)
        _ = script.rawAnswers()
    }

    static func accepted(_ script: TCPScript) -> ConnectionID? {
        for event in script.events() {
            if case .accepted(_, let id) = event { return id }
        }
        return nil
    }

    /// A peer sends a SYN with `options` and gets an answer.
    static func begin(_ script: TCPScript, _ peer: SocketEndpoint, options: TCPOptions) throws -> TCPScript.Segment {
        script.sendRaw(from: peer, .syn, seq: 1000, options: options)
        return try #require(script.rawAnswers().last)
    }

    static func complete(
        _ script: TCPScript, _ peer: SocketEndpoint, _ answer: TCPScript.Segment, text: [UInt8] = [], window: UInt16 = 65_535,
        timestamp: UInt32? = 1001
    ) {
        var options = TCPOptions()
        if let timestamp, let value = answer.tsVal { options.timestamps = .init(value: timestamp, echoReply: value) }
        script.sendRaw(from: peer, .ack, seq: 1001, ack: answer.seq &+ 1, window: window, text: text, options: options)
    }

    @Test("behind 5,000 SYNs a peer still connects, with its MSS, window scale and SACK", arguments: [IPAddress.Family.v4, .v6])
    func flood(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 16)
        for number in 0..<5000 {
            let source = SocketEndpoint(SYNQueueTests.address(family, number), port: 5000)
            script.sendRaw(from: source, .syn, seq: UInt32(number), options: TCPScript.fullOptions())
            #expect(script.rawAnswers().count == 1)
        }
        #expect(script.stack.counts.halfOpen == 1024 && script.stack.counts.connections == 0)
        #expect(script.stack.synCounters.synCookiesSent == 5000 - 1024)
        #expect(script.stack.tableEntries < 4 * 1024 + 10)
        #expect(script.stack.counts.bufferMemory == 0)

        let peer = SocketEndpoint(script.remote, port: 40_000)
        let answer = try Self.begin(script, peer, options: TCPScript.fullOptions(1240, scale: 7))
        #expect(answer.flags == [.syn, .ack] && answer.windowScale == 8 && answer.sackPermitted && answer.tsEcr == 1000)
        Self.complete(script, peer, answer, window: 20)
        let id = try #require(Self.accepted(script))
        #expect(script.stack.synCounters.synCookiesAccepted == 1)
        // 20 << 7 is 2,560: room for two segments of 1,240 less the timestamps.
        script.write(id, filled(5000, with: 1))
        #expect(script.rawAnswers().map(\.text.count) == [1228, 1228])
        var early = TCPOptions()
        early.timestamps = .init(value: 1002, echoReply: 0)
        script.sendRaw(from: peer, .ack, seq: 1501, ack: answer.seq &+ 1, window: 20, text: filled(100, with: 2), options: early)
        #expect(script.rawAnswers().last?.sack == [1501..<1601])
        #expect(script.stack.brokenInvariant() == nil)
    }

    @Test("without timestamps the MSS is kept, rounded down, and the rest is not offered") func noTimestamps() throws {
        for (named, kept) in [(nil, 536), (100, 48), (536, 536), (1000, 940), (1260, 1240), (1380, 1380), (9000, 1380)] as [(UInt16?, Int)]
        {
            let script = try Self.full()
            let peer = SocketEndpoint(script.remote, port: 40_000)
            var options = TCPScript.sack(1, scale: 7)
            options.maximumSegmentSize = named
            let answer = try Self.begin(script, peer, options: options)
            #expect(answer.windowScale == nil && !answer.sackPermitted && answer.tsVal == nil && answer.mss == 1380)
            Self.complete(script, peer, answer)
            let id = try #require(Self.accepted(script))
            script.write(id, filled(1400, with: 1))
            #expect(script.rawAnswers().first?.text.count == kept)
        }
    }

    @Test("the timestamps of a connection never go back behind that of its cookie") func timestampsRise() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let random = RandomSource.seeded(seed)
        let script = try Self.full(seed: seed)
        for round in 0..<300 {
            script.now += .milliseconds(Int64(random.next(below: 30)))
            Self.occupy(script)
            let peer = SocketEndpoint(SYNQueueTests.address(.v4, 1000 + round), port: 40_000)
            var options = TCPScript.plainMSS(1000)
            options.isSACKPermitted = random.next(below: 2) == 0
            options.windowScale = random.next(below: 3) == 0 ? nil : UInt8(random.next(below: 20))
            options.timestamps = .init(value: 1000, echoReply: 0)
            let answer = try Self.begin(script, peer, options: options)
            #expect(answer.sackPermitted == options.isSACKPermitted && (answer.windowScale != nil) == (options.windowScale != nil))
            Self.complete(script, peer, answer)
            let id = try #require(Self.accepted(script), "seed \(seed)")
            script.write(id, [1])
            let value = try #require(script.rawAnswers().last?.tsVal)
            let step = Int32(bitPattern: value &- (answer.tsVal ?? 0))
            #expect(step >= 0 && step < 64, "seed \(seed)")
            script.stack.abort(id, now: script.now)
            _ = script.events()
        }
    }

    @Test("the first text may take the place of the ACK") func text() throws {
        let script = try Self.full()
        let peer = SocketEndpoint(script.remote, port: 40_000)
        let answer = try Self.begin(script, peer, options: TCPScript.fullOptions())
        Self.complete(script, peer, answer, text: [1, 2, 3])
        let id = try #require(Self.accepted(script))
        #expect(script.read(id) == [1, 2, 3])
    }

    @Test("a cookie is good for 30 s, whenever it is made, and for no more than 45 s") func lifetime() throws {
        for start in stride(from: 0, through: 120, by: 5) {
            for (delay, isGood) in [(0, true), (30, true), (46, false), (61, false), (3600, false)] {
                let script = try Self.full()
                script.now += .seconds(start)
                Self.occupy(script)
                let peer = SocketEndpoint(script.remote, port: 40_000)
                let answer = try Self.begin(script, peer, options: TCPScript.fullOptions())
                #expect(script.stack.synCounters.synCookiesSent == 1)
                script.now += .seconds(delay)
                Self.complete(script, peer, answer)
                #expect((Self.accepted(script) != nil) == isGood, "after \(start) s, \(delay) s old")
                if !isGood { #expect(script.rawAnswers().map(\.flags) == [.rst]) }
            }
        }
    }

    @Test("a cookie is good for its peer, port, sequence number and options only") func bound() throws {
        let script = try Self.full()
        _ = try script.stack.listen(address: nil, port: 81, backlog: 16)
        let peer = SocketEndpoint(script.remote, port: 40_000)
        let answer = try Self.begin(script, peer, options: TCPScript.fullOptions())
        let echo = try #require(answer.tsVal)
        var options = TCPOptions()
        options.timestamps = .init(value: 1001, echoReply: echo)
        let ack = answer.seq &+ 1
        script.sendRaw(from: SocketEndpoint(script.remote, port: 40_001), .ack, seq: 1001, ack: ack, options: options)
        script.sendRaw(from: SocketEndpoint(SYNQueueTests.address(.v4, 5), port: 40_000), .ack, seq: 1001, ack: ack, options: options)
        script.sendRaw(from: peer, .ack, seq: 1002, ack: ack, options: options)
        script.sendRaw(from: peer, .ack, seq: 1001, ack: ack &+ 1, options: options)
        for bit in [27, 30, 31] { script.sendRaw(from: peer, .ack, seq: 1001, ack: ack ^ 1 << UInt32(bit), options: options) }
        // Without timestamps, or with options that were not agreed.
        script.sendRaw(from: peer, .ack, seq: 1001, ack: ack)
        for change: UInt32 in [1, 2, 16, 32] {
            options.timestamps = .init(value: 1001, echoReply: echo ^ change)
            script.sendRaw(from: peer, .ack, seq: 1001, ack: ack, options: options)
        }
        // Right bits, wrong clock.
        options.timestamps = .init(value: 1001, echoReply: echo &+ 1 << 20)
        script.sendRaw(from: peer, .ack, seq: 1001, ack: ack, options: options)
        script.localPort = 81
        script.sendRaw(from: peer, .ack, seq: 1001, ack: ack, options: options)
        script.localPort = 80
        #expect(script.events().isEmpty)
        #expect(script.stack.synCounters.synCookiesRejected == 13)
        let answers = script.rawAnswers()
        #expect(answers.count == 14 && answers.allSatisfy { $0.flags == .rst })
        Self.complete(script, peer, answer)
        #expect(Self.accepted(script) != nil)
    }

    @Test("cookies are left as soon as there is room, and not looked for 45 s later") func leftPromptly() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 16)
        for number in 0..<3000 {
            script.sendRaw(from: SocketEndpoint(SYNQueueTests.address(.v4, number), port: 5000), .syn, seq: 1)
            _ = script.rawAnswers()
        }
        let sent = script.stack.synCounters.synCookiesSent
        #expect(sent == 3000 - 1024)
        script.advance(by: .seconds(8))
        _ = script.all()
        let peer = SocketEndpoint(script.remote, port: 40_000)
        let answer = try Self.begin(script, peer, options: TCPScript.sack(1000, scale: 7))
        #expect(answer.windowScale == 8 && answer.sackPermitted)
        #expect(script.stack.synCounters.synCookiesSent == sent)
        let stray = SocketEndpoint(script.remote, port: 40_001)
        script.sendRaw(from: stray, .ack, seq: 7, ack: 8)
        #expect(script.stack.synCounters.synCookiesRejected == 1)
        script.advance(by: .seconds(38))
        script.sendRaw(from: stray, .ack, seq: 7, ack: 8)
        #expect(script.stack.synCounters.synCookiesRejected == 1)
    }

    @Test("random ACKs never make a connection", arguments: [true, false]) func randomACKs(hasTimestamps: Bool) throws {
        let script = try Self.full()
        let random = RandomSource.seeded(56)
        for number in 0..<50_000 {
            if number % 1000 == 0 {
                script.now += .seconds(20)
                Self.occupy(script)
                _ = try Self.begin(script, SocketEndpoint(script.remote, port: 50_000), options: TCPScript.fullOptions())
            }
            var options = TCPOptions()
            if hasTimestamps { options.timestamps = .init(value: random.nextUInt32(), echoReply: random.nextUInt32()) }
            let source = SocketEndpoint(script.remote, port: UInt16(random.next(below: 40_000) + 1))
            script.sendRaw(from: source, .ack, seq: random.nextUInt32(), ack: random.nextUInt32(), options: options)
        }
        #expect(script.stack.synCounters.synCookiesRejected == 50_000)
        #expect(script.stack.synCounters.synCookiesAccepted == 0 && script.stack.counts.connections == 0)
        #expect(script.events().isEmpty)
    }

    @Test("text that overtakes the ACK is dropped in silence, and the connection opens with what follows") func overtaking() throws {
        let script = try Self.full()
        let peer = SocketEndpoint(script.remote, port: 40_000)
        let answer = try Self.begin(script, peer, options: TCPScript.plainMSS(1000))
        script.sendRaw(from: peer, .ack, seq: 1501, ack: answer.seq &+ 1, text: filled(500, with: 2))
        #expect(script.rawAnswers().isEmpty)
        Self.complete(script, peer, answer, text: filled(500, with: 1))
        let id = try #require(Self.accepted(script))
        #expect(script.read(id).count == 500)
    }

    @Test("a full backlog is not passed by a cookie") func backlog() throws {
        var configuration = StackConfiguration()
        configuration.maximumHalfOpenPerListener = 1
        let script = TCPScript(configuration: configuration)
        _ = try script.stack.listen(address: nil, port: 80, backlog: 1)
        Self.occupy(script)
        let peers = [SocketEndpoint(script.remote, port: 40_000), SocketEndpoint(script.remote, port: 40_001)]
        let answers = try peers.map { try Self.begin(script, $0, options: TCPScript.fullOptions()) }
        for (peer, answer) in zip(peers, answers) { Self.complete(script, peer, answer) }
        #expect(script.stack.drops[.synQueueFull] == 1 && script.stack.counts.connections == 1)
        #expect(Self.accepted(script) != nil)
        Self.complete(script, peers[1], answers[1])
        #expect(Self.accepted(script) != nil)
    }
}
