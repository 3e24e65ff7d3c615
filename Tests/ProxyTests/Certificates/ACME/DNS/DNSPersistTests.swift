import FoundationEssentials
import NIOConcurrencyHelpers
import NIOPosix
import Proxy
import Testing

@Suite struct DNSPersistRecordTests {
    private static let account = "https://ca.example/acct/1"
    private static let now = Date(timeIntervalSince1970: 1_800_000_000)

    private func demand(_ name: String = "example.com") throws -> DNSPersistDemand {
        DNSPersistDemand(domain: try #require(DomainPattern(name)), issuers: ["ca.example", "ca2.example"], accountURI: Self.account)
    }

    private func complaint(_ values: String..., name: String = "example.com") throws -> String {
        let demand = try demand(name)
        do throws(DNSFault) {
            try demand.check(values, now: Self.now)
            return ""
        } catch {
            return error.reason
        }
    }

    @Test("the record's text, and the line of a zone file in strings of 255 bytes")
    func text() throws {
        let demand = try demand("*.example.com")
        #expect(demand.name == "_validation-persist.example.com")
        #expect(
            demand.zoneLine
                == #"_validation-persist.example.com. IN TXT "ca.example; accounturi=https://ca.example/acct/1; policy=wildcard""#)
        #expect(try self.demand().record.description == "ca.example; accounturi=https://ca.example/acct/1")
        let dated = DNSPersistRecord(issuer: "ca.example", accountURI: Self.account, until: Self.now)
        #expect(dated.description.hasSuffix("; persistUntil=1800000000"))
        #expect(try DNSPersistRecord(parsing: dated.description) == dated)
        let long = DNSPersistDemand(
            domain: demand.domain, issuers: ["ca.example"], accountURI: Self.account + String(repeating: "0", count: 300))
        #expect(long.zoneLine.split(separator: "\" \"").count == 2)
    }

    @Test("records are read with any blanks, case and parameters that nobody knows")
    func parse() throws {
        let record = try DNSPersistRecord(
            parsing: " CA.example. ;AccountURI = https://ca.example/acct/1 ; POLICY=Wildcard;x=y;; persistuntil=1 ")
        #expect(
            record
                == DNSPersistRecord(
                    issuer: "ca.example", accountURI: Self.account, isForWildcards: true, until: Date(timeIntervalSince1970: 1)))
        #expect(try DNSPersistRecord(parsing: "ca.example;accounturi=a;policy=other").isForWildcards == false)
    }

    @Test("what does not match says why, each record by itself, and what to add")
    func complaints() throws {
        #expect(try complaint("ca2.example; accounturi=\(Self.account)") == "")
        #expect(try complaint("other", "ca.example;accounturi=\(Self.account)") == "")
        #expect(
            try complaint()
                == #"add _validation-persist.example.com. IN TXT "ca.example; accounturi=https://ca.example/acct/1": there is no TXT record"#
        )
        for (value, reason) in [
            ("other.example; accounturi=\(Self.account)", "it is for other.example, not for ca.example or ca2.example"),
            ("ca.example; accounturi=\(Self.account)0", "it is for the account https://ca.example/acct/10"),
            ("ca.example", "it has no accounturi"), ("", "it does not begin with the domain of a CA"),
            ("ca.example; accounturi", "has not the form NAME=VALUE"),
            ("ca.example; accounturi=a; accounturi=a", "accounturi is there twice"),
            ("ca.example; accounturi=\(Self.account); persistUntil=1799999990", "persistUntil was 10 s ago"),
            ("ca.example; accounturi=\(Self.account); persistUntil=soon", "persistUntil=soon is not a number of seconds"),
        ] {
            #expect(try complaint(value).contains(reason), "\(value)")
        }
        #expect(try complaint("ca.example; accounturi=\(Self.account)", name: "*.example.com").contains("it has no policy=wildcard"))
        #expect(try complaint("ca.example; accounturi=\(Self.account); policy=wildcard", name: "*.example.com") == "")
    }
}

@Suite struct DNSPersistChallengeTests {
    @Test("the record is looked for at the zone's servers; when it is missing the error is what to add")
    func present() async throws {
        let zone = NIOLockedValueBox(StubZone.example())
        let stub = try await DNSStub(zone)
        let resolver = DNSResolver(servers: [stub.endpoint], group: MultiThreadedEventLoopGroup.singleton)
        let presenter = DNSPersistChallenge(propagation: DNSPropagation(resolver: resolver, port: stub.port))
        let name = try #require(DomainPattern("example.com"))
        let demand = DNSPersistDemand(domain: name, issuers: ["ca.example"], accountURI: "https://ca.example/1")
        let challenge = ACMEChallenge(type: .dnsPersist01, name: name, token: "", keyAuthorization: "", persistDemand: demand)
        let text = await failureText { try await presenter.present(challenge) }
        #expect(text == "add \(demand.zoneLine): there is no TXT record")
        zone.withLockedValue { $0.records.append(StubZone.text(demand.name, "\(demand.record)")) }
        try await presenter.present(challenge)
        await presenter.withdraw(challenge)
        let other = ACMEChallenge(type: .dns01, name: name, token: "t", keyAuthorization: "t")
        #expect(await failureText { try await presenter.present(other) } == "dns-01 has no lasting record")
        try await stub.close()
    }
}
