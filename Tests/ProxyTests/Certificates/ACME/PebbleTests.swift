import Crypto
import FoundationEssentials
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Proxy
import SwiftASN1
import Testing
import X509

private let environment = ProcessInfo.processInfo.environment

/// Against the test CA of Let's Encrypt, which `Tests/Interop/pebble` starts and describes in the environment.
@Suite(.enabled(if: environment["PEBBLE_DIRECTORY"] != nil, "Tests/Interop/pebble runs them"), .serialized)
struct PebbleTests {
    /// Answers HTTP-01 at the address that all names have, and DNS-01 through challtestsrv.
    private struct Presenter: ACMEPresenter {
        let http: HTTPStub
        let client: ACMEClient
        /// Stands there with a wrong content.
        var spoiled: Set<ACMEChallengeType> = []
        let seen = NIOLockedValueBox<[ACMEChallengeType]>([])

        func present(_ challenge: ACMEChallenge) async throws {
            seen.withLockedValue { $0.append(challenge.type) }
            let isSpoiled = spoiled.contains(challenge.type)
            switch challenge.type {
            case .http01:
                http.answers.withLockedValue { $0[challenge.httpPath] = .init(body: isSpoiled ? "x" : challenge.keyAuthorization) }
            case .dns01:
                try await tell("set-txt", #"{"host":"\#(challenge.dnsName).","value":"\#(challenge.dnsValue)"}"#)
            case .tlsALPN01, .dnsPersist01: throw FixtureError(text: "not here")
            }
        }

        func withdraw(_ challenge: ACMEChallenge) async {
            switch challenge.type {
            case .http01: http.answers.withLockedValue { $0[challenge.httpPath] = nil }
            case .dns01: try? await tell("clear-txt", #"{"host":"\#(challenge.dnsName)."}"#)
            case .tlsALPN01, .dnsPersist01: break
            }
        }

        private func tell(_ verb: String, _ text: String) async throws {
            let url = try ACMEURL("http://127.0.0.1:\(environment["PEBBLE_DNS_PORT"] ?? "")/\(verb)")
            #expect(try await client.send(ACMERequest(method: .post, url: url, body: Array(text.utf8))).status == 200)
        }
    }

    private var external: ExternalAccount? {
        environment["PEBBLE_EAB_KEY"].flatMap { ExternalAccount(keyID: environment["PEBBLE_EAB_KID"] ?? "", hmacKey: $0) }
    }

    private func with(_ body: (ACMEClient, HTTPStub, ACMESession) async throws -> Void) async throws {
        let client = try ACMEClient(
            trustFile: environment["PEBBLE_CA_FILE"], userAgent: "kakuremichi-test", group: MultiThreadedEventLoopGroup.singleton)
        let http = try await HTTPStub(host: "127.0.0.1", port: try #require(environment["PEBBLE_HTTP_PORT"].flatMap { Int($0) }))
        let session = ACMESession(
            directory: try ACMEURL(environment["PEBBLE_DIRECTORY"] ?? ""), key: ACMEKey(), contacts: ["mailto:admin@example.com"],
            externalAccount: external)
        do { try await body(client, http, session) } catch { Issue.record(error) }
        try await http.close()
        await client.shutdown()
    }

    private func plan(_ names: String..., challenges: [ACMEChallengeType] = [.http01]) throws -> ACMEPlan {
        ACMEPlan(names: try names.map { try #require(DomainPattern($0)) }, key: .init(P256.Signing.PrivateKey()), challenges: challenges)
    }

    @Test("HTTP-01 for two names, then again with the same account", .timeLimit(.minutes(2)))
    func http() async throws {
        try await with { client, http, session in
            var order = ACMEOrder(try plan("a.test", "b.test"), session: session)
            let presenter = Presenter(http: http, client: client)
            let first = try await client.issue(&order, presenter: presenter).get()
            #expect(first.chain.count >= 2 && http.answers.withLockedValue { $0.isEmpty })
            #expect(CertificateID.text(first.leaf) != nil)
            let account = try #require(order.session.account)
            order = ACMEOrder(try plan("a.test"), session: order.session)
            let second = try await client.issue(&order, presenter: presenter).get()
            #expect(order.session.account == account && second.leaf.serialNumber != first.leaf.serialNumber)
        }
    }

    @Test("wildcard and apex by DNS-01, two values at one name", .timeLimit(.minutes(2)))
    func wildcard() async throws {
        try await with { client, http, session in
            var order = ACMEOrder(try plan("*.wild.test", "wild.test", challenges: [.http01, .dns01]), session: session)
            let presenter = Presenter(http: http, client: client)
            _ = try await client.issue(&order, presenter: presenter).get()
            #expect(Set(presenter.seen.withLockedValue { $0 }) == [.http01, .dns01])
            order = ACMEOrder(try plan("*.wild.test", "wild.test", challenges: [.dns01]), session: order.session)
            _ = try await client.issue(&order, presenter: presenter).get()
        }
    }

    @Test("an account that the CA does not know is registered again", .timeLimit(.minutes(2)))
    func lostAccount() async throws {
        try await with { client, http, session in
            var session = session
            _ = try await client.perform(.account(), stage: .account, session: &session).get()
            let account = try #require(session.account)
            let lost = ACMESession(
                directory: session.directoryURL, key: ACMEKey(), account: try ACMEURL(account.text + "0"), externalAccount: external)
            var order = ACMEOrder(try plan("g.test"), session: lost)
            _ = try await client.issue(&order, presenter: Presenter(http: http, client: client)).get()
            #expect(order.session.account != account && order.session.account != lost.account)
        }
    }

    @Test("a challenge that is invalid, then the next type in a new order", .timeLimit(.minutes(2)))
    func fallBack() async throws {
        try await with { client, http, session in
            var order = ACMEOrder(try plan("c.test", challenges: [.http01, .tlsALPN01, .dns01]), session: session)
            let presenter = Presenter(http: http, client: client, spoiled: [.http01])
            _ = try await client.issue(&order, presenter: presenter).get()
            #expect(presenter.seen.withLockedValue { $0 } == [.http01, .tlsALPN01, .dns01])
            #expect(order.failedValidations.map(\.type) == [.http01])
            order = ACMEOrder(try plan("d.test"), session: order.session)
            guard case .failure(let failure) = await client.issue(&order, presenter: presenter) else { throw FixtureError(text: "done?") }
            #expect(failure.kind == .validation && failure.problem?.type == "unauthorized")
        }
    }

    @Test("an alternate chain by the name of its root; key change; revocation by account and by key", .timeLimit(.minutes(2)))
    func chainsAndKeys() async throws {
        try await with { client, http, session in
            let root = try await client.send(ACMERequest(method: .get, url: ACMEURL((environment["PEBBLE_MANAGEMENT"] ?? "") + "/roots/1")))
            let certificate = try Certificate(pemEncoded: String(decoding: root.body, as: UTF8.self))
            let name = try #require(certificate.subject.flatMap { $0 }.last { $0.type == .RDNAttributeType.commonName }?.value.description)
            var wanted = try plan("e.test")
            wanted.preferredIssuer = name
            var order = ACMEOrder(wanted, session: session)
            let presenter = Presenter(http: http, client: client)
            let issued = try await client.issue(&order, presenter: presenter).get()
            #expect(issued.chain.last?.issuer == certificate.subject)

            var session = order.session
            let new = ACMEKey()
            _ = try await client.perform(.keyChange(new), stage: .keyChange, session: &session).get()
            #expect(session.key.thumbprint == new.thumbprint)
            _ = try await client.perform(.account(), stage: .account, session: &session).get()
            func der(_ certificate: Certificate) throws -> [UInt8] {
                var serializer = DER.Serializer()
                try serializer.serialize(certificate)
                return serializer.serializedBytes
            }
            _ = try await client.perform(.revoke(certificate: der(issued.leaf), reason: 4, key: nil), stage: .revocation, session: &session)
                .get()
            let key = P256.Signing.PrivateKey()
            var plan = try plan("f.test")
            plan.key = .init(key)
            order = ACMEOrder(plan, session: session)
            let second = try await client.issue(&order, presenter: presenter).get()
            _ = try await client.perform(
                .revoke(certificate: der(second.leaf), reason: nil, key: ACMEKey(key)), stage: .revocation, session: &session
            ).get()
            guard
                case .failure(let failure) = try await client.perform(
                    .revoke(certificate: der(second.leaf), reason: nil, key: nil), stage: .revocation, session: &session)
            else { throw FixtureError(text: "revoked twice") }
            #expect(failure.problem?.type == "alreadyRevoked")
        }
    }
}
