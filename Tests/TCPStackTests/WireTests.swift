import Inet
import TCPStack
import TestSupport
import Testing

/// Headers and options against bytes that another implementation (Python's struct and RFC 1071 by hand) has made.
@Suite struct WireTests {
    @Test("a SYN with all options has the expected bytes") func syn() {
        var options = TCPOptions()
        options.maximumSegmentSize = 1380
        options.isSACKPermitted = true
        options.timestamps = .init(value: 0x1122_3344, echoReply: 0)
        options.windowScale = 7
        let packet = TCPScript.packet(
            from: endpoint("10.1.0.1:40000"), to: endpoint("10.1.0.2:80"), flags: .syn, seq: 0xFFFF_FFF0, options: options)
        #expect(
            hex(packet)
                == "4500003c00004000400626b80a0100010a0100029c400050fffffff000000000a002ffff53640000020405640402080a112233440000000001030307"
        )
    }

    @Test("an IPv6 segment with SACK blocks and text has the expected bytes") func sack() {
        var options = TCPOptions()
        options.timestamps = .init(value: 5, echoReply: 6)
        options.sack.append(SequenceRange(SequenceNumber(1000), SequenceNumber(2000)))
        options.sack.append(SequenceRange(SequenceNumber(3000), SequenceNumber(4000)))
        let packet = TCPScript.packet(
            from: endpoint("[fd00::1]:443"), to: endpoint("[fd00::2]:51000"), flags: [.ack, .psh], seq: 77, ack: 88, window: 512,
            text: Array("hello".utf8), options: options)
        #expect(
            hex(packet)
                == "6000000000390640fd000000000000000000000000000001fd00000000000000000000000000000201bbc7380000004d00000058d0180200effe00000101080a000000050000000601010512000003e8000007d000000bb800000fa068656c6c6f"
        )
    }

    @Test("every combination of options survives writing and parsing") func roundTrip() {
        for bits in 0..<32 {
            var options = TCPOptions()
            if bits & 1 != 0 { options.maximumSegmentSize = 1234 }
            if bits & 2 != 0 { options.windowScale = 9 }
            if bits & 4 != 0 { options.isSACKPermitted = true }
            if bits & 8 != 0 { options.timestamps = .init(value: 1, echoReply: 2) }
            if bits & 16 != 0 { options.sack.append(SequenceRange(SequenceNumber(5), SequenceNumber(9))) }
            let length = options.encodedLength
            #expect(length % 4 == 0)
            var bytes = [UInt8](repeating: 0xEE, count: length)
            do {
                var span = bytes.mutableSpan
                var raw = span.mutableBytes
                options.write(into: &raw, at: 0)
            }
            let parsed = TCPOptions(parsing: bytes.span.bytes)
            #expect(parsed.maximumSegmentSize == options.maximumSegmentSize)
            #expect(parsed.windowScale == options.windowScale)
            #expect(parsed.isSACKPermitted == options.isSACKPermitted)
            #expect(parsed.timestamps == options.timestamps)
            #expect(parsed.sack.count == options.sack.count)
        }
    }

    @Test("malformed options end the parsing and keep what stood before") func malformed() {
        #expect(TCPOptions(parsing: ([2, 4, 5, 0x64, 8, 0] as [UInt8]).span.bytes).maximumSegmentSize == 1380)
        #expect(TCPOptions(parsing: ([8, 10, 1, 2] as [UInt8]).span.bytes).timestamps == nil)
        #expect(TCPOptions(parsing: ([1, 1, 0, 4, 2] as [UInt8]).span.bytes).isSACKPermitted == false)
        #expect(TCPOptions(parsing: ([3] as [UInt8]).span.bytes).windowScale == nil)
        #expect(TCPOptions(parsing: ([99, 3, 7, 3, 3, 5] as [UInt8]).span.bytes).windowScale == 5)
    }

    private func endpoint(_ text: String) -> SocketEndpoint { SocketEndpoint(text) ?? SocketEndpoint(.anyV4, port: 0) }

    private func hex(_ bytes: [UInt8]) -> String {
        bytes.map { byte in String(byte >> 4, radix: 16) + String(byte & 15, radix: 16) }.joined()
    }
}
