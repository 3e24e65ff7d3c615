/// What can be wrong with certificates, keys and the files that hold them. Each description names the file and the next step.
package enum CertificateFileError: Error, Equatable, CustomStringConvertible {
    case unreadable(path: String, reason: String)
    case unwritable(path: String, reason: String)
    /// It holds something else.
    case wrongContents(path: String, PEMContents.Fault)
    case notACertificate(path: String, reason: String)
    case notAPrivateKey(path: String)
    case keyOfAnotherCertificate(certificate: String, key: String)
    case wrongName(path: String, names: [String], domain: String)
    case internalKeyInvalid(path: String)
    case internalKeyExposed(path: String, mode: UInt32)
    case invalidDomain(String)
    case library(String)

    package var description: String {
        switch self {
        case .unreadable(let path, let reason):
            "\(path): cannot be read: \(reason). Check that the file is there and that this user may read it."
        case .unwritable(let path, let reason):
            "\(path): cannot be written: \(reason). See that its disk has room and its directory is writable for this user, or name another directory."
        case .wrongContents(let path, let fault): "\(path): \(fault)"
        case .notACertificate(let path, let reason):
            "\(path): no PEM certificate: \(reason). It must hold `-----BEGIN CERTIFICATE-----` blocks, the server's own certificate first."
        case .notAPrivateKey(let path):
            "\(path): no usable PEM private key: it is damaged, or of a kind that is not for TLS. "
                + "It must hold one unencrypted `-----BEGIN PRIVATE KEY-----` block of an ECDSA or RSA key."
        case .keyOfAnotherCertificate(let certificate, let key):
            "\(key): is not the key of the certificate in \(certificate). Name the two files that were issued together, "
                + "with the server's own certificate first in its file."
        case .wrongName(let path, let names, let domain):
            "\(path): the certificate is for \(names.joined(separator: ", ")), not for \(domain). "
                + "Name a certificate for \(domain), or put this one under its own domain."
        case .internalKeyInvalid(let path):
            "\(path): not a P-256 private key in PEM. It is not overwritten: restore it from a backup, or move it away "
                + "and start again to get a new internal CA, which clients must then trust."
        case .internalKeyExposed(let path, let mode):
            "\(path): other users may read the internal CA's key (mode 0\(String(mode, radix: 8))). If nobody has read it, run "
                + "`chmod 600 \(path)`; otherwise move it away and start again to get a new internal CA, which clients must then trust."
        case .invalidDomain(let domain):
            "\(domain): not a domain. Write letters, digits and hyphens in labels of at most 63 characters (`app.example.com`, `*.example.com`), "
                + "international names as A-labels (`xn--...`)."
        case .library(let reason): "TLS library: \(reason)"
        }
    }
}
