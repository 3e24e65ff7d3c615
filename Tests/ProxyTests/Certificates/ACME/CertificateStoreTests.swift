import Crypto
import Foundation
import Logging
import Proxy
import Testing

@Suite struct CertificateStoreTests {
    private let scratch: ScratchDirectory
    private let lines = LineCollector()
    private let domain: DomainPattern

    init() throws {
        scratch = try ScratchDirectory()
        domain = try patterns("app.example.com")[0]
    }

    private func store(_ directory: String? = nil) throws -> CertificateStore {
        try CertificateStore(
            directory: directory ?? scratch.path, logger: Logger(label: "test", factory: { [lines] _ in lines }), clock: { testNow })
    }

    private func certificate(_ names: [String]) throws -> StoredCertificate {
        let pair = try selfSigned(names)
        return try StoredCertificate(pem: pair.key + pair.certificate, source: "test")
    }

    @Test("a certificate is found again, in files and a directory for the owner alone")
    func saved() throws {
        let directory = scratch.file("state/certificates")
        let store = try store(directory)
        #expect(try store.certificate(for: domain) == nil)
        let certificate = try certificate(["app.example.com"])
        try store.save(certificate, for: domain)
        try store.save(certificate, for: domain, kind: .rsa)
        let found = try #require(try self.store(directory).certificate(for: domain))
        #expect(found.pem == certificate.pem && found.notValidAfter == certificate.notValidAfter)
        #expect(try found.served(applicationProtocols: ["h2"], source: "cache").covers("app.example.com"))
        #expect(scratch.mode("state/certificates") == 0o700 && scratch.mode("state/certificates/app.example.com") == 0o600)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory).sorted() == ["app.example.com", "app.example.com+rsa"])
    }

    @Test("a wildcard has a file of its own name, and a name below it one of its own")
    func wildcard() throws {
        let store = try store()
        let wildcard = try patterns("*.example.com")[0]
        try store.save(try certificate(["*.example.com"]), for: wildcard)
        #expect(try store.certificate(for: wildcard) != nil)
        #expect(try store.certificate(for: domain) == nil)
        #expect(scratch.names == ["*.example.com"])
    }

    @Test("what OpenSSL has written in the layout of autocert is read: keys in SEC1, an older name of the account's")
    func autocert() throws {
        try scratch.write(Self.cached, to: "app.example.com")
        try scratch.write(Self.account, to: "acme_account.key")
        let store = try store()
        #expect(try store.certificate(for: domain)?.names.map(\.name) == ["app.example.com", "*.app.example.com"])
        let legacy = try #require(try store.accountKey())
        #expect(legacy.rawRepresentation == (try P256.Signing.PrivateKey(pemRepresentation: Self.account)).rawRepresentation)
        let key = P256.Signing.PrivateKey()
        try store.save(accountKey: key)
        #expect(try store.accountKey()?.rawRepresentation == key.rawRepresentation)
        #expect(scratch.mode("acme_account+key") == 0o600)
        #expect(lines.all.isEmpty)
    }

    @Test(
        "what cannot be used is put aside with a warning, and nothing is deleted",
        arguments: [
            "", "garbage", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
        ])
    func damaged(text: String) throws {
        try scratch.write(text, to: "app.example.com")
        try scratch.write(text, to: "acme_account+key")
        let store = try store()
        #expect(try store.certificate(for: domain) == nil)
        #expect(try store.accountKey() == nil)
        #expect(scratch.names == ["acme_account+key.damaged-1800000000", "app.example.com.damaged-1800000000"])
        #expect(try scratch.read("app.example.com.damaged-1800000000") == text)
        #expect(lines.all.filter { $0.hasPrefix("warning A file of the certificate cache") }.count == 2)
        #expect(try store.certificate(for: domain) == nil, "and once is enough")
    }

    @Test("a certificate for another name, or with another's key, is put aside")
    func foreign() throws {
        let store = try store()
        try store.save(try certificate(["other.example.com"]), for: domain)
        #expect(try store.certificate(for: domain) == nil)
        let (one, other) = (try selfSigned(["app.example.com"]), try selfSigned(["app.example.com"]))
        try scratch.write(one.key + other.certificate, to: "app.example.com")
        #expect(try store.certificate(for: domain) == nil)
        #expect(throws: CertificateFileError.self) { try StoredCertificate(pem: one.key + other.certificate, source: "x") }
        #expect(!lines.all.contains { $0.contains("PRIVATE KEY") || $0.contains(one.key) })
    }

    @Test("tokens are no paths")
    func tokens() throws {
        let store = try store()
        let token = "DGyRejmCefe7v4NfDGDKfA"
        #expect(try store.keyAuthorization(forToken: token) == nil)
        try store.save(keyAuthorization: token + ".thumb", forToken: token)
        #expect(try store.keyAuthorization(forToken: token) == token + ".thumb")
        #expect(scratch.names == [token + "+http-01"])
        try store.removeKeyAuthorization(forToken: token)
        try store.removeKeyAuthorization(forToken: token)
        #expect(scratch.names.isEmpty)
        for wrong in [
            "", "short", "../../../../../../etc/passwd", "a/bcdefghijklmnopqrstuvw", String(repeating: "a", count: 129),
            "äbcdefghijklmnopqrstuvwx",
        ] {
            #expect(throws: CertificateFileError.self) { try store.save(keyAuthorization: "x", forToken: wrong) }
            #expect(try store.keyAuthorization(forToken: wrong) == nil)
        }
    }

    @Test("a pending TLS-ALPN-01 challenge has a certificate until it is over")
    func challenge() throws {
        let store = try store()
        try store.save(challengeCertificate: try certificate(["app.example.com"]), for: domain)
        #expect(try self.store().challengeCertificate(for: domain) != nil)
        #expect(scratch.names == ["app.example.com+token"])
        try store.removeChallengeCertificate(for: domain)
        #expect(try store.challengeCertificate(for: domain) == nil)
    }

    @Test("a full disk leaves the certificate that is there")
    func unwritable() throws {
        let store = try store()
        let first = try certificate(["app.example.com"])
        try store.save(first, for: domain)
        // Nothing can be made in a directory that is gone; what is open or elsewhere stays.
        let moved = scratch.path + "-moved"
        #expect(rename(scratch.path, moved) == 0)
        #expect(throws: CertificateFileError.self) { try store.save(try certificate(["app.example.com"]), for: domain) }
        #expect(rename(moved, scratch.path) == 0)
        #expect(try store.certificate(for: domain)?.pem == first.pem)
        #expect(scratch.names == ["app.example.com"])
    }

    @Test("two processes that write at the same time leave one whole file")
    func twoWriters() async throws {
        let certificates = try (0..<2).map { _ in try certificate(["app.example.com"]) }
        let (one, other) = (try store(), try store())
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for (store, certificate) in zip([one, other], certificates) {
                tasks.addTask { [domain] in for _ in 0..<50 { try store.save(certificate, for: domain) } }
            }
            tasks.addTask { [domain] in for _ in 0..<50 { _ = try one.certificate(for: domain) } }
            try await tasks.waitForAll()
        }
        let left = try #require(try one.certificate(for: domain))
        #expect(certificates.map(\.pem).contains(left.pem))
        #expect(scratch.names == ["app.example.com"] && lines.all.isEmpty)
    }

    @Test("of two processes that make the account's key at the same time one succeeds, and both have its key")
    func twoAccounts() async throws {
        for round in 0..<20 {
            let directory = scratch.file("cache-\(round)")
            let stores = [try store(directory), try store(directory)]
            let keys = try await withThrowingTaskGroup(of: Data?.self) { tasks in
                for store in stores {
                    tasks.addTask {
                        try store.makeAccountKey()
                        return try store.accountKey()?.rawRepresentation
                    }
                }
                return try await tasks.reduce(into: Set<Data?>()) { $0.insert($1) }
            }
            #expect(keys.count == 1 && keys.first != .some(nil))
            try stores[0].makeAccountKey()
            #expect(keys.first == .some(try stores[1].accountKey()?.rawRepresentation))
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["acme_account+key"])
        }
    }

    private static let account = """
        -----BEGIN EC PRIVATE KEY-----
        MHcCAQEEIPA+atumKwmomM818y5X7eo334IB8S6ATEaLrGXD4ffCoAoGCCqGSM49
        AwEHoUQDQgAEMnhn3Z1pmoc9QR637oSzoCWZdMAgf2kbDdO+oMftmS07tyh6Mco6
        zUaUzj6NeKqkVDtWzEkbEnx1mHTrPd+5cQ==
        -----END EC PRIVATE KEY-----

        """

    private static let cached = """
        -----BEGIN EC PRIVATE KEY-----
        MHcCAQEEID9KeNW2UHuG2NRrFvhFG2JtaX10uvMfxqiSu7imNtutoAoGCCqGSM49
        AwEHoUQDQgAE8qNQPOAKFrpwOE8rNjW83VW78F6dHK0AgiZmjKpeE56KsXTgtD3v
        2/kvrOc3V/vNOvUahC0fO0svKMQchdzZ8g==
        -----END EC PRIVATE KEY-----
        -----BEGIN CERTIFICATE-----
        MIIBnzCCAUagAwIBAgIUKvJ89IPTbzuoRGIwFdd/xySI4PAwCgYIKoZIzj0EAwIw
        DDEKMAgGA1UEAwwBeDAgFw0yNjExMjYxMTM4MThaGA8yMTI2MTEwMjExMzgxOFow
        DDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPKjUDzgCha6
        cDhPKzY1vN1Vu/BenRytAIImZoyqXhOeirF04LQ979v5L6znN1f7zTr1GoQtHztL
        LyjEHIXc2fKjgYMwgYAwHQYDVR0OBBYEFIspYmHaRMp7glTzShPo8D0Si8jtMB8G
        A1UdIwQYMBaAFIspYmHaRMp7glTzShPo8D0Si8jtMA8GA1UdEwEB/wQFMAMBAf8w
        LQYDVR0RBCYwJIIPYXBwLmV4YW1wbGUuY29tghEqLmFwcC5leGFtcGxlLmNvbTAK
        BggqhkjOPQQDAgNHADBEAiBgAWGihnY4pj9nflBEmpv1zY/64x9u/3JZE3d+XT6h
        tgIgf/t1V+7aFsA/LLsUH8ubHar4dchLyiQ/LBst5MPmB2I=
        -----END CERTIFICATE-----

        """
}
