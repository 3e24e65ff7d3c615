import Inet
import Testing
import WGUserspace

@Suite struct AllowedIPsTests {
    private func prefix(_ text: String) throws -> IPPrefix { try #require(IPPrefix(text)) }
    private func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    @Test("the longest prefix wins")
    func longestPrefix() throws {
        var table = AllowedIPs()
        for (text, peer) in [
            ("0.0.0.0/0", 0), ("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3/32", 3), ("::/0", 4), ("fd00::/8", 5), ("fd00::7/128", 6),
        ] {
            #expect(table.insert(try prefix(text), peer: peer) == nil)
        }
        for (text, peer) in [
            ("192.0.2.1", 0), ("10.2.0.1", 1), ("10.1.9.9", 2), ("10.1.2.3", 3), ("10.1.2.2", 2), ("2001:db8::1", 4), ("fd00::8", 5),
            ("fd00::7", 6),
        ] {
            #expect(table.lookup(try address(text)) == peer, "\(text)")
        }
    }

    @Test("an empty table and a removed prefix own nothing")
    func nothing() throws {
        var table = AllowedIPs()
        #expect(table.lookup(try address("10.0.0.1")) == nil)
        table.insert(try prefix("10.0.0.0/24"), peer: 1)
        table.remove(try prefix("10.0.0.0/24"), peer: 2)
        #expect(table.lookup(try address("10.0.0.1")) == 1)
        table.remove(try prefix("10.0.0.0/24"), peer: 1)
        #expect(table.lookup(try address("10.0.0.1")) == nil)
        #expect(table.count == 0)
    }

    @Test("the last writer owns a prefix, and the former owner is named")
    func lastWriter() throws {
        var table = AllowedIPs()
        table.insert(try prefix("10.0.0.0/24"), peer: 1)
        #expect(table.insert(try prefix("10.0.0.0/24"), peer: 2) == 1)
        #expect(table.lookup(try address("10.0.0.1")) == 2)
        #expect(table.owner(of: try prefix("10.0.0.0/24")) == 2)
        #expect(table.owner(of: try prefix("10.0.0.0/25")) == nil)
    }

    @Test(
        "prefixes that are regular in any of their bits do not crowd",
        arguments: [24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128])
    func spread(length: Int) throws {
        var table = AllowedIPs()
        for number in 0..<UInt64(4000) {
            // The number stands right before the prefix's end, in fd00::/8.
            let shift = UInt64(128 - length)
            let high = 0xFD00_0000_0000_0000 | (shift >= 64 ? number << (shift - 64) : shift == 0 ? 0 : number >> (64 - shift))
            let prefix = try #require(IPPrefix(IPAddress(v6High: high, low: shift >= 64 ? 0 : number << shift), length: length))
            table.insert(prefix, peer: 1)
            guard length <= 32 else { continue }
            table.insert(try #require(IPPrefix(IPAddress(v4: UInt32(number) << UInt32(32 - length)), length: length)), peer: 2)
        }
        #expect(table.longestProbe < 64)
    }

    @Test("it agrees with a plain list of prefixes, whatever comes and goes")
    func agreesWithOracle() {
        let seed = UInt64.random(in: 0..<1_000_000)
        let random = RandomSource.seeded(seed)
        var table = AllowedIPs()
        var oracle: [IPPrefix: Int] = [:]
        func someAddress() -> IPAddress {
            // Few different bits, so that prefixes nest and addresses hit.
            random.next(below: 2) == 0
                ? IPAddress(v4: UInt32(random.next(below: 16)) << 28 | UInt32(random.next(below: 64)))
                : IPAddress(
                    v6High: random.next(below: 4) << 62 | random.next(below: 4), low: random.next(below: 4) << 62 | random.next(below: 8))
        }
        for step in 0..<4000 {
            let address = someAddress()
            guard let prefix = IPPrefix(address, length: Int(random.next(below: UInt64(address.bitWidth) + 1))) else { continue }
            let peer = Int(random.next(below: 5))
            if random.next(below: 3) == 0 {
                table.remove(prefix, peer: peer)
                if oracle[prefix] == peer { oracle[prefix] = nil }
            } else {
                #expect(table.insert(prefix, peer: peer) == oracle[prefix], "seed \(seed), step \(step)")
                oracle[prefix] = peer
            }
            if step % 8 == 0 {
                let probe = someAddress()
                let expected = oracle.filter { $0.key.contains(probe) }.max { $0.key.length < $1.key.length }?.value
                #expect(table.lookup(probe) == expected, "seed \(seed), step \(step), \(probe)")
            }
        }
        for (prefix, peer) in oracle { table.remove(prefix, peer: peer) }
        #expect(table.count == 0, "seed \(seed)")
    }
}
