import Inet
import Testing
import WGUserspace

@Suite struct HandshakeRateLimiterTests {
    private let random = RandomSource.seeded(20)
    private let start = Instant(nanoseconds: 5_000_000_000)

    @Test("five at once, then twenty a second, however hard a source tries")
    func rate() {
        var limiter = HandshakeRateLimiter()
        let source = IPAddress(v4: 192, 0, 2, 1)
        let first = (0..<100).filter { _ in limiter.allows(source, random: random, now: start) }.count
        #expect(first == 5)
        // 10 s of a try each millisecond.
        let allowed = (1...10_000).filter { limiter.allows(source, random: random, now: start + .milliseconds(Int64($0))) }.count
        #expect(allowed == 200)
        // After a quarter of a second the burst is there again.
        let rest = start + .seconds(11)
        #expect((0..<100).filter { _ in limiter.allows(source, random: random, now: rest) }.count == 5)
    }

    @Test("an IPv4 address is a source, and so is an IPv6 /64; a full one takes nothing from the others")
    func sources() throws {
        var limiter = HandshakeRateLimiter()
        func exhaust(_ source: IPAddress) -> Int { (0..<50).filter { _ in limiter.allows(source, random: random, now: start) }.count }
        #expect(exhaust(IPAddress(v4: 192, 0, 2, 1)) == 5)
        #expect(exhaust(IPAddress(v4: 192, 0, 2, 2)) == 5)
        #expect(exhaust(try #require(IPAddress("2001:db8:0:1::1"))) == 5)
        #expect(exhaust(try #require(IPAddress("2001:db8:0:1:ffff::2"))) == 0)
        #expect(exhaust(try #require(IPAddress("2001:db8:0:2::1"))) == 5)
        // The low half of an IPv6 address that looks like the IPv4 one, and the other way round.
        #expect(exhaust(IPAddress(v6High: 0xC000_0201, low: 0)) == 5)
    }

    @Test("a flood from 100,000 addresses shuts nobody out, and the table does not grow")
    func manySources() {
        var limiter = HandshakeRateLimiter()
        var refused = 0
        for round in 0..<100_000 {
            let now = start + .microseconds(Int64(round) * 10)
            for _ in 0..<2 { _ = limiter.allows(IPAddress(v4: 0x7F00_0000 + UInt32(round)), random: random, now: now) }
            // A newcomer each time, as if it were a lawful peer's first message.
            if !limiter.allows(IPAddress(v4: 0x0A00_0000 + UInt32(round)), random: random, now: now) { refused += 1 }
        }
        #expect(refused == 0)
        #expect(limiter.placeCount == HandshakeRateLimiter.setCount * HandshakeRateLimiter.ways)
    }

    @Test("a source that is over its rate stays so though as many others as the table has room for come and go")
    func persistence() {
        var limiter = HandshakeRateLimiter()
        let source = IPAddress(v4: 203, 0, 113, 5)
        var allowed = 0
        for round in 0..<2_000 {
            let now = start + .milliseconds(Int64(round))
            if limiter.allows(source, random: random, now: now) { allowed += 1 }
            // 1,000 other sources a second, each once: their entries are free again after 50 ms.
            _ = limiter.allows(IPAddress(v4: 0x0A00_0000 + UInt32(round)), random: random, now: now)
        }
        #expect(allowed == 5 + 39)
    }
}
