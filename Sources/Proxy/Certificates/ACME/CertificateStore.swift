import Crypto
import FoundationEssentials
import Logging
import NIOSSL
import SwiftASN1
import X509

/// What ACME needs to remember, one small file each, in the layout of Go's `autocert.DirCache`: an operator may point it at the cache of a
/// program that uses that, and both find everything the other has left.
///
/// | file | holds |
/// |---|---|
/// | `acme_account+key.next` | the key that is to follow it, while the CAs are told |
/// | `acme_account+key`, once `acme_account.key` | the account's key |
/// | `app.example.com`, `*.example.com` | a P-256 key, then the chain, its leaf first |
/// | `app.example.com+rsa` | the same with an RSA key |
/// | `app.example.com+token` | the certificate of a pending TLS-ALPN-01 challenge, in the same form |
/// | `TOKEN+http-01` | the key authorization of a pending HTTP-01 challenge |
///
/// Files are 0600 in a directory of 0700, and appear whole, under their names, or not at all; so several processes may share it. What
/// cannot be understood is put aside under another name and never deleted. Blocking: not for event loops. Thread-safe.
package final class CertificateStore: Sendable {
    package enum KeyKind: Sendable { case ecdsa, rsa }

    package let directory: String
    private let logger: Logger
    private let clock: @Sendable () -> Date

    /// Makes the directory if it is missing. One that others may write into is refused: what is in it is served.
    package init(directory: String, logger: Logger, clock: @escaping @Sendable () -> Date = { Date() }) throws(CertificateFileError) {
        self.directory = directory
        self.logger = logger
        self.clock = clock
        try StateFile.makeDirectory(directory)
        try StateFile.checkDirectory(directory)
    }

    // MARK: Certificates

    /// Why a domain's files cannot be here.
    static func obstacle(_ domain: DomainPattern) -> String? {
        if domain.name.hasPrefix("acme_account") { return "the name is that of a file of the account" }
        // A file's name ends at 255 bytes, and `+token.damaged-1790000000` may follow.
        return domain.name.utf8.count > 230 ? "the name is longer than the 230 bytes that its file in the cache can have" : nil
    }

    /// The certificate of a domain, expired or not; `nil` if there is none that can be used.
    package func certificate(for domain: DomainPattern, kind: KeyKind = .ecdsa) throws(CertificateFileError) -> StoredCertificate? {
        try stored(name(domain, kind), covering: domain)
    }

    package func save(_ certificate: StoredCertificate, for domain: DomainPattern, kind: KeyKind = .ecdsa) throws(CertificateFileError) {
        do throws(CertificateFileError) {
            _ = try StateFile.read(path(name(domain, kind)))
        } catch {
            // Whatever it is, it is not overwritten.
            try putAside(name(domain, kind), because: "\(error)")
        }
        try StateFile.write(certificate.pem, to: path(name(domain, kind)), mode: 0o600)
    }

    /// Puts a certificate aside that is not to be served again.
    package func retire(_ domain: DomainPattern, kind: KeyKind = .ecdsa) throws(CertificateFileError) {
        let path = path(name(domain, kind))
        guard try StateFile.read(path) != nil else { return }
        try StateFile.move(path, to: path + ".revoked-\(Int(clock().timeIntervalSince1970))")
    }

    private func name(_ domain: DomainPattern, _ kind: KeyKind) -> String { kind == .rsa ? domain.name + "+rsa" : domain.name }

    private func stored(_ name: String, covering domain: DomainPattern) throws(CertificateFileError) -> StoredCertificate? {
        guard let content = try StateFile.read(path(name)) else { return nil }
        do {
            let certificate = try StoredCertificate(pem: content.text, source: path(name))
            guard certificate.names.contains(domain) || certificate.covers(domain.name) else {
                throw CertificateFileError.wrongName(path: path(name), names: certificate.names.map(\.name), domain: domain.name)
            }
            return certificate
        } catch {
            try putAside(name, because: "\(error)")
            return nil
        }
    }

    // MARK: The account

    /// `nil` if there is no account yet.
    package func accountKey() throws(CertificateFileError) -> P256.Signing.PrivateKey? {
        for name in [Self.accountName, Self.legacyAccountName] {
            guard let content = try StateFile.read(path(name)) else { continue }
            if let key = try? P256.Signing.PrivateKey(pemRepresentation: content.text) { return key }
            try putAside(name, because: "it is no P-256 key in PEM")
        }
        return nil
    }

    /// The first key. One that is there meanwhile is not written over.
    package func makeAccountKey() throws(CertificateFileError) {
        try StateFile.write(
            P256.Signing.PrivateKey().pemRepresentation + "\n", to: path(Self.accountName), mode: 0o600, replaces: false)
    }

    package func save(accountKey: P256.Signing.PrivateKey) throws(CertificateFileError) {
        try StateFile.write(accountKey.pemRepresentation + "\n", to: path(Self.accountName), mode: 0o600)
    }

    /// The key that the CAs are being told of (RFC 8555 §7.3.5): lost to none of them if the process dies meanwhile.
    package func save(nextAccountKey: P256.Signing.PrivateKey) throws(CertificateFileError) {
        try StateFile.write(nextAccountKey.pemRepresentation + "\n", to: path(Self.nextAccountName), mode: 0o600)
    }

    package func nextAccountKey() throws(CertificateFileError) -> P256.Signing.PrivateKey? {
        try StateFile.read(path(Self.nextAccountName)).flatMap { try? P256.Signing.PrivateKey(pemRepresentation: $0.text) }
    }

    package var hasNextAccountKey: Bool { (try? StateFile.read(path(Self.nextAccountName))) ?? nil != nil }

    package func discardNextAccountKey() throws(CertificateFileError) { try StateFile.remove(path(Self.nextAccountName)) }

    // MARK: Challenges

    /// - Returns: the key authorization of a pending HTTP-01 challenge; `nil` for tokens that are none, RFC 8555 §8.3.
    package func keyAuthorization(forToken token: String) throws(CertificateFileError) -> String? {
        guard Self.isToken(token) else { return nil }
        return try StateFile.read(path(token + Self.httpSuffix), limit: Self.maximumAuthorization)?.text
    }

    package func save(keyAuthorization: String, forToken token: String) throws(CertificateFileError) {
        guard Self.isToken(token) else { throw .unwritable(path: directory, reason: "not a token: \(LogText.escape(token))") }
        try StateFile.write(keyAuthorization, to: path(token + Self.httpSuffix), mode: 0o600)
    }

    package func removeKeyAuthorization(forToken token: String) throws(CertificateFileError) {
        if Self.isToken(token) { try StateFile.remove(path(token + Self.httpSuffix)) }
    }

    /// The certificate that answers a pending TLS-ALPN-01 challenge, RFC 8737 §3.
    package func challengeCertificate(for domain: DomainPattern) throws(CertificateFileError) -> StoredCertificate? {
        try stored(domain.name + Self.tokenSuffix, covering: domain)
    }

    package func save(challengeCertificate: StoredCertificate, for domain: DomainPattern) throws(CertificateFileError) {
        try StateFile.write(challengeCertificate.pem, to: path(domain.name + Self.tokenSuffix), mode: 0o600)
    }

    package func removeChallengeCertificate(for domain: DomainPattern) throws(CertificateFileError) {
        try StateFile.remove(path(domain.name + Self.tokenSuffix))
    }

    /// 22 to 128 characters of base64url: no other name can be made of it.
    package static func isToken(_ text: String) -> Bool {
        (22...128).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }

    // MARK: Files

    private func path(_ name: String) -> String { directory + "/" + name }

    /// A second one of a second takes the place of the first.
    private func putAside(_ name: String, because reason: String) throws(CertificateFileError) {
        let other = path(name) + ".damaged-\(Int(clock().timeIntervalSince1970))"
        try StateFile.move(path(name), to: other)
        logger.warning(
            "A file of the certificate cache cannot be used and was put aside",
            metadata: ["file": "\(LogText.escape(path(name)))", "now": "\(LogText.escape(other))", "reason": "\(LogText.escape(reason))"])
    }

    private static let accountName = "acme_account+key"
    private static let legacyAccountName = "acme_account.key"
    private static let nextAccountName = "acme_account+key.next"
    private static let httpSuffix = "+http-01"
    private static let tokenSuffix = "+token"
    private static let maximumAuthorization = 1024
}

/// A certificate with its key, as one file holds them: they belong together, and the leaf names domains.
package struct StoredCertificate: Sendable {
    /// The key, then the chain, its leaf first.
    package let pem: String
    package let names: [DomainPattern]
    package let notValidBefore: Date
    package let notValidAfter: Date
    /// RFC 9773 §4.1.
    package let identifier: String?
    /// The common name of who issued it, or what there is instead.
    package let issuer: String
    package let leafDER: [UInt8]
    private let chain: [NIOSSLCertificate]
    private let key: NIOSSLPrivateKey

    /// - Parameter source: where it is from, for the error.
    package init(pem: String, source: String) throws(CertificateFileError) {
        let bytes = Array(pem.utf8)
        guard let key = try? NIOSSLPrivateKey(bytes: bytes, format: .pem) else { throw .notAPrivateKey(path: source) }
        guard let chain = try? NIOSSLCertificate.fromPEMBytes(bytes), let first = chain.first, let der = try? first.toDERBytes(),
            let leaf = try? Certificate(derEncoded: der)
        else { throw .notACertificate(path: source, reason: "there is none, or it cannot be parsed") }
        guard (try? ServedCertificate.makeContext(chain: chain, key: key, applicationProtocols: [])) != nil else {
            throw .keyOfAnotherCertificate(certificate: source, key: source)
        }
        names = PEMCertificates.names(of: leaf).names
        guard !names.isEmpty else { throw .notACertificate(path: source, reason: "it names no domain (subjectAltName)") }
        self.pem = pem
        self.chain = chain
        self.key = key
        identifier = CertificateID.text(leaf)
        issuer =
            leaf.issuer.flatMap { $0 }.last { $0.type == .RDNAttributeType.commonName }?.value.description ?? "\(leaf.issuer)"
        leafDER = der
        notValidBefore = leaf.notValidBefore
        notValidAfter = leaf.notValidAfter
    }

    /// The key by itself.
    package var keyPEM: String? {
        (try? PEMDocument.parseMultiple(pemString: pem))?.first { $0.discriminator.hasSuffix("PRIVATE KEY") }?.pemString
    }

    package func covers(_ host: String) -> Bool { names.contains { $0.covers(host) } }

    /// What clients are shown.
    package func served(applicationProtocols: [String], source: String) throws(CertificateFileError) -> ServedCertificate {
        do {
            let context = try ServedCertificate.makeContext(chain: chain, key: key, applicationProtocols: applicationProtocols)
            return ServedCertificate(
                context: context, names: names, notValidBefore: notValidBefore, notValidAfter: notValidAfter, source: source)
        } catch {
            throw .library("\(error)")
        }
    }
}
