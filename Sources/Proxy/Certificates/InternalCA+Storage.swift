import Crypto
import FoundationEssentials
import SwiftASN1
import X509

extension InternalCA {
    /// Where an internal CA came from; everything but `loaded` concerns the people who trust it.
    package enum Origin: Equatable, Sendable {
        case loaded
        case created
        case replaced(reason: String)
    }

    package static func certificatePath(in directory: String) -> String { directory + "/internal-ca.pem" }
    package static func keyPath(in directory: String) -> String { directory + "/internal-ca.key" }

    /// The CA of the state directory. One that cannot serve `domains` any longer is replaced, and the origin says why; a key file
    /// that is not understood is an error and stays as it is.
    package static func open(
        in directory: String, for domains: [DomainPattern], now: Date
    ) throws(CertificateFileError) -> (ca: InternalCA, origin: Origin) {
        try StateFile.makeDirectory(directory)
        let storedKey = try readKey(in: directory)
        let storedCertificate = try StateFile.read(certificatePath(in: directory))
        let origin: Origin
        switch (storedKey, storedCertificate) {
        case (nil, nil): origin = .created
        case (nil, .some): origin = .replaced(reason: "\(keyPath(in: directory)) is missing")
        case (.some, nil): origin = .replaced(reason: "\(certificatePath(in: directory)) is missing")
        case (.some(let key), .some(let content)):
            switch assess(content, key: key, domains: domains, now: now) {
            case .usable(let certificate): return (InternalCA(certificate: certificate, key: key), .loaded)
            case .unusable(let reason): origin = .replaced(reason: reason)
            }
        }
        let ca = try make(for: domains, now: now)
        try ca.store(in: directory)
        return (ca, origin)
    }

    /// Why this CA has to make way for a new one; nil if it may stay.
    package func reasonForReplacement(domains: [DomainPattern], now: Date) -> String? {
        // Read once: the certificate is parsed for them, and there may be as many as domains.
        let permitted = Set(permittedSubtrees)
        if let domain = domains.first(where: { !$0.lies(in: permitted) }) { return "its name constraints do not permit \(domain)" }
        if now >= notValidAfter { return "it has expired" }
        if now + Self.rootRenewalWindow >= notValidAfter { return "it expires soon" }
        if now < certificate.notValidBefore { return "it is not valid yet" }
        return nil
    }

    /// The key goes first: should the second write fail, the next start finds a pair that does not match and makes a new one.
    package func store(in directory: String) throws(CertificateFileError) {
        let pem: String
        do { pem = try certificateForFile() } catch { throw .library("\(error)") }
        try StateFile.write(keyForFile(), to: Self.keyPath(in: directory), mode: 0o600)
        try StateFile.write(pem, to: Self.certificatePath(in: directory), mode: 0o644)
    }

    private enum Assessment {
        case usable(Certificate)
        case unusable(reason: String)
    }

    private static func readKey(in directory: String) throws(CertificateFileError) -> P256.Signing.PrivateKey? {
        let path = keyPath(in: directory)
        guard let content = try StateFile.read(path) else { return nil }
        guard content.mode & 0o077 == 0 else { throw .internalKeyExposed(path: path, mode: content.mode) }
        do {
            return try P256.Signing.PrivateKey(pemRepresentation: content.text)
        } catch {
            throw .internalKeyInvalid(path: path)
        }
    }

    private static func assess(
        _ content: StateFile.Content, key: P256.Signing.PrivateKey, domains: [DomainPattern], now: Date
    ) -> Assessment {
        guard let certificate = try? Certificate(pemEncoded: content.text) else {
            return .unusable(reason: "internal-ca.pem is not a certificate")
        }
        let publicKey = Certificate.PublicKey(key.publicKey)
        guard certificate.publicKey == publicKey else { return .unusable(reason: "internal-ca.key is not the key of internal-ca.pem") }
        guard publicKey.isValidSignature(certificate.signature, for: certificate) else {
            return .unusable(reason: "internal-ca.pem is not self-signed")
        }
        guard isConstrainedRoot(certificate) else {
            return .unusable(reason: "internal-ca.pem is not a root with critical name constraints")
        }
        let ca = InternalCA(certificate: certificate, key: key)
        if let reason = ca.reasonForReplacement(domains: domains, now: now) { return .unusable(reason: reason) }
        return .usable(certificate)
    }

    private static func isConstrainedRoot(_ certificate: Certificate) -> Bool {
        guard
            case .isCertificateAuthority(maxPathLength: 0) = (try? certificate.extensions.basicConstraints).flatMap({ $0 }),
            let constraints = certificate.extensions[oid: .X509ExtensionID.nameConstraints], constraints.critical,
            let parsed = try? NameConstraints(constraints), !parsed.permittedDNSDomains.isEmpty,
            (try? certificate.extensions.subjectKeyIdentifier).flatMap({ $0 }) != nil
        else { return false }
        return true
    }
}
