import FoundationEssentials
import NIOConcurrencyHelpers
import NIOPosix
import Proxy
import Testing

/// What a server that has no key of ours says; with a key it is `Tests/Interop/dns-providers` that looks.
@Suite struct RFC2136ProviderTests {
    private static let record = TXTRecord(name: "_acme-challenge.example.com", value: "value-1")

    private func provider(_ stub: DNSStub, zone: String? = "example.com") throws -> RFC2136Provider {
        RFC2136Provider(
            server: stub.endpoint, zone: zone.flatMap { DNSName($0) },
            key: try #require(TSIGKey(name: "k", algorithm: .sha256, secret: Secret("AAECAwQFBgcICQoLDA0ODw=="))),
            group: MultiThreadedEventLoopGroup.singleton)
    }

    @Test("an update names the zone, adds one value of class IN, removes one value of class NONE, and is signed")
    func messages() async throws {
        let seen = NIOLockedValueBox<[DNSMessage]>([])
        let stub = try await DNSStub { query, _, isTCP in
            seen.withLockedValue { $0.append(query) }
            return isTCP ? [DNSMessage(id: query.id, flags: query.flags | DNSFlags.response, questions: query.questions).encode()] : []
        }
        let provider = try provider(stub)
        for action in [provider.add, provider.remove] {
            let text = await failureText { try await action(Self.record) }
            // It says NOERROR, but whoever is in the way can say so.
            #expect(text?.contains("the answer is not signed: NOERROR") == true)
        }
        let zone = try #require(DNSName("example.com"))
        let messages = seen.withLockedValue { $0 }
        #expect(messages.count == 2)
        for (message, expected) in zip(messages, [(DNSClass.internet, TXTRecord.timeToLive), (DNSClass.none, UInt32(0))]) {
            #expect(message.flags == DNSFlags.update && message.questions == [.init(zone, DNSType.soa)] && message.answers.isEmpty)
            let update = try #require(message.authorities.first)
            #expect(message.authorities.count == 1 && update.class == expected.0 && update.timeToLive == expected.1)
            #expect(update.data == .text([Array("value-1".utf8)]))
            #expect(message.additionals.map(\.type) == [DNSType.tsig])
        }
        try await stub.close()
    }

    @Test("a server that hangs up, sends garbage or answers another question; a name outside of the zone")
    func faults() async throws {
        for garbage in [[1, 2, 3], DNSMessage(id: 0, flags: DNSFlags.response).encode()] {
            let stub = try await DNSStub { _, _, _ in [garbage] }
            let provider = try self.provider(stub)
            #expect(
                await failureText { try await provider.add(Self.record) }?.hasSuffix("it sent something that is no answer") == true)
            try await stub.close()
        }
        let stub = try await DNSStub { query, _, _ in [DNSMessage(id: query.id, flags: 0xA805).encode()] }
        let provider = try provider(stub)
        #expect(
            await failureText { try await provider.add(Self.record) }?.contains(
                "the answer is not signed: REFUSED; does the server know the key k?") == true)
        #expect(
            await failureText { try await provider.add(TXTRecord(name: "a.example.org", value: "v")) }
                == "rfc2136: a.example.org does not lie in the zone example.com")
        try await stub.close()
        #expect(await failureText { try await provider.add(Self.record) }?.hasPrefix("rfc2136: 127.0.0.1:") == true)
    }
}
