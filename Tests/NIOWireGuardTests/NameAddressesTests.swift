import Inet
import NIOWireGuard
import Testing

@Suite struct NameAddressesTests {
    private let found: [SocketEndpoint]
    private let roamed: SocketEndpoint

    init() throws {
        found = try ["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1"].map { try #require(SocketEndpoint($0)) }
        roamed = try #require(SocketEndpoint("198.51.100.1:9"))
    }

    @Test("the first answer is where a peer is tried that is nowhere yet")
    func first() {
        var addresses = NameAddresses()
        #expect(addresses.next(after: nil) == nil)
        #expect(addresses.update(found, current: nil, isSilent: false) == found[0])
    }

    @Test("retries go round the name's addresses, and from elsewhere to the first")
    func retries() {
        var addresses = NameAddresses()
        _ = addresses.update(found, current: nil, isSilent: false)
        #expect(addresses.next(after: found[0]) == found[1])
        #expect(addresses.next(after: found[2]) == found[0])
        #expect(addresses.next(after: roamed) == found[0])
        _ = addresses.update([found[0]], current: found[0], isSilent: true)
        #expect(addresses.next(after: found[0]) == nil)
    }

    @Test("an answer that comes when the peer has answered moves nothing")
    func answered() {
        var addresses = NameAddresses()
        _ = addresses.update([found[0]], current: nil, isSilent: false)
        #expect(addresses.update([found[1]], current: found[0], isSilent: false) == nil)
        // What it said counts for the next retry nevertheless.
        #expect(addresses.next(after: found[0]) == found[1])
    }

    @Test("a peer that has roamed stays where it was heard from while its name says nothing new")
    func roaming() {
        var addresses = NameAddresses()
        _ = addresses.update(found, current: nil, isSilent: false)
        #expect(addresses.update(found.reversed(), current: roamed, isSilent: true) == nil)
        #expect(addresses.update([found[1]], current: roamed, isSilent: true) == found[1])
    }

    @Test("an address that the name has no more is left at once; one that it still has is not")
    func changed() {
        var addresses = NameAddresses()
        _ = addresses.update([found[0], found[1]], current: nil, isSilent: false)
        #expect(addresses.update([found[1], found[2]], current: found[1], isSilent: true) == nil)
        #expect(addresses.update([found[2]], current: found[1], isSilent: true) == found[2])
    }
}
