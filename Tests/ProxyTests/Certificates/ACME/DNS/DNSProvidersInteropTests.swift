import Crypto
import FoundationEssentials
import Inet
import Logging
import NIOPosix
import Proxy
import Testing

private let environment = ProcessInfo.processInfo.environment

/// Against servers that `Tests/Interop/dns-providers` starts and describes in the environment.
@Suite(.serialized) struct DNSProvidersInteropTests {
    private static let group = MultiThreadedEventLoopGroup.singleton
    private static let records = ["one", "two"].map { TXTRecord(name: "_acme-challenge.app.example.com", value: "value-\($0)") }

    /// Two values come and go at one name; `values` says what is there.
    private func exercise(_ provider: any DNSProvider, _ values: () async throws -> [String]) async throws {
        let (one, two) = (Self.records[0], Self.records[1])
        try await provider.add(one)
        try await provider.add(one)
        try await provider.add(two)
        #expect(try await values().sorted() == ["value-one", "value-two"])
        try await provider.remove(one)
        try await provider.remove(one)
        #expect(try await values() == ["value-two"])
        try await provider.remove(two)
        #expect(try await values() == [])
    }

    private static func knot() throws -> SocketEndpoint { try #require(SocketEndpoint(environment["DNS_KNOT"] ?? "")) }

    private func knotProvider(
        _ key: String = "acme", algorithm: TSIGKey.Algorithm = .sha256, secret: String? = nil, zone: String? = nil
    ) throws -> RFC2136Provider {
        let secret = Secret(secret ?? environment["DNS_KNOT_SECRET"] ?? "")
        return RFC2136Provider(
            server: try Self.knot(), zone: zone.flatMap { DNSName($0) },
            key: try #require(TSIGKey(name: key, algorithm: algorithm, secret: secret)), group: Self.group)
    }

    @Test(
        "knot takes updates signed by three algorithms, with and without the zone's name", .enabled(if: environment["DNS_KNOT"] != nil),
        arguments: TSIGKey.Algorithm.allCases)
    func updates(algorithm: TSIGKey.Algorithm) async throws {
        let server = try Self.knot()
        let resolver = DNSResolver(servers: [server], group: Self.group)
        let name = try #require(DNSName(Self.records[0].name))
        for zone in [nil, "example.com"] {
            let provider = try knotProvider("acme-" + algorithm.rawValue.suffix(3), algorithm: algorithm, zone: zone)
            try await exercise(provider) { DNSResolver.texts(try await resolver.resolve(name, DNSType.txt), at: name) }
        }
    }

    @Test(
        "knot does not know the key, has another secret, or allows it nothing: each is told apart",
        .enabled(if: environment["DNS_KNOT"] != nil))
    func keys() async throws {
        let record = Self.records[0]
        func text(_ provider: RFC2136Provider) async -> String { await failureText { try await provider.add(record) } ?? "" }
        #expect(try await text(knotProvider("nobody")).contains("(BADKEY): the server does not know the key nobody with hmac-sha256"))
        #expect(
            try await text(knotProvider("acme-256", secret: "AAAA")).contains(
                "(BADSIG): the server has another secret for the key acme-256"))
        #expect(try await text(knotProvider("acme-256", algorithm: .sha512)).contains("BADKEY"))
        let reader = try await text(knotProvider("reader", zone: "example.com"))
        #expect(reader.contains("or allows it nothing here"), "\(reader)")
        let elsewhere = await failureText {
            try await knotProvider("acme-256").add(TXTRecord(name: "_acme-challenge.example.org", value: "v"))
        }
        #expect(
            elsewhere?.contains("has no zone for _acme-challenge.example.org") == true || elsewhere?.contains("REFUSED") == true,
            "\(elsewhere ?? "")")
    }

    @Test(
        "the whole of DNS-01 at knot: a CNAME into another zone, propagation, two values, removal",
        .enabled(if: environment["DNS_KNOT"] != nil))
    func challenge() async throws {
        let server = try Self.knot()
        let resolver = DNSResolver(servers: [server], group: Self.group)
        let presenter = DNSChallenge(
            provider: try knotProvider("acme-256"), resolver: resolver,
            propagation: DNSPropagation(resolver: resolver, limit: .seconds(20), port: server.port), logger: Logger(label: "interop"))
        for name in ["example.com", "alias.example.com"] {
            let challenges = try ["", "*."].map { prefix in
                ACMEChallenge(type: .dns01, name: try #require(DomainPattern(prefix + name)), token: "t", keyAuthorization: "t\(prefix).x")
            }
            let place = try await resolver.target(of: try #require(DNSName(challenges[0].dnsName)))
            #expect(place.description == (name == "alias.example.com" ? "alias.acme.example.net" : "_acme-challenge.example.com"))
            func values() async throws -> [String] { DNSResolver.texts(try await resolver.resolve(place, DNSType.txt), at: place) }
            for challenge in challenges { try await presenter.present(challenge) }
            #expect(try await values().sorted() == challenges.map(\.dnsValue).sorted())
            await presenter.withdraw(challenges[0])
            #expect(try await values() == [challenges[1].dnsValue])
            await presenter.withdraw(challenges[1])
            #expect(try await values() == [])
        }
    }

    @Test(
        "pebble issues for a name and its wildcard by records at knot", .enabled(if: environment["DNS_PEBBLE"] != nil),
        .timeLimit(.minutes(2)))
    func issuance() async throws {
        let server = try Self.knot()
        let resolver = DNSResolver(servers: [server], group: Self.group)
        let presenter = DNSChallenge(
            provider: try knotProvider("acme-256"), resolver: resolver,
            propagation: DNSPropagation(resolver: resolver, limit: .seconds(20), port: server.port), logger: Logger(label: "interop"))
        let client = try ACMEClient(trustFile: environment["DNS_PEBBLE_CA"], userAgent: "kakuremichi-test", group: Self.group)
        let names = try ["example.com", "*.example.com"].map { try #require(DomainPattern($0)) }
        let plan = ACMEPlan(names: names, key: .init(P256.Signing.PrivateKey()), challenges: [.dns01])
        let session = ACMESession(directory: try ACMEURL(environment["DNS_PEBBLE"] ?? ""), key: ACMEKey())
        var order = ACMEOrder(plan, session: session)
        let result = await client.issue(&order, presenter: presenter)
        await client.shutdown()
        #expect(try result.get().chain.count >= 2)
        let name = try #require(DNSName("_acme-challenge.example.com"))
        let left = DNSResolver.texts(try await resolver.resolve(name, DNSType.txt), at: name)
        #expect(left == [])
    }

    private func route53Provider(_ secret: String = "testing", zone: String? = nil) throws -> Route53Provider {
        Route53Provider(
            signer: SigV4(
                accessKeyID: "testing", secretAccessKey: Secret(secret), sessionToken: nil, region: "us-east-1", service: "route53"),
            hostedZone: zone, endpoint: try ACMEURL(environment["DNS_ROUTE53"] ?? ""), group: Self.group)
    }

    @Test("moto's Route 53: two values at one name, the zone by name and by identifier", .enabled(if: environment["DNS_ROUTE53"] != nil))
    func route53() async throws {
        let zone = try #require(environment["DNS_ROUTE53_ZONE"])
        let client = APIClient(group: Self.group, secrets: [])
        let url = try ACMEURL("\(environment["DNS_ROUTE53"] ?? "")/2013-04-01/hostedzone/\(zone)/rrset")
        // moto takes any signature, and needs one to know which service is meant.
        let authorization = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/route53/aws4_request, SignedHeaders=host, Signature=0"
        for given in [nil, zone] {
            try await exercise(try route53Provider(zone: given)) {
                let body = try await client.send(APIClient.Request(.GET, url, fields: [(name: "Authorization", value: authorization)])).body
                let sets = XMLElement.read(body)?.first("ResourceRecordSets")?.all("ResourceRecordSet") ?? []
                let values = sets.filter { $0.first("Type")?.text == "TXT" }.flatMap { $0.first("ResourceRecords")?.children ?? [] }
                return values.compactMap { $0.first("Value")?.text.filter { $0 != "\"" } }
            }
        }
    }

    @Test("moto's Route 53: a zone that is not there", .enabled(if: environment["DNS_ROUTE53"] != nil))
    func route53Zones() async throws {
        let provider = try route53Provider()
        let missing = await failureText { try await provider.add(TXTRecord(name: "a.example.org", value: "v")) }
        #expect(missing?.contains("no public hosted zone for a.example.org") == true)
        let wrong = try route53Provider(zone: "ZNOTTHERE")
        let refused = await failureText { try await wrong.add(Self.records[0]) }
        #expect(refused?.contains("NoSuchHostedZone") == true, "\(refused ?? "")")
    }

    private func cloudflareProvider(_ token: String = "good-token") throws -> CloudflareProvider {
        CloudflareProvider(token: Secret(token), endpoint: try ACMEURL(environment["DNS_CLOUDFLARE"] ?? ""), group: Self.group)
    }

    @Test("the stub of Cloudflare: two values at one name", .enabled(if: environment["DNS_CLOUDFLARE"] != nil))
    func cloudflare() async throws {
        let client = APIClient(group: Self.group, secrets: [])
        let url = try ACMEURL("\(environment["DNS_CLOUDFLARE"] ?? "")/dump")
        try await exercise(try cloudflareProvider()) {
            let body = String(decoding: try await client.send(APIClient.Request(.GET, url)).body, as: UTF8.self)
            return body.split(separator: "\n").map { $0.filter { $0 != "\"" } }
        }
    }

    @Test("the stub of Cloudflare: wrong tokens, no zone, rate limits", .enabled(if: environment["DNS_CLOUDFLARE"] != nil))
    func cloudflareErrors() async throws {
        for (token, expected) in [
            ("bad-token", "403: 9109 Invalid access token; check the token"),
            ("no-permission", "403: 10000 Authentication error; check the token"),
            ("malformed", "400: 6003 Invalid request headers (6111 Invalid format for Authorization header); check the token"),
            ("no-zones", "the token sees no zone for _acme-challenge.app.example.com"),
            ("limited", "the rate limit is used up, again in 120 s"),
        ] {
            let provider = try cloudflareProvider(token)
            let text = await failureText { try await provider.add(Self.records[0]) }
            #expect(text?.contains(expected) == true, "\(token): \(text ?? "")")
        }
        // Refused twice, with a second to wait.
        try await cloudflareProvider("busy").add(Self.records[0])
        try await cloudflareProvider().remove(Self.records[0])
    }
}
