import Inet
import Testing

@Suite struct IPAddressTests {
    @Test(
        "text round-trips in its canonical form",
        arguments: [
            ("10.1.0.2", "10.1.0.2"), ("255.255.255.255", "255.255.255.255"), ("::", "::"), ("::1", "::1"),
            ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("fd00:0:0:0:0:0:0:2", "fd00::2"), ("::ffff:192.0.2.1", "::ffff:192.0.2.1"), ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
            ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"), ("::102:304", "::1.2.3.4"), ("::1:0", "::0.1.0.0"), ("::ffff", "::ffff"),
        ])
    func roundTrip(text: String, canonical: String) throws {
        let address = try #require(IPAddress(text))
        #expect(address.description == canonical)
        #expect(IPAddress(canonical) == address)
    }

    @Test(
        "malformed text is refused",
        arguments: [
            "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "1..2.3", "a.b.c.d", ":", ":::", "1::2::3", "12345::", "g::1",
            "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "fe80::1%eth0", "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "+1.2.3.4",
        ])
    func refused(text: String) { #expect(IPAddress(text) == nil) }

    @Test("bytes on the wire are in network order")
    func wireOrder() throws {
        var bytes = [UInt8](repeating: 0, count: 16)
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        try #require(IPAddress("2001:db8::1")).write(into: &raw, at: 0)
        #expect(bytes == [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        let read = IPAddress(.v6, in: bytes.span.bytes, at: 0)
        #expect(read.description == "2001:db8::1")
    }

    @Test("addresses that may not stand inside a tunnel are told apart")
    func insideTunnel() {
        for text in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "::ffff:127.0.0.1"] {
            #expect(IPAddress(text)?.isUnicastInsideTunnel == false, "\(text)")
        }
        for text in ["10.1.0.2", "192.0.2.1", "fd00::2"] { #expect(IPAddress(text)?.isUnicastInsideTunnel == true, "\(text)") }
    }
}

@Suite struct IPPrefixTests {
    @Test("host bits are cleared and membership follows the length")
    func membership() throws {
        let prefix = try #require(IPPrefix("10.1.2.3/16"))
        #expect(prefix.description == "10.1.0.0/16")
        #expect(prefix.contains(IPAddress(v4: 10, 1, 255, 255)))
        #expect(!prefix.contains(IPAddress(v4: 10, 2, 0, 0)))
        let six = try #require(IPPrefix("fd00:1::/65"))
        #expect(six.contains(try #require(IPAddress("fd00:1::7fff:ffff:ffff:ffff"))))
        #expect(!six.contains(try #require(IPAddress("fd00:1:0:0:8000::"))))
        #expect(IPPrefix("0.0.0.0/0")?.contains(IPAddress(v4: 1, 2, 3, 4)) == true)
    }

    @Test(
        "malformed prefixes are refused",
        arguments: ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+1", "/8", "10.0.0.0/1x"])
    func refused(text: String) { #expect(IPPrefix(text) == nil) }
}

@Suite struct SocketEndpointTests {
    @Test("both families round-trip", arguments: ["192.0.2.1:51820", "[2001:db8::1]:80"])
    func roundTrip(text: String) { #expect(SocketEndpoint(text)?.description == text) }

    @Test(
        "malformed endpoints are refused",
        arguments: ["1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "::1:80", "[1.2.3.4]:80", "host:80", "[::1]", ":80"])
    func refused(text: String) { #expect(SocketEndpoint(text) == nil) }
}
