import FoundationEssentials
import SwiftASN1
import X509

/// A certificate as it came from the CA, checked: it is ours, it is for the names that were ordered, and it is valid now.
package struct ACMECertificate: Equatable, Sendable {
    /// The server's own first.
    package let chain: [Certificate]
    package let key: Certificate.PrivateKey

    package var leaf: Certificate { chain[0] }

    /// What is written to a file: from the parsed certificates, so that nothing else of the answer gets there.
    package func chainPEM() throws -> String { try chain.map { try $0.serializeAsPEM().pemString + "\n" }.joined() }

    /// - Parameter names: what the certificate must cover.
    ///
    /// Source: RFC 8555 §7.4.2, §9.1.
    package init(
        pem body: [UInt8], key: Certificate.PrivateKey, names: [DomainPattern], now: Date
    ) throws(ACMEFault) {
        chain = try Self.parse(body)
        self.key = key
        guard chain[0].publicKey == key.publicKey else { throw ACMEFault("the certificate is for another key") }
        let covered = Self.names(of: chain[0])
        if let missing = names.first(where: { !covered.contains($0) }) { throw ACMEFault("the certificate does not name \(missing)") }
        guard chain[0].notValidAfter > now else {
            throw ACMEFault("the certificate expired at \(chain[0].notValidAfter.formatted(.iso8601)) by this machine's clock")
        }
        guard chain[0].notValidBefore < now + Self.clockTolerance, chain[0].notValidBefore < chain[0].notValidAfter else {
            throw ACMEFault("the certificate begins at \(chain[0].notValidBefore.formatted(.iso8601)): check this machine's clock")
        }
        for (subject, issuer) in zip(chain, chain.dropFirst()) {
            guard subject.issuer == issuer.subject, issuer.publicKey.isValidSignature(subject.signature, for: subject) else {
                throw ACMEFault("the chain is broken at \(issuer.subject)")
            }
        }
    }

    /// Common name of whoever issued the last certificate of a chain: what tells alternates apart.
    static func topIssuer(of body: [UInt8]) -> String? {
        guard let top = try? parse(body).last else { return nil }
        return top.issuer.flatMap { $0 }.last { $0.type == .RDNAttributeType.commonName }?.value.description
    }

    /// Certificates and nothing else, a bounded number.
    private static func parse(_ body: [UInt8]) throws(ACMEFault) -> [Certificate] {
        guard body.count <= ACMEResponse.maximumBody else { throw ACMEFault("the chain is too long") }
        guard let text = String(validating: body, as: UTF8.self) else { throw ACMEFault("the chain is no text") }
        do {
            let documents = try PEMDocument.parseMultiple(pemString: text)
            guard !documents.isEmpty else { throw ACMEFault("the chain is empty") }
            guard documents.count <= maximumChain else { throw ACMEFault("the chain has more than \(maximumChain) certificates") }
            if let other = documents.first(where: { $0.discriminator != "CERTIFICATE" }) {
                throw ACMEFault("the chain holds a \(other.discriminator)")
            }
            return try documents.map { try Certificate(pemDocument: $0) }
        } catch let fault as ACMEFault {
            throw fault
        } catch {
            throw ACMEFault("the chain cannot be read: \(error)")
        }
    }

    private static func names(of certificate: Certificate) -> Set<DomainPattern> {
        let alternative = (try? certificate.extensions.subjectAlternativeNames).flatMap { $0 } ?? SubjectAlternativeNames()
        return Set(
            alternative.compactMap { name -> DomainPattern? in
                if case .dnsName(let text) = name { DomainPattern(text) } else { nil }
            })
    }

    static let maximumChain = 10
    /// A clock that is slow by hours is no reason to throw a certificate away: visitors have their own.
    static let clockTolerance: TimeInterval = 86_400
}

/// What a certificate is asked for with.
///
/// Source: RFC 8555 §7.4, RFC 2986.
package enum CertificateRequest {
    /// DER: the names as subjectAltName and nothing else, no common name.
    package static func der(names: [DomainPattern], key: Certificate.PrivateKey) throws(ACMEFault) -> [UInt8] {
        do {
            let extensions = try Certificate.Extensions { SubjectAlternativeNames(names.map { .dnsName($0.name) }) }
            let request = try CertificateSigningRequest(
                version: .v1, subject: DistinguishedName(), privateKey: key,
                attributes: try CertificateSigningRequest.Attributes([.init(ExtensionRequest(extensions: extensions))]))
            var serializer = DER.Serializer()
            try serializer.serialize(request)
            return serializer.serializedBytes
        } catch {
            throw ACMEFault("the certificate signing request could not be made: \(error)")
        }
    }
}

/// How a certificate is named in requests for renewal information and in `replaces`.
///
/// Source: RFC 9773 §4.1.
package enum CertificateID {
    /// Nil if the certificate has no authority key identifier.
    package static func text(_ certificate: Certificate) -> String? {
        guard let authority = (try? certificate.extensions.authorityKeyIdentifier)?.keyIdentifier, !authority.isEmpty else { return nil }
        return text(authorityKeyIdentifier: Array(authority), serialNumber: Array(certificate.serialNumber.bytes))
    }

    /// - Parameter serialNumber: big-endian; the text has the content octets of its DER integer, so that a first bit of 1 gets a zero octet.
    package static func text(authorityKeyIdentifier: [UInt8], serialNumber: [UInt8]) -> String {
        var serial = Array(serialNumber.drop { $0 == 0 })
        if serial.first.map({ $0 >= 0x80 }) ?? true { serial.insert(0, at: 0) }
        return Base64URL.encode(authorityKeyIdentifier) + "." + Base64URL.encode(serial)
    }
}
