import Crypto
import FoundationEssentials
import Proxy
import SwiftASN1
import Testing
@_spi(FixedExpiryValidationTime) import X509

@Suite struct InternalCATests {
    private func verify(_ leaf: Certificate, root: Certificate, host: String?, at moment: Date) async -> Bool {
        var verifier = Verifier(rootCertificates: CertificateStore([root])) {
            RFC5280Policy(fixedExpiryValidationTime: moment)
            if let host { ServerIdentityPolicy(serverHostname: host, serverIP: nil) }
        }
        if case .validCertificate = await verifier.validate(leaf: leaf, intermediates: CertificateStore([])) { return true }
        return false
    }

    @Test("a leaf verifies against the root for its domain, and for seven days")
    func chain() async throws {
        let domains = try patterns("app.example.com", "*.wild.example")
        let ca = try InternalCA.make(for: domains, now: testNow)
        let leaf = try ca.issue(for: domains[0], now: testNow).certificate
        #expect(await verify(leaf, root: ca.certificate, host: "app.example.com", at: testNow))
        #expect(await verify(leaf, root: ca.certificate, host: "app.example.com", at: testNow - 1_800))
        #expect(await verify(leaf, root: ca.certificate, host: "app.example.com", at: testNow + 7 * day - 1))
        #expect(await !verify(leaf, root: ca.certificate, host: "app.example.com", at: testNow + 7 * day + 1))
        #expect(await !verify(leaf, root: ca.certificate, host: "other.example.com", at: testNow))
        let wildcard = try ca.issue(for: domains[1], now: testNow).certificate
        #expect(await verify(wildcard, root: ca.certificate, host: "a.wild.example", at: testNow))
    }

    @Test("the root's constraints refuse another domain, even one it signed")
    func constraints() async throws {
        let ca = try InternalCA.make(for: patterns("app.example.com"), now: testNow)
        for name in ["example.com", "bank.example", "xapp.example.com"] {
            let leaf = try ca.issue(for: patterns(name)[0], now: testNow).certificate
            #expect(await !verify(leaf, root: ca.certificate, host: nil, at: testNow), "\(name)")
        }
        let below = try ca.issue(for: patterns("a.app.example.com")[0], now: testNow).certificate
        #expect(await verify(below, root: ca.certificate, host: nil, at: testNow))
    }

    @Test("the root says what it may do in critical extensions, and is valid for a year")
    func rootProfile() throws {
        let ca = try InternalCA.make(for: patterns("b.example", "*.a.example", "b.example"), now: testNow)
        let extensions = ca.certificate.extensions
        #expect(try extensions.basicConstraints == .isCertificateAuthority(maxPathLength: 0))
        #expect(try extensions.keyUsage == KeyUsage(keyCertSign: true, cRLSign: true))
        let constraints = try #require(try extensions.nameConstraints)
        #expect(Array(constraints.permittedDNSDomains) == ["a.example", "b.example"])
        #expect(constraints.excludedIPRanges.map { $0.bytes.count } == [8, 32])
        for identifier: ASN1ObjectIdentifier in [
            .X509ExtensionID.basicConstraints, .X509ExtensionID.keyUsage, .X509ExtensionID.nameConstraints,
        ] { #expect(extensions[oid: identifier]?.critical == true) }
        #expect(ca.notValidAfter == testNow + 365 * day)
        #expect(ca.certificate.notValidBefore < testNow)
    }

    @Test("a leaf is for servers only, and names its issuer's key")
    func leafProfile() throws {
        let ca = try InternalCA.make(for: patterns("app.example.com"), now: testNow)
        let first = try ca.issue(for: patterns("app.example.com")[0], now: testNow).certificate
        let second = try ca.issue(for: patterns("app.example.com")[0], now: testNow).certificate
        #expect(try first.extensions.extendedKeyUsage == ExtendedKeyUsage([.serverAuth]))
        #expect(try first.extensions.basicConstraints == .notCertificateAuthority)
        let names = try #require(try first.extensions.subjectAlternativeNames)
        #expect(Array(names) == [.dnsName("app.example.com")])
        #expect(try first.extensions.authorityKeyIdentifier?.keyIdentifier == ca.certificate.extensions.subjectKeyIdentifier?.keyIdentifier)
        #expect(first.serialNumber != second.serialNumber)
        #expect(first.serialNumber.bytes.count >= 16)
        #expect(first.publicKey != second.publicKey)
    }

    @Test("a name too long for a common name is only in the alternative names")
    func longName() async throws {
        let name = String(repeating: "a", count: 63) + ".example.com"
        let ca = try InternalCA.make(for: patterns(name), now: testNow)
        let leaf = try ca.issue(for: patterns(name)[0], now: testNow).certificate
        #expect(leaf.subject.isEmpty)
        #expect(leaf.extensions[oid: .X509ExtensionID.subjectAlternativeName]?.critical == true)
        #expect(await verify(leaf, root: ca.certificate, host: name, at: testNow))
    }

    @Test("a leaf never outlives its root")
    func leafEnd() throws {
        let ca = try InternalCA.make(for: patterns("app.example.com"), now: testNow)
        let leaf = try ca.issue(for: patterns("app.example.com")[0], now: testNow + 363 * day).certificate
        #expect(leaf.notValidAfter == ca.notValidAfter)
    }

    @Test("the first start makes the CA, the second one loads it")
    func reload() throws {
        let directory = try ScratchDirectory()
        let state = directory.file("new/state")
        let domains = try patterns("app.example.com", "*.wild.example")
        let first = try InternalCA.open(in: state, for: domains, now: testNow)
        #expect(first.origin == .created)
        #expect(directory.mode("new/state") == 0o700)
        #expect(directory.mode("new/state/internal-ca.key") == 0o600)
        #expect(directory.mode("new/state/internal-ca.pem") == 0o644)
        let second = try InternalCA.open(in: state, for: patterns("x.wild.example"), now: testNow + 300 * day)
        #expect(second.origin == .loaded)
        #expect(second.ca.certificate == first.ca.certificate)
        let leaf = try second.ca.issue(for: domains[0], now: testNow).certificate
        #expect(first.ca.certificate.publicKey.isValidSignature(leaf.signature, for: leaf))
    }

    @Test("a domain outside the constraints makes a new root and says so")
    func newDomain() throws {
        let directory = try ScratchDirectory()
        let first = try InternalCA.open(in: directory.path, for: patterns("app.example.com"), now: testNow)
        let second = try InternalCA.open(in: directory.path, for: patterns("app.example.com", "new.example"), now: testNow)
        #expect(second.origin == .replaced(reason: "its name constraints do not permit new.example"))
        #expect(second.ca.certificate.publicKey != first.ca.certificate.publicKey)
        #expect(second.ca.certificate.subject != first.ca.certificate.subject)
        #expect(second.ca.permittedSubtrees == ["app.example.com", "new.example"])
        #expect(directory.names == ["internal-ca.key", "internal-ca.pem"])
    }

    @Test("a root is replaced before it ends, and says so")
    func renewal() throws {
        let directory = try ScratchDirectory()
        let domains = try patterns("app.example.com")
        _ = try InternalCA.open(in: directory.path, for: domains, now: testNow)
        #expect(try InternalCA.open(in: directory.path, for: domains, now: testNow + 334 * day).origin == .loaded)
        #expect(
            try InternalCA.open(in: directory.path, for: domains, now: testNow + 336 * day).origin == .replaced(reason: "it expires soon"))
        #expect(try InternalCA.open(in: directory.path, for: domains, now: testNow + 336 * day).origin == .loaded)
        #expect(
            try InternalCA.open(in: directory.path, for: domains, now: testNow + 800 * day).origin == .replaced(reason: "it has expired"))
        #expect(try InternalCA.open(in: directory.path, for: domains, now: testNow).origin == .replaced(reason: "it is not valid yet"))
    }

    @Test(
        "an invalid key file is an error and stays as it is",
        arguments: ["", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
    func corruptKey(text: String) throws {
        let directory = try ScratchDirectory()
        _ = try InternalCA.open(in: directory.path, for: patterns("app.example.com"), now: testNow)
        try directory.write(text, to: "internal-ca.key")
        let error = #expect(throws: CertificateFileError.self) {
            try InternalCA.open(in: directory.path, for: patterns("app.example.com"), now: testNow)
        }
        #expect(error == .internalKeyInvalid(path: directory.file("internal-ca.key")))
        #expect(error?.description.contains(directory.file("internal-ca.key")) == true)
        #expect(try directory.read("internal-ca.key") == text)
    }

    @Test("a key that others may read is refused")
    func exposedKey() throws {
        let directory = try ScratchDirectory()
        _ = try InternalCA.open(in: directory.path, for: patterns("app.example.com"), now: testNow)
        try directory.write(directory.read("internal-ca.key"), to: "internal-ca.key", mode: 0o644)
        #expect(throws: CertificateFileError.internalKeyExposed(path: directory.file("internal-ca.key"), mode: 0o644)) {
            try InternalCA.open(in: directory.path, for: patterns("app.example.com"), now: testNow)
        }
    }

    @Test("a key without its certificate, or with another's, makes a new root and says so")
    func mismatch() throws {
        let directory = try ScratchDirectory()
        let other = try ScratchDirectory()
        let domains = try patterns("app.example.com")
        _ = try InternalCA.open(in: directory.path, for: domains, now: testNow)
        _ = try InternalCA.open(in: other.path, for: domains, now: testNow)
        try directory.write(other.read("internal-ca.pem"), to: "internal-ca.pem")
        #expect(
            try InternalCA.open(in: directory.path, for: domains, now: testNow).origin
                == .replaced(reason: "internal-ca.key is not the key of internal-ca.pem"))
        try FileManager.default.removeItem(atPath: directory.file("internal-ca.pem"))
        #expect(
            try InternalCA.open(in: directory.path, for: domains, now: testNow).origin
                == .replaced(reason: directory.file("internal-ca.pem") + " is missing"))
        try directory.write("nonsense", to: "internal-ca.pem")
        #expect(
            try InternalCA.open(in: directory.path, for: domains, now: testNow).origin
                == .replaced(reason: "internal-ca.pem is not a certificate"))
        #expect(try InternalCA.open(in: directory.path, for: domains, now: testNow).origin == .loaded)
    }

    @Test("a root without constraints is not used, whoever made it")
    func unconstrained() throws {
        let directory = try ScratchDirectory()
        let key = P256.Signing.PrivateKey()
        let name = try DistinguishedName { CommonName("somebody's root") }
        let root = try Certificate(
            version: .v3, serialNumber: .init(), publicKey: .init(key.publicKey), notValidBefore: testNow,
            notValidAfter: testNow + 300 * day,
            issuer: name, subject: name, extensions: .init { Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0)) },
            issuerPrivateKey: .init(key))
        try directory.write(key.pemRepresentation, to: "internal-ca.key")
        try directory.write(root.serializeAsPEM().pemString, to: "internal-ca.pem")
        #expect(
            try InternalCA.open(in: directory.path, for: patterns("app.example.com"), now: testNow).origin
                == .replaced(reason: "internal-ca.pem is not a root with critical name constraints"))
    }
}
