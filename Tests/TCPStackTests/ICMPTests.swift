import Inet
import TCPStack
import TestSupport
import Testing

@Suite struct ICMPTests {
    @Test("an echo request comes back with its data", arguments: [IPAddress.Family.v4, .v6])
    func echo(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let type: UInt8 = family == .v4 ? 8 : 128
        script.inject(
            icmpError(type: type, code: 0, rest: 0x1234_0007, quoting: filled(1000, with: 5), from: script.remote, to: script.local))
        let reply = try #require(script.nextPacket())
        #expect(
            reply
                == icmpError(
                    type: family == .v4 ? 0 : 129, code: 0, rest: 0x1234_0007, quoting: filled(1000, with: 5), from: script.local,
                    to: script.remote))
        #expect(script.nextPacket() == nil)
    }

    @Test("UDP gets port unreachable with a quote, within its limit of size and rate", arguments: [IPAddress.Family.v4, .v6])
    func udp(family: IPAddress.Family) throws {
        let script = TCPScript(family: family)
        let start = family == .v4 ? 20 : 40
        let packet = TCPScript.datagram(
            from: SocketEndpoint(script.remote, port: 9), to: SocketEndpoint(script.local, port: 9), filled(1292, with: 1))
        script.inject(packet)
        let reply = try #require(script.nextPacket())
        let header = try IPHeader(parsing: reply.span.bytes)
        #expect(header.upperProtocol == ICMPMessage.ipProtocol(family))
        #expect(reply[start] == (family == .v4 ? 3 : 1) && reply[start + 1] == (family == .v4 ? 3 : 4))
        #expect(reply.count == (family == .v4 ? 576 : 1280))
        #expect(Array(reply[(start + 8)...]) == Array(packet.prefix(reply.count - start - 8)))
        for _ in 0..<5000 { script.inject(packet) }
        #expect(script.stack.drops[.rateLimited] >= 3000)
    }

    @Test("an echo with a bad checksum is dropped") func badChecksum() {
        let script = TCPScript()
        var packet = icmpError(type: 8, code: 0, rest: 1, quoting: [1, 2, 3], from: script.remote, to: script.local)
        packet[30] ^= 1
        script.inject(packet)
        #expect(script.nextPacket() == nil)
        #expect(script.stack.drops[.badChecksum] == 1)
    }
}
