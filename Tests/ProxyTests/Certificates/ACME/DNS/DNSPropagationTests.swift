import Inet
import NIOConcurrencyHelpers
import NIOPosix
import Proxy
import Testing

@Suite struct DNSPropagationTests {
    private static let group = MultiThreadedEventLoopGroup.singleton
    private static let record = TXTRecord(name: "_acme-challenge.example.com", value: "new")
    private static let there = StubZone.text("_acme-challenge.example.com", "new")
    /// Where the limit is not what is tested.
    private static let ample = Duration.seconds(600)

    @Test("it waits until the zone's server has the value, whatever else stands there")
    func appears() async throws {
        let zone = NIOLockedValueBox(StubZone.example([StubZone.text("_acme-challenge.example.com", "old")]))
        let questions = NIOLockedValueBox(0)
        let stub = try await DNSStub { query, _, _ in
            if query.questions.first?.type == DNSType.txt {
                let count = questions.withLockedValue { count in
                    count += 1
                    return count
                }
                if count == 2 { zone.withLockedValue { $0.records.append(Self.there) } }
            }
            return [zone.withLockedValue { $0.answer(query) }.encode()]
        }
        let resolver = DNSResolver(servers: [stub.endpoint], group: Self.group)
        try await DNSPropagation(resolver: resolver, limit: Self.ample, port: stub.port).wait(for: Self.record)
        #expect(questions.withLockedValue { $0 } == 2)
        try await stub.close()
    }

    @Test("the server that lacks the value is named; the resolver, which has it, does not count while one can be asked")
    func lacking() async throws {
        let server = try await DNSStub(NIOLockedValueBox(StubZone.example()))
        let recursive = try await DNSStub(NIOLockedValueBox(StubZone.example([Self.there])))
        let resolver = DNSResolver(servers: [recursive.endpoint], group: Self.group)
        let propagation = DNSPropagation(resolver: resolver, limit: .seconds(1), patience: .zero, port: server.port)
        let text = await failureText { try await propagation.wait(for: Self.record) }
        #expect(text == "_acme-challenge.example.com is not everywhere after 1.0 seconds: ns.example.com has no value there")
        let values = try await propagation.values(at: try #require(DNSName(Self.record.name)))
        #expect(values == [])
        try await server.close()
        try await recursive.close()
    }

    @Test("when no server can be asked the resolver's word counts, after the time that is given to the servers")
    func unreachable() async throws {
        let recursive = try await DNSStub(NIOLockedValueBox(StubZone.example([Self.there])))
        let gone = try await DNSStub { _, _, _ in [] }
        let port = gone.port
        try await gone.close()
        let resolver = DNSResolver(servers: [recursive.endpoint], group: Self.group)
        try await DNSPropagation(resolver: resolver, limit: Self.ample, patience: .seconds(1), port: port).wait(for: Self.record)
        let strict = DNSPropagation(resolver: resolver, limit: .seconds(1), patience: .seconds(60), port: port)
        #expect(
            await failureText { try await strict.wait(for: Self.record) }?.contains("ns.example.com cannot be asked (127.0.0.1:\(port): ")
                == true)
        let absent = DNSPropagation(resolver: resolver, limit: .seconds(1), patience: .zero, port: port)
        #expect(
            await failureText { try await absent.wait(for: TXTRecord(name: "x.example.com", value: "v")) }?
                .hasSuffix("the resolver does not show it") == true)
        try await recursive.close()
    }

    @Test("a server that does not answer delays, and those that do decide after that")
    func oneSilent() async throws {
        let server = try await DNSStub(
            NIOLockedValueBox(StubZone.example([StubZone.name("example.com", DNSType.ns, "gone.example.com"), Self.there])))
        let resolver = DNSResolver(servers: [server.endpoint], group: Self.group)
        let hasty = DNSPropagation(resolver: resolver, limit: Self.ample, patience: .zero, port: server.port)
        try await hasty.wait(for: Self.record)
        let patient = DNSPropagation(resolver: resolver, limit: .seconds(1), patience: .seconds(60), port: server.port)
        #expect(
            await failureText { try await patient.wait(for: Self.record) }?.contains("gone.example.com cannot be asked (it has no address)")
                == true)
        try await server.close()
    }

    @Test("a server that does not serve the zone is one that cannot be asked, whatever it says")
    func lame() async throws {
        let zone = StubZone.example()
        let server = try await DNSStub { query, _, _ in
            var answer = zone.answer(query)
            answer.flags &= ~DNSFlags.authoritative
            return [answer.encode()]
        }
        let resolver = DNSResolver(servers: [server.endpoint], group: Self.group)
        let propagation = DNSPropagation(resolver: resolver, limit: .seconds(1), patience: .zero, port: server.port)
        #expect(
            await failureText { try await propagation.wait(for: Self.record) }?.contains(
                "ns.example.com cannot be asked (\(server.endpoint): it does not serve the zone)") == true)
        try await server.close()
    }
}
