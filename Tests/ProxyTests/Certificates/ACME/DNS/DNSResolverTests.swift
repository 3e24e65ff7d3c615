import Inet
import NIOConcurrencyHelpers
import NIOPosix
import Proxy
import Testing

@Suite struct DNSResolverTests {
    private static let group = MultiThreadedEventLoopGroup.singleton
    private static let name = DNSName("a.example.com") ?? .root

    private func with(_ answer: @escaping DNSStub.Answer, _ body: (DNSResolver, DNSStub) async throws -> Void) async throws {
        let stub = try await DNSStub(answer)
        do { try await body(DNSResolver(servers: [stub.endpoint], group: Self.group), stub) } catch { Issue.record(error) }
        try await stub.close()
    }

    private func with(_ zone: StubZone, _ body: (DNSResolver, DNSStub) async throws -> Void) async throws {
        try await with({ query, _, _ in [zone.answer(query).encode()] }, body)
    }

    @Test("what is no answer to the question is passed over: another number, another question, garbage, a query")
    func matching() async throws {
        let zone = StubZone.example([StubZone.text("a.example.com", "true")])
        let answer: DNSStub.Answer = { query, bytes, _ in
            var forged = StubZone.example([StubZone.text("a.example.com", "forged")]).answer(query)
            forged.id &+= 1
            var other = zone.answer(query)
            other.questions = [.init(DNSName("b.example.com") ?? .root, DNSType.txt)]
            return [forged.encode(), other.encode(), [0xFF], bytes, zone.answer(query).encode()]
        }
        try await with(answer) { resolver, _ in
            let resolverTexts = try await texts(resolver)
            #expect(resolverTexts == ["true"])
        }
    }

    @Test("numbers differ from question to question")
    func numbers() async throws {
        let seen = NIOLockedValueBox<Set<UInt16>>([])
        let answer: DNSStub.Answer = { query, _, _ in
            seen.withLockedValue { _ = $0.insert(query.id) }
            return [StubZone.example().answer(query).encode()]
        }
        try await with(answer) { resolver, _ in
            for _ in 0..<20 { _ = try await resolver.resolve(Self.name, DNSType.txt) }
            #expect(seen.withLockedValue { $0.count } > 15)
        }
    }

    @Test("an answer that is cut off is asked for again by TCP")
    func truncated() async throws {
        let long = String(repeating: "x", count: 255)
        let zone = StubZone.example((0..<10).map { StubZone.text("a.example.com", "\($0)" + long.dropFirst()) })
        let answer: DNSStub.Answer = { query, _, isTCP in
            var answer = zone.answer(query)
            if !isTCP {
                answer.flags |= DNSFlags.truncated
                answer.answers = []
            }
            return [answer.encode()]
        }
        try await with(answer) { resolver, _ in
            let resolverTexts = try await texts(resolver)
            #expect(resolverTexts.count == 10)
        }
    }

    @Test("an answer that is cut off within a record is asked for again, too")
    func cutWithinRecord() async throws {
        let zone = StubZone.example([StubZone.text("a.example.com", "true")])
        let answer: DNSStub.Answer = { query, _, isTCP in
            var answer = zone.answer(query)
            if isTCP { return [answer.encode()] }
            answer.flags |= DNSFlags.truncated
            return [Array(answer.encode().dropLast(3))]
        }
        try await with(answer) { resolver, _ in
            let values = try await texts(resolver)
            #expect(values == ["true"])
        }
    }

    @Test("a server that refuses or is not there is followed by the next; if none answers each is named")
    func servers() async throws {
        let refusing = try await DNSStub { query, _, _ in
            [DNSMessage(id: query.id, flags: 0x8005, questions: query.questions).encode()]
        }
        try await with(StubZone.example([StubZone.text("a.example.com", "true")])) { resolver, stub in
            let both = DNSResolver(servers: [refusing.endpoint, stub.endpoint], group: Self.group)
            let bothTexts = try await texts(both)
            #expect(bothTexts == ["true"])
            let one = DNSResolver(servers: [refusing.endpoint], group: Self.group)
            #expect(
                await failureText { _ = try await one.resolve(Self.name, DNSType.txt) }
                    == "a.example.com was not resolved: \(refusing.endpoint): REFUSED")
        }
        try await refusing.close()
    }

    @Test("zone and servers by SOA and NS, for names that are there and names that are not")
    func zones() async throws {
        let zone = StubZone.example()
        try await with(zone) { resolver, _ in
            #expect(try await self.zone("_acme-challenge.x.y.example.com", resolver) == "example.com")
            #expect(try await self.zone("example.com", resolver) == "example.com")
            let servers = try await resolver.nameservers(of: zone.name)
            #expect(servers.map(\.description) == ["ns.example.com"])
            let addresses = await resolver.addresses(of: try #require(DNSName("ns.example.com")))
            #expect(addresses == [IPAddress(v4: 127, 0, 0, 1)])
            let none = await resolver.addresses(of: try #require(DNSName("nobody.example.com")))
            #expect(none == [])
            let text = await failureText { _ = try await self.zone("a.example.org", resolver) }
            #expect(text == "no zone was found for a.example.org")
        }
    }

    @Test("a chain of eight CNAMEs is followed, one of nine and one that leads back are not")
    func aliases() async throws {
        let chain = (1...9).map { StubZone.name("c\($0).example.com", DNSType.cname, "c\($0 - 1).example.com") }
        let circle = [
            StubZone.name("x.example.com", DNSType.cname, "y.example.com"), StubZone.name("y.example.com", DNSType.cname, "x.example.com"),
        ]
        try await with(StubZone.example(chain + circle)) { resolver, _ in
            func target(_ name: String) async throws -> String { try await resolver.target(of: try #require(DNSName(name))).description }
            let found = [try await target("c8.example.com"), try await target("none.example.com")]
            #expect(found == ["c0.example.com", "none.example.com"])
            let long = await failureText { _ = try await target("c9.example.com") }
            #expect(long?.contains("more than 8 CNAME") == true)
            let round = await failureText { _ = try await target("x.example.com") }
            #expect(round?.contains("leads back") == true)
        }
    }

    @Test("resolv.conf: addresses of nameserver lines, three at most, this machine if there are none")
    func resolvConf() {
        let text =
            "# nameserver 9.9.9.9\nsearch example.com\nnameserver 192.0.2.1\nnameserver\tfd00::1 \noptions edns0\nnameserver fe80::1%eth0\n"
        #expect(
            DNSResolver.nameservers(Array(text.utf8)) == [
                SocketEndpoint(IPAddress(v4: 192, 0, 2, 1), port: 53), SocketEndpoint(IPAddress(v6High: 0xFD00 << 48, low: 1), port: 53),
            ])
        #expect(DNSResolver.nameservers([]).map(\.description) == ["127.0.0.1:53"])
        #expect(DNSResolver.nameservers(Array(String(repeating: "nameserver 192.0.2.1\n", count: 9).utf8)).count == 3)
    }

    private func texts(_ resolver: DNSResolver) async throws -> [String] {
        DNSResolver.texts(try await resolver.resolve(Self.name, DNSType.txt), at: Self.name)
    }

    private func zone(_ name: String, _ resolver: DNSResolver) async throws -> String {
        try await resolver.zone(of: try #require(DNSName(name))).description
    }

    @Test("by TCP a message that is no answer ends the connection")
    func strangeStream() async throws {
        let answer: DNSStub.Answer = { query, _, isTCP in
            let flags = DNSFlags.response | (isTCP ? 0 : DNSFlags.truncated)
            return [DNSMessage(id: isTCP ? query.id &+ 1 : query.id, flags: flags, questions: query.questions).encode()]
        }
        try await with(answer) { resolver, stub in
            let text = await failureText {
                _ = try await resolver.ask(stub.endpoint, Self.name, DNSType.txt, recursive: true, limit: .seconds(30))
            }
            #expect(text?.hasSuffix("it sent something that is no answer") == true)
        }
    }

    @Test("the servers of the machine are those that the file names now; an override stays")
    func systemServers() throws {
        let directory = try ScratchDirectory()
        let resolver = DNSResolver.system(override: nil, file: directory.file("resolv.conf"), group: Self.group)
        #expect(resolver.servers.map(\.description) == ["127.0.0.1:53"])
        try directory.write("nameserver 192.0.2.1\n", to: "resolv.conf")
        #expect(resolver.servers.map(\.description) == ["192.0.2.1:53"])
        try directory.write("nameserver 192.0.2.2\n", to: "resolv.conf")
        #expect(resolver.servers.map(\.description) == ["192.0.2.2:53"])
        let fixed = DNSResolver.system(override: resolver.servers[0], file: directory.file("gone"), group: Self.group)
        #expect(fixed.servers.map(\.description) == ["192.0.2.2:53"])
    }
}
