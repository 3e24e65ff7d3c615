import NIOConcurrencyHelpers
import NIOCore
import NIOEmbedded
import Proxy
import Testing

@Suite struct AcquiredCertificatesTests {
    private let acquired = AcquiredCertificates()
    private let loop = EmbeddedEventLoop()
    private let domain: DomainPattern

    init() throws { domain = try patterns("app.example.com")[0] }

    private func served(_ names: [String]) throws -> ServedCertificate {
        let pair = try selfSigned(names)
        return try StoredCertificate(pem: pair.key + pair.certificate, source: "test").served(applicationProtocols: [], source: "test")
    }

    private func isShown(_ host: String, of domain: DomainPattern) -> String {
        switch acquired.answer(host: host, domain: domain) {
        case .show: "show"
        case .wait: "wait"
        case .missing: "missing"
        }
    }

    @Test("handshakes wait for what is expected, and for nothing else")
    func waiting() throws {
        #expect(isShown("app.example.com", of: domain) == "missing")
        #expect(acquired.takeMissed() == [domain: 1])
        #expect(acquired.takeMissed().isEmpty)
        acquired.expect(domain)
        #expect(isShown("app.example.com", of: domain) == "wait")
        let results = NIOLockedValueBox<[Bool]>([])
        for _ in 0..<3 {
            acquired.certificate(for: domain, on: loop).certificate.whenComplete { result in
                results.withLockedValue { $0.append((try? result.get()) != nil) }
            }
        }
        #expect(acquired.waiting == 3)
        acquired.install(try served(["app.example.com"]), for: domain)
        loop.run()
        #expect(results.withLockedValue { $0 } == [true, true, true] && acquired.waiting == 0)
        #expect(isShown("app.example.com", of: domain) == "show")
    }

    @Test("a hundred wait for a name and a thousand in all, thirty seconds each")
    func bounds() throws {
        let failures = NIOLockedValueBox(0)
        let names = try (0..<12).map { try patterns("n\($0).example.com")[0] }
        for name in names {
            acquired.expect(name)
            for _ in 0..<101 {
                acquired.certificate(for: name, on: loop).certificate.whenFailure { _ in failures.withLockedValue { $0 += 1 } }
            }
        }
        loop.run()
        #expect(acquired.waiting == AcquiredCertificates.maximumWaiters)
        #expect(failures.withLockedValue { $0 } == 12 * 101 - AcquiredCertificates.maximumWaiters)
        loop.advanceTime(by: .milliseconds(29_999))
        #expect(acquired.waiting == AcquiredCertificates.maximumWaiters)
        loop.advanceTime(by: .milliseconds(1))
        #expect(acquired.waiting == 0 && failures.withLockedValue { $0 } == 12 * 101)
    }

    @Test("who waits for an issuance that failed, or for a route that went, fails at once")
    func givenUp() throws {
        let failures = NIOLockedValueBox(0)
        for end in [{ self.acquired.giveUp(self.domain) }, { self.acquired.keep(only: []) }] {
            acquired.expect(domain)
            acquired.certificate(for: domain, on: loop).certificate.whenFailure { _ in failures.withLockedValue { $0 += 1 } }
            end()
            loop.run()
            #expect(isShown("app.example.com", of: domain) == "missing")
        }
        #expect(failures.withLockedValue { $0 } == 2 && acquired.waiting == 0)
    }

    @Test("who leaves makes room")
    func left() throws {
        acquired.expect(domain)
        let (certificate, leave) = acquired.certificate(for: domain, on: loop)
        #expect(acquired.waiting == 1)
        leave()
        leave()
        #expect(acquired.waiting == 0)
        #expect(throws: (any Error).self) { try certificate.wait() }
    }

    @Test("a wildcard's certificate serves what has none of its own")
    func wildcard() throws {
        let wildcard = try patterns("*.example.com")[0]
        acquired.install(try served(["*.example.com"]), for: wildcard)
        #expect(isShown("a.example.com", of: wildcard) == "show")
        #expect(isShown("app.example.com", of: domain) == "show")
        acquired.keep(only: [domain])
        #expect(isShown("app.example.com", of: domain) == "missing")
        #expect(acquired.all.isEmpty)
    }
}
