/// What a file holds that should hold a certificate or a private key in PEM (RFC 7468), as far as a message can tell it. Nothing of its
/// contents is shown.
package struct PEMContents: Equatable, Sendable {
    /// Why something cannot be used, and what to do.
    package struct Fault: Error, Equatable, Sendable, CustomStringConvertible {
        package var problem: String
        package var fix: String
        package var description: String { "\(problem); \(fix)" }
    }

    private enum Kind: Equatable, Sendable {
        case empty
        /// DER, and all that is a container of it.
        case binary
        case text
        /// Blocks, by what stands behind `BEGIN`.
        case blocks([String])
    }

    private let kind: Kind
    private let isEncrypted: Bool

    package init(_ bytes: some Collection<UInt8>) {
        var labels: [String] = []
        var isEncrypted = false
        for line in bytes.split(separator: 0x0A) {
            // RFC 1421 §4.6.1.1, which keys of older programs still have.
            if line.starts(with: "Proc-Type: 4,ENCRYPTED".utf8) { isEncrypted = true }
            guard labels.count < Self.maximumLabels, line.starts(with: Self.begin.utf8) else { continue }
            let label = String(decoding: line.dropFirst(Self.begin.utf8.count).prefix { $0 != UInt8(ascii: "-") }, as: UTF8.self)
            if !labels.contains(label) { labels.append(label) }
        }
        if !labels.isEmpty {
            kind = .blocks(labels)
        } else if bytes.allSatisfy({ $0 <= 0x20 }) {
            kind = .empty
        } else {
            // X.690 §8.9: all of them are a SEQUENCE.
            kind = bytes.first == 0x30 && bytes.prefix(64).contains { $0 < 0x09 || $0 >= 0x7F } ? .binary : .text
        }
        // RFC 7468 §11.
        self.isEncrypted = isEncrypted || labels.contains("ENCRYPTED PRIVATE KEY")
    }

    /// Why it is no certificate; `nil` if there is a block of one.
    package var certificateFault: Fault? {
        switch kind {
        case .empty: return Fault(problem: "is empty", fix: Self.certificateWanted)
        case .text: return Fault(problem: "holds no PEM block", fix: Self.certificateWanted)
        case .binary:
            return Fault(
                problem: "is not PEM but binary, such as DER",
                fix:
                    "convert it: openssl x509 -inform DER -in FILE -out NEWFILE (a .p12 or .pfx: openssl pkcs12 -in FILE -nodes -out NEWFILE)"
            )
        case .blocks(let labels):
            if labels.contains(where: Self.certificates.contains) { return nil }
            if labels.contains(where: Self.isPrivateKey) {
                return Fault(problem: "holds a private key where the certificate is wanted", fix: Self.certificateWanted)
            }
            if labels.contains("CERTIFICATE REQUEST") || labels.contains("NEW CERTIFICATE REQUEST") {
                return Fault(
                    problem: "holds a request for a certificate, not the certificate", fix: "name the file that the CA has answered with")
            }
            if labels.contains("PKCS7") || labels.contains("CMS") {
                return Fault(
                    problem: "holds certificates as PKCS #7", fix: "convert it: openssl pkcs7 -print_certs -in FILE -out NEWFILE")
            }
            return Fault(problem: "holds \(Self.list(labels)) and no certificate", fix: Self.certificateWanted)
        }
    }

    /// Why it is no private key that can be used; `nil` if there is a block of one that is not encrypted.
    package var privateKeyFault: Fault? {
        switch kind {
        case .empty: return Fault(problem: "is empty", fix: Self.keyWanted)
        case .text: return Fault(problem: "holds no PEM block", fix: Self.keyWanted)
        case .binary:
            return Fault(
                problem: "is not PEM but binary, such as DER",
                fix:
                    "convert it: openssl pkey -inform DER -in FILE -out NEWFILE (a .p12 or .pfx: openssl pkcs12 -in FILE -nodes -out NEWFILE)"
            )
        case .blocks(let labels):
            if isEncrypted {
                return Fault(
                    problem: "holds a private key that is encrypted by a passphrase",
                    fix: "decrypt it: openssl pkey -in FILE -out NEWFILE, and keep the new file at mode 0600")
            }
            if labels.contains("OPENSSH PRIVATE KEY") {
                return Fault(problem: "holds a key of OpenSSH", fix: Self.keyWanted)
            }
            if labels.contains(where: Self.isPrivateKey) { return nil }
            if labels.contains(where: Self.certificates.contains) {
                return Fault(problem: "holds a certificate where its private key is wanted", fix: Self.keyWanted)
            }
            if labels.contains(where: { $0.hasSuffix("PUBLIC KEY") }) {
                return Fault(problem: "holds a public key where the private key is wanted", fix: Self.keyWanted)
            }
            return Fault(problem: "holds \(Self.list(labels)) and no private key", fix: Self.keyWanted)
        }
    }

    private static func isPrivateKey(_ label: String) -> Bool { label.hasSuffix("PRIVATE KEY") }

    private static func list(_ labels: [String]) -> String {
        labels.prefix(3).map { "\"\(LogText.escape($0, limit: 40))\"" }.joined(separator: ", ")
    }

    /// Of different kinds; the others change no message.
    private static let maximumLabels = 16
    private static let begin = "-----BEGIN "
    private static let certificates: Set<String> = ["CERTIFICATE", "X509 CERTIFICATE"]
    private static let certificateWanted =
        "name the file with -----BEGIN CERTIFICATE----- blocks, the server's own certificate first"
    private static let keyWanted = "name the file with the -----BEGIN PRIVATE KEY----- block that belongs to the certificate"
}
