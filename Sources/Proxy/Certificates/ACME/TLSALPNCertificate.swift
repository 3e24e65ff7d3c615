import Crypto
import FoundationEssentials
import NIOSSL
import SwiftASN1
import X509

/// The certificate that a validation by TLS-ALPN-01 is shown: self-signed, for one name, with the digest of the key authorization.
///
/// Source: RFC 8737 §3.
package enum TLSALPNCertificate {
    /// In the form in which ``CertificateStore`` keeps it.
    package static func make(for challenge: ACMEChallenge, now: Date) throws -> StoredCertificate {
        let key = P256.Signing.PrivateKey()
        let name = try DistinguishedName { CommonName("acme-tls/1") }
        var octets = DER.Serializer()
        try octets.serialize(ASN1OctetString(contentBytes: challenge.tlsALPNDigest[...]))
        let certificate = try Certificate(
            version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: Certificate.PublicKey(key.publicKey),
            notValidBefore: now - 3_600, notValidAfter: now + lifetime, issuer: name, subject: name,
            extensions: try Certificate.Extensions {
                SubjectAlternativeNames([.dnsName(challenge.name.name)])
                Certificate.Extension(oid: identifier, critical: true, value: octets.serializedBytes[...])
            },
            issuerPrivateKey: Certificate.PrivateKey(key))
        let pem = key.pemRepresentation + "\n" + (try certificate.serializeAsPEM().pemString) + "\n"
        return try StoredCertificate(pem: pem, source: "the answer to a challenge")
    }

    /// The context that speaks `acme-tls/1` and nothing else.
    package static func context(_ certificate: StoredCertificate) throws(CertificateFileError) -> NIOSSLContext {
        try certificate.served(applicationProtocols: [protocolName], source: "the answer to a challenge").context
    }

    static let protocolName = "acme-tls/1"
    /// id-pe-acmeIdentifier.
    private static let identifier: ASN1ObjectIdentifier = [1, 3, 6, 1, 5, 5, 7, 1, 31]
    private static let lifetime: TimeInterval = 7 * 86_400
}
