import Crypto
import FoundationEssentials
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Proxy
import Testing

/// Changes a zone that `DNSStub` shows.
private struct ZoneProvider: DNSProvider {
    let label = "zone"
    let zone: NIOLockedValueBox<StubZone>
    let log = NIOLockedValueBox<[String]>([])
    var failsToRemove = false
    var busy = NIOLockedValueBox<Set<String>>([])

    func add(_ record: TXTRecord) async throws {
        if record.name.hasSuffix(".elsewhere.example.com") { throw DNSFault("no zone for \(record.name)", isZoneMissing: true) }
        try await alone(record.name) {
            zone.withLockedValue { $0.records.append(StubZone.text(record.name, record.value)) }
            log.withLockedValue { $0.append("add \(record.name) \(record.value)") }
        }
    }

    func remove(_ record: TXTRecord) async throws {
        if failsToRemove { throw DNSFault("not today") }
        try await alone(record.name) {
            zone.withLockedValue { $0.records.removeAll { $0 == StubZone.text(record.name, record.value) } }
            log.withLockedValue { $0.append("remove \(record.name) \(record.value)") }
        }
    }

    private func alone(_ name: String, _ body: () -> Void) async throws {
        guard busy.withLockedValue({ $0.insert(name).inserted }) else { throw DNSFault("two at a time") }
        for _ in 0..<50 { await Task.yield() }
        body()
        busy.withLockedValue { _ = $0.remove(name) }
    }
}

/// Waits in its first change.
private struct SlowProvider: DNSProvider {
    let label = "slow"
    let started: EventLoopPromise<Void>
    let gate: EventLoopFuture<Void>
    let log: NIOLockedValueBox<[String]>

    func add(_ record: TXTRecord) async throws {
        log.withLockedValue { $0.append(record.value) }
        started.succeed()
        try await gate.get()
    }
    func remove(_ record: TXTRecord) async throws {}
}

@Suite struct DNSChallengeTests {
    private static let group = MultiThreadedEventLoopGroup.singleton

    private func challenge(_ name: String, _ token: String = "token") throws -> ACMEChallenge {
        ACMEChallenge(type: .dns01, name: try #require(DomainPattern(name)), token: token, keyAuthorization: "\(token).thumbprint")
    }

    private func with(
        _ records: [DNSMessage.Record] = [], failsToRemove: Bool = false,
        _ body: (DNSChallenge, ZoneProvider, RecordingLog.Lines) async throws -> Void
    ) async throws {
        let zone = NIOLockedValueBox(StubZone.example(records))
        let stub = try await DNSStub(zone)
        let provider = ZoneProvider(zone: zone, failsToRemove: failsToRemove)
        let resolver = DNSResolver(servers: [stub.endpoint], group: Self.group)
        let lines = RecordingLog.Lines()
        let challenge = DNSChallenge(
            provider: provider, resolver: resolver, propagation: DNSPropagation(resolver: resolver, limit: .seconds(600), port: stub.port),
            logger: Logger(label: "test") { _ in RecordingLog(lines: lines) })
        do { try await body(challenge, provider, lines) } catch { Issue.record(error) }
        try await stub.close()
    }

    @Test("a name and its wildcard: two values at one name, each removed by itself")
    func twoValues() async throws {
        try await with { presenter, provider, _ in
            let (apex, wildcard) = (try challenge("example.com", "t1"), try challenge("*.example.com", "t2"))
            try await presenter.present(apex)
            try await presenter.present(wildcard)
            #expect(apex.dnsName == wildcard.dnsName && apex.dnsValue != wildcard.dnsValue)
            await presenter.withdraw(apex)
            await presenter.withdraw(wildcard)
            await presenter.withdraw(wildcard)
            let name = "_acme-challenge.example.com"
            #expect(
                provider.log.withLockedValue { $0 } == [
                    "add \(name) \(apex.dnsValue)", "add \(name) \(wildcard.dnsValue)", "remove \(name) \(apex.dnsValue)",
                    "remove \(name) \(wildcard.dnsValue)",
                ])
        }
    }

    @Test("a CNAME at the challenge's name says where the record is written, and removed")
    func alias() async throws {
        try await with([StubZone.name("_acme-challenge.app.example.com", DNSType.cname, "app.acme.example.com")]) {
            presenter, provider, _ in
            let challenge = try challenge("app.example.com")
            try await presenter.present(challenge)
            await presenter.withdraw(challenge)
            #expect(
                provider.log.withLockedValue { $0 } == [
                    "add app.acme.example.com \(challenge.dnsValue)", "remove app.acme.example.com \(challenge.dnsValue)",
                ])
        }
    }

    @Test("changes at one name are made one after the other")
    func serial() async throws {
        try await with { presenter, provider, _ in
            let challenges = try (0..<8).map { try challenge("example.com", "t\($0)") }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for challenge in challenges { group.addTask { try await presenter.present(challenge) } }
                try await group.waitForAll()
            }
            #expect(provider.log.withLockedValue { $0.count } == 8)
        }
    }

    @Test("who waits for a name that is being changed can be cancelled, and holds up nobody", .timeLimit(.minutes(1)))
    func cancelledInLine() async throws {
        let loop = Self.group.next()
        let (started, gate) = (loop.makePromise(of: Void.self), loop.makePromise(of: Void.self))
        let log = NIOLockedValueBox<[String]>([])
        let presenter = DNSChallenge(
            provider: SlowProvider(started: started, gate: gate.futureResult, log: log),
            resolver: DNSResolver(servers: [], group: Self.group),
            propagation: DNSPropagation(resolver: DNSResolver(servers: [], group: Self.group), limit: .milliseconds(1)),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let challenges = try (0..<3).map { try challenge("example.com", "t\($0)") }
        let first = Task { await failureText { try await presenter.present(challenges[0]) } }
        try await started.futureResult.get()
        let second = Task { await failureText { try await presenter.present(challenges[1]) } }
        let third = Task { await failureText { try await presenter.present(challenges[2]) } }
        for _ in 0..<50 { await Task.yield() }
        second.cancel()
        let text = await second.value
        #expect(text?.contains("it was cancelled") == true)
        gate.succeed()
        _ = await (first.value, third.value)
        #expect(log.withLockedValue { $0 } == [challenges[0].dnsValue, challenges[2].dnsValue])
    }

    @Test("a record that cannot be removed is logged, no more; a cancelled task removes its record all the same")
    func withdrawal() async throws {
        try await with(failsToRemove: true) { presenter, _, lines in
            let challenge = try challenge("example.com")
            try await presenter.present(challenge)
            await presenter.withdraw(challenge)
            #expect(lines.texts(.warning) == ["A record for DNS-01 was not removed"])
            #expect(lines.all.last?.metadata["reason"] == "not today")
        }
        try await with { presenter, provider, _ in
            let challenge = try challenge("example.com")
            try await presenter.present(challenge)
            let task = Task {
                withUnsafeCurrentTask { $0?.cancel() }
                await presenter.withdraw(challenge)
            }
            await task.value
            #expect(provider.log.withLockedValue { $0.count } == 2)
        }
    }

    @Test("other types are not its business")
    func otherTypes() async throws {
        try await with { presenter, provider, _ in
            let other = ACMEChallenge(
                type: .http01, name: try #require(DomainPattern("example.com")), token: "t", keyAuthorization: "t.x")
            #expect(await failureText { try await presenter.present(other) } == "http-01 is not shown in the DNS")
            await presenter.withdraw(other)
            #expect(provider.log.withLockedValue { $0.isEmpty })
        }
    }

    @Test("a CNAME to a zone that the provider does not have: the record is written at the name itself")
    func foreignAlias() async throws {
        try await with([
            StubZone.name("_acme-challenge.w.example.com", DNSType.cname, "w.elsewhere.example.com"),
            StubZone.name("_acme-challenge.x.elsewhere.example.com", DNSType.cname, "y.elsewhere.example.com"),
        ]) { presenter, provider, _ in
            let challenge = try challenge("w.example.com")
            try await presenter.present(challenge)
            await presenter.withdraw(challenge)
            let name = "_acme-challenge.w.example.com"
            #expect(
                provider.log.withLockedValue { $0 } == ["add \(name) \(challenge.dnsValue)", "remove \(name) \(challenge.dnsValue)"])
            let other = try self.challenge("x.elsewhere.example.com")
            #expect(
                await failureText { try await presenter.present(other) }
                    == "no zone for y.elsewhere.example.com; _acme-challenge.x.elsewhere.example.com: "
                    + "no zone for _acme-challenge.x.elsewhere.example.com")
        }
    }

    @Test("a CNAME to what is not the name of a host is refused, and nothing is written")
    func strangeAlias() async throws {
        try await with([StubZone.name("_acme-challenge.example.com", DNSType.cname, "a b;$c.example.com")]) { presenter, provider, _ in
            let text = await failureText { try await presenter.present(try challenge("example.com")) } ?? ""
            #expect(text.hasPrefix("the CNAME at _acme-challenge.example.com leads to a") && text.hasSuffix("is not the name of a host"))
            #expect(provider.log.withLockedValue { $0.isEmpty })
        }
    }
}
