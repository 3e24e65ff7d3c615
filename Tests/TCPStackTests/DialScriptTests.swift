import Inet
import TCPStack
import TestSupport
import Testing

/// Opening a connection actively.
@Suite struct DialScriptTests {
    @Test("a SYN goes again after 1, 2 and 4 s, until the connect timeout") func synRepeats() throws {
        let script = TCPScript()
        let start = script.now
        let id = try dial(script, timeout: .seconds(10))
        script.advance(by: .seconds(20))
        let syns = script.all()
        #expect(syns.allSatisfy { $0.flags == .syn && $0.seq == 5000 })
        #expect(syns.map { $0.at - start } == [0, 1, 3, 7].map { .seconds($0) })
        #expect(script.events() == [.closed(id, .timedOut)])
        #expect(script.stack.tableEntries == 0)
    }

    @Test("a SYN and ACK opens, and is acknowledged") func opens() throws {
        let script = TCPScript()
        let id = try dial(script)
        let syn = try #require(script.next())
        #expect(syn.mss == 1380 && syn.sackPermitted && syn.windowScale != nil && syn.tsVal != nil)
        script.send(.syn, seq: 1000, ack: 5001, options: TCPScript.sack())
        let third = try #require(script.next())
        #expect(third.flags == .ack && third.seq == 5001 && third.ack == 1001)
        #expect(script.events() == [.connected(id)])
    }

    @Test("what was written before rides with the third ACK") func earlyWrite() throws {
        let script = TCPScript()
        let id = try dial(script)
        script.write(id, [1, 2, 3])
        #expect(script.all().map(\.flags) == [.syn])
        script.send(.syn, seq: 1000, ack: 5001, options: TCPScript.sack())
        let segments = script.all()
        #expect(segments.count == 1 && segments.first?.text == [1, 2, 3] && segments.first?.ack == 1001)
    }

    @Test("a reset with the right ACK refuses") func refused() throws {
        let script = TCPScript()
        let id = try dial(script)
        _ = script.next()
        script.send(.rst, seq: 0, ack: 5001)
        #expect(script.events() == [.closed(id, .refused)])
        #expect(script.next() == nil)
    }

    @Test("a reset with a wrong ACK, or none, is ignored") func wrongReset() throws {
        let script = TCPScript()
        _ = try dial(script)
        _ = script.next()
        script.send(.rst, seq: 0, ack: 5002)
        script.send(.rst, seq: 0)
        #expect(script.events().isEmpty)
        #expect(script.next() == nil)
        #expect(script.stack.drops[.badReset] == 2)
    }

    @Test("a SYN and ACK with a wrong ACK gets a reset with its number") func wrongSynAck() throws {
        let script = TCPScript()
        let id = try dial(script)
        _ = script.next()
        script.send(.syn, seq: 1000, ack: 7777)
        let reset = try #require(script.next())
        #expect(reset.flags == .rst && reset.seq == 7777)
        script.send(.syn, seq: 1000, ack: 5001)
        #expect(script.events() == [.connected(id)])
    }

    @Test("both sides open at once") func simultaneousOpen() throws {
        let script = TCPScript()
        let id = try dial(script)
        _ = script.next()
        script.send(.syn, seq: 1000, options: TCPScript.sack())
        let answer = try #require(script.next())
        #expect(answer.flags == [.syn, .ack] && answer.seq == 5000 && answer.ack == 1001)
        script.send(.syn, seq: 1000, ack: 5001, options: TCPScript.sack())
        #expect(script.events() == [.connected(id)])
        script.send(.psh, seq: 1001, ack: 5001, text: [5])
        #expect(script.read(id) == [5])
    }

    @Test("a SYN and ACK that comes again is acknowledged") func duplicateSynAck() throws {
        let script = TCPScript()
        _ = try dial(script)
        _ = script.next()
        script.send(.syn, seq: 1000, ack: 5001)
        _ = script.next()
        script.send(.syn, seq: 1000, ack: 5001)
        let answer = try #require(script.next())
        #expect(answer.flags == .ack && answer.seq == 5001 && answer.ack == 1001)
    }

    @Test("close and abort before the answer end quietly") func giveUp() throws {
        let script = TCPScript()
        let first = try dial(script)
        _ = script.next()
        script.stack.close(first, now: script.now)
        #expect(script.events() == [.closed(first, .finished)])
        let second = try dial(script)
        script.stack.abort(second, now: script.now)
        #expect(script.events() == [.closed(second, .aborted)])
        #expect(script.next() == nil)
        #expect(script.stack.tableEntries == 0)
    }

    @Test("an unreachable port that quotes our SYN ends the attempt") func unreachable() throws {
        let script = TCPScript()
        let id = try dial(script)
        let syn = try #require(script.nextPacket())
        script.inject(icmpError(type: 3, code: 3, rest: 0, quoting: Array(syn.prefix(28)), from: script.remote, to: script.local))
        #expect(script.events() == [.closed(id, .unreachable)])
    }

    @Test("a local address that is not ours and a remote one that cannot be are refused") func badAddresses() throws {
        let script = TCPScript()
        let elsewhere = SocketEndpoint(IPAddress(v4: 10, 9, 9, 9), port: 80)
        #expect(throws: StackError.addressNotAvailable) {
            try script.stack.connect(from: IPAddress(v4: 10, 1, 0, 77), to: elsewhere, now: script.now)
        }
        for remote in ["127.0.0.1:80", "224.0.0.1:80", "0.0.0.0:80", "10.1.0.1:80", "10.9.9.9:0"] {
            let endpoint = try #require(SocketEndpoint(remote))
            #expect(throws: StackError.invalidRemote) { try script.stack.connect(from: script.local, to: endpoint, now: script.now) }
        }
    }

    @Test("ports differ, and so do initial sequence numbers") func randomPorts() throws {
        let script = TCPScript()
        var ports: Set<UInt16> = []
        for _ in 0..<200 {
            let id = try script.stack.connect(from: script.local, to: SocketEndpoint(script.remote, port: 80), now: script.now)
            ports.insert(try #require(script.stack.endpoints(of: id)?.local.port))
        }
        #expect(ports.count == 200)
        #expect(Set(script.all().map(\.seq)).count == 200)
    }
}

func dial(_ script: TCPScript, timeout: Duration? = nil) throws -> ConnectionID {
    let id = try script.stack.connect(
        from: script.local, to: SocketEndpoint(script.remote, port: script.remotePort), options: ConnectionOptions(connectTimeout: timeout),
        now: script.now)
    script.localPort = try #require(script.stack.endpoints(of: id)?.local.port)
    return id
}
