import Crypto
import FoundationEssentials

/// The signed body of an ACME request: flattened JSON, one signature, nothing unprotected.
///
/// Source: RFC 8555 §6.2, RFC 7515 §7.2.2.
package enum JWS {
    /// Who signs: the key itself where the CA cannot know it yet (newAccount, revocation by certificate key, the inner body of a
    /// key change), otherwise the account's URL. RFC 8555 §6.2.
    package enum Signer: Equatable, Sendable {
        case jwk
        case kid(String)
    }

    /// - Parameters:
    ///   - payload: nil is the empty payload of POST-as-GET (RFC 8555 §6.3); an empty object is `{}`.
    ///   - url: exactly the URL that the request goes to.
    ///   - nonce: absent only in the inner body of a key change.
    package static func sign(
        _ payload: [UInt8]?, url: String, nonce: String?, key: ACMEKey, as signer: Signer
    ) throws(ACMEFault) -> [UInt8] {
        var header = #"{"alg":"ES256","#
        switch signer {
        case .jwk: header += #""jwk":"# + key.jwk + ","
        case .kid(let account): header += #""kid":"# + quoted(account) + ","
        }
        if let nonce { header += #""nonce":"# + quoted(nonce) + "," }
        header += #""url":"# + quoted(url) + "}"
        do {
            return try flattened(header: Array(header.utf8), payload: payload ?? []) { try key.signature(for: $0) }
        } catch {
            throw ACMEFault("the request could not be signed: \(error)")
        }
    }

    /// RFC 7515 §5.1: the signature is made over `BASE64URL(header) || '.' || BASE64URL(payload)`.
    package static func flattened(
        header: [UInt8], payload: [UInt8], signature: (_ signingInput: [UInt8]) throws -> [UInt8]
    ) rethrows -> [UInt8] {
        let protected = Base64URL.encode(header)
        let payload = Base64URL.encode(payload)
        let signature = Base64URL.encode(try signature(Array((protected + "." + payload).utf8)))
        return Array(#"{"payload":"\#(payload)","protected":"\#(protected)","signature":"\#(signature)"}"#.utf8)
    }

    /// A JSON string.
    static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\" + String(Character(scalar))
            case "\u{0}"..."\u{1F}":
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}

/// A P-256 key that signs requests: an account's, or a certificate's that asks for its revocation.
package struct ACMEKey: Sendable {
    private let key: P256.Signing.PrivateKey

    package init(_ key: P256.Signing.PrivateKey = P256.Signing.PrivateKey()) { self.key = key }

    /// From PKCS #8 or SEC 1; nil for anything else.
    package init?(pem: String) {
        guard let key = try? P256.Signing.PrivateKey(pemRepresentation: pem) else { return nil }
        self.key = key
    }

    /// The key's only way out: its file.
    package func pemForFile() -> String { key.pemRepresentation + "\n" }

    /// RFC 7518 §6.2.1, members in the order and form of RFC 7638 §3.
    package var jwk: String {
        let point = key.publicKey.rawRepresentation
        return #"{"crv":"P-256","kty":"EC","x":"\#(Base64URL.encode(point.prefix(32)))","y":"\#(Base64URL.encode(point.suffix(32)))"}"#
    }

    /// RFC 7638 §3.
    package var thumbprint: String { Base64URL.encode(SHA256.hash(data: Data(jwk.utf8))) }

    /// RFC 7518 §3.4: r and s, 32 bytes each.
    package func signature(for input: [UInt8]) throws -> [UInt8] {
        Array(try key.signature(for: Data(input)).rawRepresentation)
    }

    package func isValidSignature(_ signature: [UInt8], for input: [UInt8]) -> Bool {
        guard let signature = try? P256.Signing.ECDSASignature(rawRepresentation: Data(signature)) else { return false }
        return key.publicKey.isValidSignature(signature, for: Data(input))
    }
}

/// What a CA gave outside of ACME to a customer, so that the new account is theirs.
///
/// Source: RFC 8555 §7.3.4.
package struct ExternalAccount: Sendable, Equatable {
    package let keyID: String
    private let key: SymmetricKey

    /// - Parameter hmacKey: base64url as the CA shows it; padding is taken too. Nil if it is nothing of the kind.
    package init?(keyID: String, hmacKey: String) {
        var text = hmacKey[...]
        while text.hasSuffix("=") { text.removeLast() }
        guard !keyID.isEmpty, let bytes = Base64URL.decode(text), !bytes.isEmpty else { return nil }
        self.keyID = keyID
        key = SymmetricKey(data: bytes)
    }

    /// The `externalAccountBinding` of a newAccount request to `url` for `account`: HS256 over its public key.
    package func binding(for account: ACMEKey, url: String) -> [UInt8] {
        let header = #"{"alg":"HS256","kid":\#(JWS.quoted(keyID)),"url":\#(JWS.quoted(url))}"#
        return JWS.flattened(header: Array(header.utf8), payload: Array(account.jwk.utf8)) {
            Array(HMAC<SHA256>.authenticationCode(for: Data($0), using: key))
        }
    }
}

/// What a challenge is answered with.
package enum KeyAuthorization {
    /// RFC 8555 §8.1.
    package static func text(token: String, thumbprint: String) -> String { token + "." + thumbprint }

    /// RFC 8555 §8.4: what the TXT record `_acme-challenge` of the name holds.
    package static func dnsValue(_ text: String) -> String { Base64URL.encode(SHA256.hash(data: Data(text.utf8))) }

    /// RFC 8737 §3: the octets of the certificate's acmeIdentifier.
    package static func tlsALPNDigest(_ text: String) -> [UInt8] { Array(SHA256.hash(data: Data(text.utf8))) }
}
