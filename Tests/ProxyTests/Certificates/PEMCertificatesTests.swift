import Crypto
import FoundationEssentials
import Proxy
import Testing
import X509

/// A self-signed server certificate and its key as PEM.
func selfSigned(
    _ names: [String], commonName: String = "test", from: Date = testNow - day, until: Date = testNow + 90 * day
) throws -> (certificate: String, key: String) {
    let key = P256.Signing.PrivateKey()
    let subject = try DistinguishedName { CommonName(commonName) }
    let certificate = try Certificate(
        version: .v3, serialNumber: .init(), publicKey: .init(key.publicKey), notValidBefore: from, notValidAfter: until,
        issuer: subject, subject: subject,
        extensions: .init { if !names.isEmpty { SubjectAlternativeNames(names.map { .dnsName($0) }) } }, issuerPrivateKey: .init(key))
    return (try certificate.serializeAsPEM().pemString + "\n", key.pemRepresentation + "\n")
}

extension ScratchDirectory {
    /// Writes NAME.pem and NAME.key.
    func writePair(_ name: String, for names: [String], commonName: String = "test", until: Date = testNow + 90 * day) throws {
        let pair = try selfSigned(names, commonName: commonName, until: until)
        try write(pair.certificate, to: name + ".pem")
        try write(pair.key, to: name + ".key")
    }

    func pair(_ name: String, domain: String? = nil, isDefault: Bool = false) -> CertificateFiles {
        CertificateFiles(
            domains: domain.map { [$0] } ?? [], certificateFile: file(name + ".pem"), keyFile: file(name + ".key"), isDefault: isDefault)
    }
}

@Suite struct PEMCertificatesTests {
    private let directory: ScratchDirectory

    init() throws { directory = try ScratchDirectory() }

    private func load(_ files: CertificateFiles..., now: Date = testNow) throws(CertificateFileError) -> PEMCertificates {
        try PEMCertificates.load(files, applicationProtocols: ["http/1.1"], now: now)
    }

    @Test("a pair covers the names in its certificate, wildcards too")
    func names() throws {
        try directory.writePair("a", for: ["app.example.com", "*.wild.example"])
        let loaded = try load(directory.pair("a"))
        #expect(loaded.all.map { $0.names.map(\.name) } == [["app.example.com", "*.wild.example"]])
        #expect(loaded.all[0].covers("x.wild.example"))
        #expect(!loaded.all[0].covers("x.y.wild.example"))
        #expect(loaded.warnings == [])
    }

    @Test("a certificate for another domain is refused and names both")
    func wrongName() throws {
        try directory.writePair("a", for: ["app.example.com"])
        #expect(throws: CertificateFileError.wrongName(path: directory.file("a.pem"), names: ["app.example.com"], domain: "b.example")) {
            try load(directory.pair("a", domain: "b.example"))
        }
    }

    @Test("a wildcard certificate serves one domain below it")
    func wildcardForDomain() throws {
        try directory.writePair("a", for: ["*.example.com"])
        #expect(try load(directory.pair("a", domain: "app.example.com")).all.count == 1)
        #expect(throws: CertificateFileError.self) { try load(directory.pair("a", domain: "a.b.example.com")) }
    }

    @Test("the key of another certificate is refused")
    func mismatch() throws {
        try directory.writePair("a", for: ["app.example.com"])
        try directory.write(selfSigned(["app.example.com"]).key, to: "a.key")
        #expect(throws: CertificateFileError.keyOfAnotherCertificate(certificate: directory.file("a.pem"), key: directory.file("a.key"))) {
            try load(directory.pair("a"))
        }
    }

    @Test("missing and broken files are named, and their content is not shown")
    func brokenFiles() throws {
        try directory.writePair("a", for: ["app.example.com"])
        #expect(throws: CertificateFileError.unreadable(path: directory.file("b.pem"), reason: "no such file")) {
            try load(directory.pair("b"))
        }
        try directory.write("SECRET", to: "a.key")
        let error = #expect(throws: CertificateFileError.self) { try load(directory.pair("a")) }
        #expect(error?.description.hasPrefix(directory.file("a.key") + ": holds no PEM block; name the file with") == true)
        #expect(error?.description.contains("SECRET") == false)
        try directory.write("-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n", to: "a.key")
        let damaged = #expect(throws: CertificateFileError.self) { try load(directory.pair("a")) }
        #expect(damaged == .notAPrivateKey(path: directory.file("a.key")))
        #expect(damaged?.description.contains("SECRET") == false)
        try directory.write("nothing", to: "a.pem")
        let other = #expect(throws: CertificateFileError.self) { try load(directory.pair("a")) }
        #expect(other?.description.hasPrefix(directory.file("a.pem") + ": holds no PEM block") == true)
        let folder = CertificateFiles(certificateFile: directory.path, keyFile: directory.path)
        #expect(throws: CertificateFileError.unreadable(path: directory.path, reason: "not a regular file")) { try load(folder) }
    }

    @Test("an expired or soon expiring certificate and an open key file are warned of")
    func warnings() throws {
        try directory.writePair("a", for: ["app.example.com"], until: testNow + 5 * day)
        #expect(try load(directory.pair("a")).warnings.map { $0.contains("a.pem: expires on 2027") } == [true])
        #expect(try load(directory.pair("a"), now: testNow + 6 * day).warnings.map { $0.contains("a.pem: expired on 2027") } == [true])
        try directory.write(directory.read("a.key"), to: "a.key", mode: 0o644)
        #expect(try load(directory.pair("a")).warnings.contains { $0.contains("a.key: every user may read this key") })
    }

    @Test("a certificate with a common name only is served, with a warning")
    func commonNameOnly() throws {
        try directory.writePair("a", for: [], commonName: "app.example.com")
        let loaded = try load(directory.pair("a"))
        #expect(loaded.all[0].covers("app.example.com"))
        #expect(loaded.warnings.contains { $0.contains("no subjectAltName") })
    }
}
