import Inet
import TCPStack
import TestSupport
import Testing

/// Segments that somebody else could have sent.
@Suite struct HostileScriptTests {
    @Test("fragments are dropped and counted") func fragments() throws {
        let script = TCPScript()
        var packet = TCPScript.packet(
            from: SocketEndpoint(script.remote, port: 1), to: SocketEndpoint(script.local, port: 80), flags: .syn, seq: 1)
        packet[6] = 0x20
        packet[10] = 0
        packet[11] = 0
        let checksum = InternetChecksum.of(packet.span.bytes.extracting(0..<20))
        packet[10] = UInt8(checksum >> 8)
        packet[11] = UInt8(checksum & 0xFF)
        script.inject(packet)
        #expect(script.stack.drops[.fragment] == 1)
        #expect(script.next() == nil)
    }
}
