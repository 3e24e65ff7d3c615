import Proxy
import Testing

@Suite struct PEMContentsTests {
    private static func pem(_ labels: String...) -> [UInt8] {
        Array(labels.map { "remark\n-----BEGIN \($0)-----\nAAAA\n-----END \($0)-----\n" }.joined().utf8)
    }
    private static let certificate = pem("CERTIFICATE")
    private static let key = pem("PRIVATE KEY")
    /// The beginning of a P-256 key.
    private static let der: [UInt8] = [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20]

    @Test("what there should be is no fault, alone or together")
    func good() {
        for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
            #expect(PEMContents(Self.pem(label)).privateKeyFault == nil)
            let both = PEMContents(Self.pem("CERTIFICATE", label, "CERTIFICATE"))
            #expect(both.certificateFault == nil && both.privateKeyFault == nil)
        }
        #expect(PEMContents(Self.certificate).certificateFault == nil)
        #expect(PEMContents(Array("-----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----\r\n".utf8)).certificateFault == nil)
    }

    @Test(
        "what is not a certificate is called what it is",
        arguments: [
            (key, "holds a private key where the certificate is wanted"), ([], "is empty"), ([0x0A, 0x20], "is empty"),
            (Array("hello".utf8), "holds no PEM block"), (der, "is not PEM but binary, such as DER"),
            (pem("CERTIFICATE REQUEST"), "holds a request for a certificate, not the certificate"),
            (pem("PKCS7"), "holds certificates as PKCS #7"), (pem("X\u{1B}"), "holds \"X\\u{1B}\" and no certificate"),
        ])
    func noCertificate(bytes: [UInt8], problem: String) throws {
        let fault = try #require(PEMContents(bytes).certificateFault)
        #expect(fault.problem == problem && !fault.fix.isEmpty)
    }

    @Test(
        "what is not a private key is called what it is",
        arguments: [
            (certificate, "holds a certificate where its private key is wanted"), ([], "is empty"),
            (Array("hello".utf8), "holds no PEM block"), (der, "is not PEM but binary, such as DER"),
            (pem("ENCRYPTED PRIVATE KEY"), "holds a private key that is encrypted by a passphrase"),
            (
                Array("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n".utf8),
                "holds a private key that is encrypted by a passphrase"
            ),
            (pem("PUBLIC KEY"), "holds a public key where the private key is wanted"),
            (pem("OPENSSH PRIVATE KEY"), "holds a key of OpenSSH"), (pem("DH PARAMETERS"), "holds \"DH PARAMETERS\" and no private key"),
        ])
    func noKey(bytes: [UInt8], problem: String) throws {
        let fault = try #require(PEMContents(bytes).privateKeyFault)
        #expect(fault.problem == problem && !fault.fix.isEmpty)
    }
}
