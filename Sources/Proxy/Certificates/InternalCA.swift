import Crypto
import FoundationEssentials
import NIOSSL
import SwiftASN1
import X509

/// A certificate authority of this gateway alone, so that HTTPS works before any real certificate is there. Its root can only
/// vouch for the configured domains: critical name constraints, path length 0.
///
/// What it deliberately does not do: issue for names outside the constraints, for IP addresses, for clients, or for another CA.
package struct InternalCA: Sendable {
    /// The root: what a client must trust.
    package let certificate: Certificate
    private let key: P256.Signing.PrivateKey

    /// What the root's name constraints permit, normalised.
    package var permittedSubtrees: [String] {
        (try? certificate.extensions.nameConstraints).flatMap { $0 }.map { Array($0.permittedDNSDomains) } ?? []
    }

    package var notValidAfter: Date { certificate.notValidAfter }

    /// One server certificate with the key made for it.
    package struct Leaf: Sendable {
        package let certificate: Certificate
        package let key: P256.Signing.PrivateKey
    }

    init(certificate: Certificate, key: P256.Signing.PrivateKey) {
        self.certificate = certificate
        self.key = key
    }

    /// A new root and key for `domains`, which must not be empty: an empty list of permitted subtrees would permit everything.
    package static func make(for domains: [DomainPattern], now: Date) throws(CertificateFileError) -> InternalCA {
        precondition(!domains.isEmpty, "an internal CA without domains would be unconstrained")
        let key = P256.Signing.PrivateKey()
        let publicKey = Certificate.PublicKey(key.publicKey)
        let keyIdentifier = SubjectKeyIdentifier(hash: publicKey)
        // The name is unique, so that a client that trusts an older root as well never takes one for the other.
        let mark = keyIdentifier.keyIdentifier.prefix(4).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        do {
            let name = try DistinguishedName { CommonName("kakuremichi internal CA \(mark)") }
            let certificate = try Certificate(
                version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: publicKey,
                notValidBefore: now - backdating, notValidAfter: now + rootLifetime, issuer: name, subject: name,
                extensions: try Certificate.Extensions {
                    Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                    Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                    Critical(constraints(for: domains))
                    keyIdentifier
                },
                issuerPrivateKey: Certificate.PrivateKey(key))
            return InternalCA(certificate: certificate, key: key)
        } catch {
            throw .library("the internal CA could not be made: \(error)")
        }
    }

    /// A certificate for exactly one domain or wildcard. It never outlives the root.
    package func issue(for domain: DomainPattern, now: Date) throws(CertificateFileError) -> Leaf {
        let leafKey = P256.Signing.PrivateKey()
        let publicKey = Certificate.PublicKey(leafKey.publicKey)
        // X.520 limits a common name to 64 characters; without a subject RFC 5280 §4.1.2.6 wants the alternative name critical.
        let fits = domain.name.utf8.count <= 64
        do {
            let names = SubjectAlternativeNames([.dnsName(domain.name)])
            let authority = try certificate.extensions.subjectKeyIdentifier?.keyIdentifier
            let leaf = try Certificate(
                version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: publicKey,
                notValidBefore: max(now - Self.backdating, certificate.notValidBefore),
                notValidAfter: min(now + Self.leafLifetime, certificate.notValidAfter),
                issuer: certificate.subject, subject: fits ? try DistinguishedName { CommonName(domain.name) } : DistinguishedName(),
                extensions: try Certificate.Extensions {
                    Critical(BasicConstraints.notCertificateAuthority)
                    Critical(KeyUsage(digitalSignature: true))
                    try ExtendedKeyUsage([.serverAuth])
                    if fits { names } else { Critical(names) }
                    SubjectKeyIdentifier(hash: publicKey)
                    AuthorityKeyIdentifier(keyIdentifier: authority)
                },
                issuerPrivateKey: Certificate.PrivateKey(key))
            return Leaf(certificate: leaf, key: leafKey)
        } catch {
            throw .library("no certificate for \(domain): \(error)")
        }
    }

    /// The key's only way out: its file.
    func keyForFile() -> String { key.pemRepresentation + "\n" }

    func certificateForFile() throws -> String { try certificate.serializeAsPEM().pemString + "\n" }

    /// DNS names of the domains and nothing else: without the exclusion the key could still sign for IP addresses
    /// (the form is that of the CA/Browser Forum's Baseline Requirements §7.1.2.5.2).
    private static func constraints(for domains: [DomainPattern]) -> NameConstraints {
        let subtrees = Set(domains.map(\.constraint)).sorted()
        return NameConstraints(
            permittedSubtrees: subtrees.map { .dnsName($0) },
            excludedSubtrees: [8, 32].map { .ipAddress(ASN1OctetString(contentBytes: ArraySlice(repeating: 0, count: $0))) })
    }

    /// For clients whose clock is slow.
    static let backdating: TimeInterval = 3_600
    static let rootLifetime: TimeInterval = 365 * 86_400
    static let leafLifetime: TimeInterval = 7 * 86_400
    /// A root this close to its end is replaced.
    static let rootRenewalWindow: TimeInterval = 30 * 86_400
    /// A leaf this close to its end is replaced at its next use.
    static let leafRenewalWindow: TimeInterval = 2 * 86_400
}
