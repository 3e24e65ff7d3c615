import FoundationEssentials
import NIOSSL
import SwiftASN1
import X509

/// One certificate with its key, as configured.
package struct CertificateFiles: Hashable, Sendable {
    /// The domains it was configured for; none for a pair that stands for whatever its certificate names.
    package var domains: [String]
    package var certificateFile: String
    package var keyFile: String
    /// Shown to clients that send no server name; without a default they get alert 109.
    package var isDefault: Bool

    package init(domains: [String] = [], certificateFile: String, keyFile: String, isDefault: Bool = false) {
        self.domains = domains
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        self.isDefault = isDefault
    }
}

/// A certificate that is ready to be shown.
package struct ServedCertificate: Sendable {
    /// One for all its connections, so that sessions resume.
    package let context: NIOSSLContext
    /// What it covers.
    package let names: [DomainPattern]
    package let notValidBefore: Date
    package let notValidAfter: Date
    /// How it is named in status and messages: its file, or `internal CA`.
    package let source: String

    package func covers(_ host: String) -> Bool { names.contains { $0.covers(host) } }
}

/// The configured certificates, loaded and checked.
package struct PEMCertificates: Sendable {
    private(set) var byName = DomainTable<ServedCertificate>()
    private(set) var `default`: ServedCertificate?
    package private(set) var all: [ServedCertificate] = []
    /// What works but not for long or not for everybody; for the log.
    package private(set) var warnings: [String] = []

    package static func load(
        _ files: [CertificateFiles], applicationProtocols: [String], now: Date
    ) throws(CertificateFileError) -> PEMCertificates {
        var result = PEMCertificates()
        for pair in files {
            let certificate = try result.loadPair(pair, applicationProtocols: applicationProtocols, now: now)
            for text in pair.domains {
                guard let domain = DomainPattern(text) else { throw .invalidDomain(text) }
                let covered = domain.isWildcard ? certificate.names.contains(domain) : certificate.covers(domain.name)
                guard covered else {
                    throw .wrongName(path: pair.certificateFile, names: certificate.names.map(\.name), domain: domain.name)
                }
                result.byName[domain] = certificate
            }
            result.all.append(certificate)
            if pair.isDefault && result.default == nil { result.default = certificate }
        }
        // A certificate under its own domain has precedence, then the first one that names it.
        for (pair, certificate) in zip(files, result.all) where pair.domains.isEmpty {
            for name in certificate.names where result.byName[name] == nil { result.byName[name] = certificate }
        }
        return result
    }

    private mutating func loadPair(
        _ pair: CertificateFiles, applicationProtocols: [String], now: Date
    ) throws(CertificateFileError) -> ServedCertificate {
        let path = pair.certificateFile
        guard let file = try StateFile.read(path) else { throw .unreadable(path: path, reason: "no such file") }
        guard let keyFile = try StateFile.read(pair.keyFile) else { throw .unreadable(path: pair.keyFile, reason: "no such file") }
        if let fault = PEMContents(file.bytes).certificateFault { throw .wrongContents(path: path, fault) }
        if let fault = PEMContents(keyFile.bytes).privateKeyFault { throw .wrongContents(path: pair.keyFile, fault) }
        let chain: [NIOSSLCertificate]
        let leaf: Certificate
        do {
            chain = try NIOSSLCertificate.fromPEMBytes(file.bytes)
            guard let first = chain.first else { throw CertificateFileError.notACertificate(path: path, reason: "the file holds none") }
            leaf = try Certificate(derEncoded: first.toDERBytes())
        } catch let error as CertificateFileError {
            throw error
        } catch {
            throw .notACertificate(path: path, reason: "the one in it is cut off or damaged")
        }
        guard let key = try? NIOSSLPrivateKey(bytes: keyFile.bytes, format: .pem) else { throw .notAPrivateKey(path: pair.keyFile) }
        guard let context = try? ServedCertificate.makeContext(chain: chain, key: key, applicationProtocols: applicationProtocols) else {
            throw .keyOfAnotherCertificate(certificate: path, key: pair.keyFile)
        }
        let (names, isLegacy) = Self.names(of: leaf)
        guard !names.isEmpty else { throw .notACertificate(path: path, reason: "it names no domain (subjectAltName)") }

        if isLegacy { warnings.append("\(path): no subjectAltName, only a common name: today's clients refuse it. Have it issued again.") }
        if keyFile.mode & 0o007 != 0 { warnings.append("\(pair.keyFile): every user may read this key. Run `chmod o= \(pair.keyFile)`.") }
        if leaf.notValidAfter <= now {
            warnings.append("\(path): expired on \(leaf.notValidAfter.formatted(.iso8601)). Clients refuse it: renew it.")
        } else if leaf.notValidAfter <= now + Self.expiryWarningWindow {
            warnings.append("\(path): expires on \(leaf.notValidAfter.formatted(.iso8601)). Renew it.")
        } else if leaf.notValidBefore > now {
            warnings.append("\(path): not valid before \(leaf.notValidBefore.formatted(.iso8601)). Check this machine's clock.")
        }
        return ServedCertificate(
            context: context, names: names, notValidBefore: leaf.notValidBefore, notValidAfter: leaf.notValidAfter, source: path)
    }

    /// DNS names, or the common name of a certificate without any (which the RFCs no longer allow).
    static func names(of certificate: Certificate) -> (names: [DomainPattern], isLegacy: Bool) {
        let alternative = (try? certificate.extensions.subjectAlternativeNames).flatMap { $0 } ?? SubjectAlternativeNames()
        let names = alternative.compactMap { name -> DomainPattern? in
            if case .dnsName(let text) = name { DomainPattern(text) } else { nil }
        }
        if !names.isEmpty { return (names, false) }
        let commonNames = certificate.subject.flatMap { $0 }.filter { $0.type == .RDNAttributeType.commonName }
        return (commonNames.compactMap { DomainPattern($0.value.description) }, true)
    }

    static let expiryWarningWindow: TimeInterval = 14 * 86_400
}

extension ServedCertificate {
    init(_ leaf: InternalCA.Leaf, for domain: DomainPattern, applicationProtocols: [String]) throws(CertificateFileError) {
        do {
            var serializer = DER.Serializer()
            try serializer.serialize(leaf.certificate)
            let certificate = try NIOSSLCertificate(bytes: serializer.serializedBytes, format: .der)
            let key = try NIOSSLPrivateKey(bytes: Array(leaf.key.derRepresentation), format: .der)
            context = try Self.makeContext(chain: [certificate], key: key, applicationProtocols: applicationProtocols)
        } catch {
            throw .library("\(error)")
        }
        names = [domain]
        notValidBefore = leaf.certificate.notValidBefore
        notValidAfter = leaf.certificate.notValidAfter
        source = "internal CA"
    }

    static func makeContext(chain: [NIOSSLCertificate], key: NIOSSLPrivateKey, applicationProtocols: [String]) throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        // The library's own default allows TLS 1.0.
        configuration.minimumTLSVersion = .tlsv12
        // RFC 9325 §4.2: forward secrecy and authenticated encryption; the default has RSA key exchange and CBC, too. The library takes
        // the client's order, so TLS 1.2 has the one suite for each kind of key that every client with any of them has (§4.2.1).
        configuration.cipherSuites = "ECDHE+AESGCM+AES128"
        configuration.certificateVerification = .none
        configuration.renegotiationSupport = .none
        configuration.applicationProtocols = applicationProtocols
        // RFC 8446 §6.1: nobody has to wait for the peer's close_notify; a client that is gone would hold the connection for 5 s.
        configuration.shutdownTimeout = .milliseconds(500)
        return try NIOSSLContext(configuration: configuration)
    }
}
