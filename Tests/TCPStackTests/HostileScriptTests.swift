import Inet
import TCPStack
import TestSupport
import Testing

/// Segments that somebody else could have sent.
@Suite struct HostileScriptTests {
    @Test("a reset at exactly RCV.NXT kills") func exactReset() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send(.rst, seq: 1001)
        #expect(script.events() == [.closed(id, .reset)])
        #expect(script.next() == nil)
        #expect(script.stack.tableEntries == 0)
    }

    @Test("a reset elsewhere in the window gets a challenge ACK") func windowReset() throws {
        let script = TCPScript()
        _ = try #require(script.establish())
        script.send(.rst, seq: 1501)
        let answer = try #require(script.next())
        #expect(answer.flags == .ack && answer.seq == 5001 && answer.ack == 1001)
        #expect(script.events().isEmpty)
    }

    @Test("a reset outside the window gets silence") func oldReset() throws {
        let script = TCPScript()
        _ = try #require(script.establish())
        script.send(.rst, seq: 900)
        #expect(script.next() == nil)
        #expect(script.events().isEmpty)
    }

    @Test("a SYN on a connection gets a challenge ACK; the reset that follows clears it and a new SYN works")
    func synOnConnection() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send(.syn, seq: 77_000)
        let challenge = try #require(script.next())
        #expect(challenge.flags == .ack && challenge.ack == 1001)
        script.send(.rst, seq: challenge.ack)
        #expect(script.events() == [.closed(id, .reset)])
        script.send(.syn, seq: 77_000)
        #expect(script.next()?.flags == [.syn, .ack])
    }

    @Test("an ACK of what was never sent is answered and its data dropped") func futureACK() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send(.psh, seq: 1001, ack: 9_000_000, text: [1])
        #expect(script.next()?.ack == 1001)
        #expect(script.stack.readableBytes(id) == 0)
    }

    @Test("an ACK of long ago is challenged and its data dropped") func ancientACK() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.send(.psh, seq: 1001, ack: 5001 &- (1 << 30), text: [1])
        #expect(script.next()?.ack == 1001)
        #expect(script.stack.readableBytes(id) == 0)
    }

    @Test("an old timestamp is answered and dropped") func paws() throws {
        let script = TCPScript()
        var options = TCPScript.sack()
        options.timestamps = .init(value: 1000, echoReply: 0)
        script.peerTimestamp = 1000
        let id = try #require(script.establish(options: options))
        script.peerTimestamp = 500
        script.send(.psh, seq: 1001, ack: 5001, text: [1])
        let answer = try #require(script.next())
        #expect(answer.ack == 1001 && answer.tsEcr == 1000)
        #expect(script.stack.readableBytes(id) == 0)
        #expect(script.stack.drops[.oldTimestamp] == 1)
        script.peerTimestamp = nil
        script.send(.psh, seq: 1001, ack: 5001, text: [1])
        #expect(script.next() == nil)
        #expect(script.stack.drops[.missingTimestamp] == 1)
    }

    @Test("TSecr is the timestamp of the last in-order segment") func timestampEcho() throws {
        let script = TCPScript()
        var options = TCPScript.sack()
        options.timestamps = .init(value: 1000, echoReply: 0)
        script.peerTimestamp = 1000
        _ = try #require(script.establish(options: options))
        script.peerTimestamp = 1010
        script.send([], seq: 1501, ack: 5001, text: filled(500, with: 1))
        #expect(script.next()?.tsEcr == 1000)
        script.peerTimestamp = 1020
        script.send([], seq: 1001, ack: 5001, text: filled(500, with: 1))
        #expect(script.next()?.tsEcr == 1020)
    }

    @Test("100 bad resets get few ACKs") func challengeLimit() throws {
        let script = TCPScript()
        _ = try #require(script.establish())
        var answers = 0
        for index in 0..<100 {
            script.send(.rst, seq: 1501 + UInt32(index))
            answers += script.all().count
        }
        #expect((1...10).contains(answers))
        script.advance(by: .seconds(2))
        script.send(.rst, seq: 1501)
        #expect(script.all().count == 1)
    }

    @Test("a bad checksum, offset or length is dropped and counted") func malformed() throws {
        let script = TCPScript()
        _ = try #require(script.establish())
        let source = SocketEndpoint(script.remote, port: 40_000)
        let good = TCPScript.packet(from: source, to: SocketEndpoint(script.local, port: 80), flags: .ack, seq: 1001, text: [1, 2, 3])
        var packet = good
        packet[41] ^= 1
        script.inject(packet)
        #expect(script.stack.drops[.badChecksum] == 1)
        packet = good
        packet[32] = 0x10
        script.inject(packet)
        packet[32] = 0xF0
        script.inject(packet)
        #expect(script.stack.drops[.malformedSegment] == 2)
        script.inject(Array(good.dropLast(1)))
        packet = good
        packet[12] ^= 1
        script.inject(packet)
        #expect(script.stack.drops[.malformedPacket] == 2)
        #expect(script.next() == nil)
    }

    @Test("a packet-too-big is believed only if it quotes what is in flight, and never below the floor") func blindPacketTooBig() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.plainMSS(1380)))
        script.write(id, filled(2760, with: 1))
        let packets = [script.nextPacket(), script.nextPacket()].compactMap { $0 }
        #expect(packets.map(\.count) == [1420, 1420])
        var forged = Array(packets[0].prefix(28))
        forged[24] ^= 0x40
        script.inject(icmpError(type: 3, code: 4, rest: 68, quoting: forged, from: script.remote, to: script.local))
        #expect(script.stack.drops[.unmatchedError] == 1)
        #expect(script.next() == nil)
        let quote = Array(packets[0].prefix(28))
        script.inject(icmpError(type: 3, code: 4, rest: 68, quoting: quote, from: script.remote, to: script.local))
        let again = script.all()
        #expect(again.allSatisfy { $0.packetLength <= 552 })
        #expect(again.first?.text.count == 512)
        #expect(again.first?.seq == 5001)
    }

    @Test("an ICMP error on an established connection is only a hint") func softError() throws {
        let script = TCPScript()
        let id = try #require(script.establish())
        script.write(id, [1])
        let packet = try #require(script.nextPacket())
        script.inject(icmpError(type: 3, code: 3, rest: 0, quoting: Array(packet.prefix(28)), from: script.remote, to: script.local))
        #expect(script.events().isEmpty)
        script.send(.ack, seq: 1001, ack: 5002)
        #expect(script.stack.counts.bufferedBytes == 0)
    }

    @Test(
        "LAND, loopback, multicast and unspecified sources are dropped",
        arguments: ["10.1.0.1", "127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255"])
    func spoofedSource(address: String) throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 8)
        let source = SocketEndpoint(try #require(IPAddress(address)), port: 80)
        script.inject(TCPScript.packet(from: source, to: SocketEndpoint(script.local, port: 80), flags: .syn, seq: 1))
        #expect(script.stack.drops[.spoofedSource] == 1)
        #expect(script.next() == nil)
    }

    @Test("what is not addressed to us is dropped, never forwarded") func notOurs() throws {
        let script = TCPScript()
        _ = try script.stack.listen(address: nil, port: 80, backlog: 8)
        let elsewhere = SocketEndpoint(IPAddress(v4: 10, 1, 0, 3), port: 80)
        script.inject(TCPScript.packet(from: SocketEndpoint(script.remote, port: 1), to: elsewhere, flags: .syn, seq: 1))
        #expect(script.stack.drops[.notOurs] == 1)
        #expect(script.next() == nil)
    }
}
