import Inet
import Proxy
import Testing

@Suite struct TrustedProxiesTests {
    @Test(
        "an address is trusted if a block of its family holds it; mapped IPv4 counts as IPv4 on both sides",
        arguments: [
            ("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("11.0.0.1", false), ("192.0.2.1", true), ("192.0.2.2", false),
            ("2001:db8::77", true), ("2001:db9::1", false), ("198.51.100.4", true), ("198.51.101.4", false),
        ])
    func contains(_ text: String, _ isTrusted: Bool) throws {
        let blocks = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::ffff:198.51.100.0/120"]
        let proxies = TrustedProxies(blocks.compactMap { IPPrefix($0) })
        #expect(proxies.contains(try #require(IPAddress(text))) == isTrusted)
    }

    @Test("nobody is trusted by default, and an IPv6 block of everything holds no IPv4 address")
    func none() throws {
        let address = try #require(IPAddress("127.0.0.1"))
        #expect(!TrustedProxies().contains(address))
        #expect(!TrustedProxies([try #require(IPPrefix("::/0"))]).contains(address))
    }
}
