import Foundation
import Inet
import Logging
import NIOCore
import NIOPosix
import Proxy
import Testing

@Suite struct AutomaticCertificatesTests {
    private let scratch: ScratchDirectory
    private let lines = LineCollector()
    private let acquired = AcquiredCertificates()
    private let clock = TestClock()

    init() throws { scratch = try ScratchDirectory() }

    /// Nobody listens at the directory, unless a stub is given.
    private func certificates(
        directory: String = "http://127.0.0.1:1/dir", challenges: [ACMEChallengeType] = ACMESettings.standardChallenges
    ) throws -> AutomaticCertificates {
        let settings = ACMESettings(
            email: "me@example.org", authorities: [ACMEAuthority(directory: try ACMEURL(directory))],
            cacheDirectory: scratch.file("cache"), challenges: challenges)
        return try AutomaticCertificates(
            settings: settings, stateDirectory: scratch.path, acquired: acquired, board: ChallengeBoard(), userAgent: "test",
            group: MultiThreadedEventLoopGroup.singleton, logger: Logger(label: "test", factory: { [lines] _ in lines }),
            random: .seeded(1), clock: { [clock] in clock.now })
    }

    private func keep(
        _ names: [String], as domain: String, from: Date = testNow - day, until: Date = testNow + 90 * day, issuer: String = "test"
    ) throws {
        let store = try CertificateStore(directory: scratch.file("cache"), logger: .silent)
        let pair = try selfSigned(names, commonName: issuer, from: from, until: until)
        try store.save(try StoredCertificate(pem: pair.key + pair.certificate, source: "test"), for: try patterns(domain)[0])
    }

    @Test("what the cache has is served when the routes are known, without a word to the CA")
    func cache() async throws {
        let stub = try await HTTPStub()
        try keep(["app.example.com"], as: "app.example.com")
        let certificates = try certificates(directory: stub.url + "/dir")
        await certificates.update(domains: [("app.example.com", true)], generation: 1)
        await certificates.start()
        #expect(acquired.certificate(of: try patterns("app.example.com")[0]) != nil)
        let list = await certificates.list
        #expect(list.map(\.state) == [.valid] && list[0].names == ["app.example.com"])
        #expect(list[0].due.map { Double($0) > testNow.timeIntervalSince1970 + 50 * day } == true)
        // An older list of routes comes late.
        await certificates.update(domains: [], generation: 0)
        #expect(await certificates.list.count == 1)
        await certificates.update(domains: [], generation: 2)
        #expect(acquired.all.isEmpty)
        #expect(await certificates.list.isEmpty)
        await certificates.stop()
        // Its renewal information is asked for, at most; nothing is ordered.
        #expect(stub.seen.withLockedValue { $0.map(\.uri) }.allSatisfy { $0 == "/dir" })
        try await stub.close()
    }

    @Test("names that no CA could certify are not tried, and the reason is told")
    func obstacles() async throws {
        let certificates = try certificates()
        await certificates.update(domains: [("localhost", true), ("*.example.com", true), ("off.example.com", false)], generation: 1)
        let list = await certificates.list
        let label = String(repeating: "a", count: 60)
        let long = [label, label, label, label, "com"].joined(separator: ".")
        await certificates.update(domains: [(long, true)], generation: 2)
        #expect(await certificates.list.first?.reason?.contains("longer than the 230 bytes") == true)
        await certificates.update(
            domains: [("localhost", true), ("*.example.com", true), ("off.example.com", false)], generation: 3)
        #expect(list.map(\.state) == [.blocked, .blocked, .blocked])
        #expect(list[0].reason?.contains("dns-01") == true && list[1].reason?.contains("dot") == true)
        #expect(await certificates.missing.map(\.name).sorted() == ["*.example.com", "localhost"])
        #expect(lines.all.joined().contains("Certificate not found localhost"))
        await #expect(throws: AdminFault.self) { _ = try await certificates.renew("localhost") }
        await certificates.stop()
    }

    @Test("a CA that refuses is asked again later, also after a restart", .timeLimit(.minutes(1)))
    func refused() async throws {
        let stub = try await HTTPStub()
        var certificates = try certificates(directory: stub.url + "/dir")
        await certificates.update(domains: [("app.example.com", true)], generation: 1)
        await certificates.start()
        while await certificates.list[0].failures == 0 {
            try await MultiThreadedEventLoopGroup.singleton.any().scheduleTask(in: .milliseconds(20)) {}.futureResult.get()
        }
        let entry = await certificates.list[0]
        #expect(entry.state == .failed && entry.reason?.contains("directory") == true)
        #expect(entry.due.map { Double($0) >= testNow.timeIntervalSince1970 + 55 } == true)
        await certificates.stop()
        let count = stub.seen.withLockedValue { $0.count }
        certificates = try self.certificates(directory: stub.url + "/dir")
        await certificates.update(domains: [("app.example.com", true)], generation: 1)
        await certificates.start()
        let again = await certificates.list[0]
        #expect(again.state == .failed && again.due == entry.due && again.reason == entry.reason)
        await certificates.stop()
        #expect(stub.seen.withLockedValue { $0.count } == count)
        try await stub.close()
    }

    @Test("a staging certificate that was left in the cache is served and replaced")
    func staging() async throws {
        try keep(["app.example.com"], as: "app.example.com", issuer: "(STAGING) Counterfeit Cashew R10")
        let certificates = try certificates()
        await certificates.update(domains: [("app.example.com", true)], generation: 1)
        #expect(await certificates.list[0].state == .renewing)
        await certificates.stop()
    }

    @Test("one in the cache that is not valid yet is due at once, each time that it is found")
    func early() async throws {
        try keep(["app.example.com"], as: "app.example.com", from: testNow + 3_601, until: testNow + 200 * day)
        try keep(["b.example.com"], as: "b.example.com", from: testNow + 3_599)
        for _ in 0..<2 {
            let certificates = try certificates()
            await certificates.update(domains: [("app.example.com", true), ("b.example.com", true)], generation: 1)
            let list = await certificates.list
            #expect(list.map(\.state) == [.renewing, .valid])
            #expect(list[0].due == Int(testNow.timeIntervalSince1970))
            await certificates.stop()
        }
    }

    @Test("a certificate that is not valid yet cannot be imported, but for clocks that differ by an hour")
    func importedEarly() async throws {
        let certificates = try certificates()
        await certificates.update(domains: [("a.example.com", true)], generation: 1)
        let early = try selfSigned(["a.example.com"], from: testNow + 3_601)
        let error = await #expect(throws: AdminFault.self) { _ = try await certificates.adopt(pem: early.certificate + early.key) }
        #expect(
            error?.error.hasPrefix("the certificate is not valid before \((testNow + 3_601).formatted(.iso8601)); import it then") == true)
        #expect(acquired.all.isEmpty)
        let soon = try selfSigned(["a.example.com"], from: testNow + 3_599)
        #expect(try await certificates.adopt(pem: soon.certificate + soon.key) == ["a.example.com"])
        await certificates.stop()
    }

    @Test("an imported certificate serves all of its names; foreign, expired and broken ones are refused")
    func imported() async throws {
        let certificates = try certificates()
        await certificates.update(domains: [("a.example.com", true), ("b.example.com", true), ("c.example.org", false)], generation: 1)
        func pem(_ names: [String], until: Date = testNow + 90 * day) throws -> String {
            let pair = try selfSigned(names, until: until)
            return pair.certificate + pair.key
        }
        #expect(try await certificates.adopt(pem: try pem(["*.example.com"])) == ["a.example.com", "b.example.com"])
        #expect(try await certificates.export("a.example.com").contains("PRIVATE KEY"))
        for bad in [
            "", "garbage", try pem(["x.example.net"]), try pem(["a.example.com"], until: testNow - 1),
            try selfSigned(["a.example.com"]).certificate,
        ] {
            await #expect(throws: AdminFault.self) { _ = try await certificates.adopt(pem: bad) }
        }
        #expect(await certificates.list.map(\.state) == [.valid, .valid, .blocked])
        await #expect(throws: AdminFault.self) { _ = try await certificates.export("c.example.org") }
        await #expect(throws: AdminFault.self) { _ = try await certificates.export("../../etc/passwd") }
        await certificates.stop()
    }

    @Test("a damaged record is put aside; the account's key stays the same over restarts")
    func record() async throws {
        let first = try certificates()
        let thumbprint = await first.thumbprint
        await first.stop()
        try scratch.write("{\"names\":", to: "acme.json")
        let second = try certificates()
        #expect(await second.thumbprint == thumbprint)
        #expect(scratch.names.contains { $0.hasPrefix("acme.json.damaged-") })
        #expect(lines.all.joined().contains("put aside"))
        await second.stop()
    }
}
