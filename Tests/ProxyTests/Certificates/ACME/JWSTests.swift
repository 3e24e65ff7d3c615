import Crypto
import FoundationEssentials
import Proxy
import Testing

/// The example key of RFC 7515 appendix A.3.
private func exampleKey() throws -> ACMEKey {
    let scalar = try #require(Base64URL.decode("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"))
    return ACMEKey(try P256.Signing.PrivateKey(rawRepresentation: Data(scalar)))
}

struct FlattenedJWS: Decodable {
    var protected: String
    var payload: String
    var signature: String

    init(_ bytes: [UInt8]) throws { self = try JSONDecoder().decode(Self.self, from: Data(bytes)) }

    var header: String { String(decoding: Base64URL.decode(protected) ?? [], as: UTF8.self) }
    var content: String { String(decoding: Base64URL.decode(payload) ?? [], as: UTF8.self) }
    var signingInput: [UInt8] { Array((protected + "." + payload).utf8) }
    var signatureBytes: [UInt8] { Base64URL.decode(signature) ?? [] }
}

@Suite struct JWSTests {
    @Test("base64url of RFC 7515's appendix C and of RFC 4648's table, both ways")
    func base64url() {
        #expect(Base64URL.encode([3, 236, 255, 224, 193]) == "A-z_4ME")
        let table = ["": "", "f": "Zg", "fo": "Zm8", "foo": "Zm9v", "foob": "Zm9vYg", "fooba": "Zm9vYmE", "foobar": "Zm9vYmFy"]
        for (text, encoded) in table {
            #expect(Base64URL.encode(Array(text.utf8)) == encoded)
            #expect(Base64URL.decode(encoded) == Array(text.utf8))
        }
    }

    @Test(
        "padding, the other alphabet, impossible lengths and loose bits are refused",
        arguments: ["Zg==", "Zm9v=", "+A", "/A", "A", "AAAAA", "Zh", "Zm9", "Z g", "Zg\n", "é"])
    func strict(text: String) { #expect(Base64URL.decode(text) == nil) }

    @Test("HS256 over header and payload of RFC 7515's appendix A.1 gives its signature")
    func appendixA1() throws {
        let header = try #require(Base64URL.decode("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"))
        let payload = try #require(
            Base64URL.decode("eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"))
        let key = try #require(
            Base64URL.decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"))
        let jws = try FlattenedJWS(
            JWS.flattened(header: header, payload: payload) {
                Array(HMAC<SHA256>.authenticationCode(for: Data($0), using: SymmetricKey(data: key)))
            })
        #expect(jws.protected == "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9")
        #expect(jws.signature == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    }

    @Test("the signature of RFC 7515's appendix A.3 is valid, another is not, and ours have the same form")
    func appendixA3() throws {
        let key = try exampleKey()
        let input = Array(
            ("eyJhbGciOiJFUzI1NiJ9."
                + "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ").utf8)
        var signature = try #require(
            Base64URL.decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"))
        #expect(key.isValidSignature(signature, for: input))
        signature[0] ^= 1
        #expect(!key.isValidSignature(signature, for: input))
        let ours = try key.signature(for: input)
        #expect(ours.count == 64)
        #expect(key.isValidSignature(ours, for: input))
    }

    /// The thumbprint was computed with Python's hashlib.
    @Test("JWK of a P-256 key and its thumbprint")
    func thumbprint() throws {
        let key = try exampleKey()
        #expect(
            key.jwk
                == #"{"crv":"P-256","kty":"EC","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#
        )
        #expect(key.thumbprint == "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U")
    }

    @Test("RFC 7638's own example: SHA-256 of its canonical RSA key")
    func rfc7638() {
        let canonical =
            #"{"e":"AQAB","kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}"#
        #expect(KeyAuthorization.dnsValue(canonical) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs")
    }

    /// Computed with Python's hashlib and hmac.
    @Test("key authorization, TXT value, acmeIdentifier digest")
    func keyAuthorization() throws {
        let text = KeyAuthorization.text(token: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", thumbprint: try exampleKey().thumbprint)
        #expect(text == "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U")
        #expect(KeyAuthorization.dnsValue(text) == "ZaJgFtIV4WA0t2MzN7kbSk0sfRd2GZjaxRqaSTAK6lI")
        let digest = KeyAuthorization.tlsALPNDigest(text).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        #expect(digest == "65a26016d215e16034b7633337b91b4a4d2c7d17761998dac51a9a49300aea52")
    }

    /// Computed with Python's hmac.
    @Test("an external account binding signs the account's key with HS256, and needs a key that is base64url")
    func externalAccount() throws {
        let secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
        let account = try #require(ExternalAccount(keyID: "kid-1", hmacKey: secret))
        let jws = try FlattenedJWS(account.binding(for: try exampleKey(), url: "https://example.com/acme/new-account"))
        #expect(jws.header == #"{"alg":"HS256","kid":"kid-1","url":"https://example.com/acme/new-account"}"#)
        #expect(jws.content == (try exampleKey().jwk))
        #expect(jws.signature == "GZqEucEBczfV8tJQLfKNSw1kZrQxhK205o1r00CLMD8")
        #expect(ExternalAccount(keyID: "kid-1", hmacKey: "Zg==") != nil)
        #expect(ExternalAccount(keyID: "kid-1", hmacKey: "not base64") == nil)
        #expect(ExternalAccount(keyID: "kid-1", hmacKey: "") == nil)
        #expect(ExternalAccount(keyID: "", hmacKey: secret) == nil)
    }

    @Test("the header has the key or the account's URL, never both; texts in it cannot leave their strings")
    func header() throws {
        let key = try exampleKey()
        let byKey = try FlattenedJWS(JWS.sign(Array("{}".utf8), url: "https://ca/a", nonce: "n", key: key, as: .jwk))
        #expect(byKey.header == #"{"alg":"ES256","jwk":\#(key.jwk),"nonce":"n","url":"https://ca/a"}"#)
        #expect(byKey.content == "{}")
        #expect(key.isValidSignature(byKey.signatureBytes, for: byKey.signingInput))
        let read = try FlattenedJWS(JWS.sign(nil, url: "https://ca/b", nonce: "n", key: key, as: .kid("https://ca/acct/1")))
        #expect(read.header == #"{"alg":"ES256","kid":"https://ca/acct/1","nonce":"n","url":"https://ca/b"}"#)
        #expect(read.payload == "")
        let hostile = try FlattenedJWS(JWS.sign(nil, url: "u", nonce: nil, key: key, as: .kid("a\",\"x\\\n")))
        #expect(hostile.header == #"{"alg":"ES256","kid":"a\",\"x\\\u000a","url":"u"}"#)
    }

    @Test("a key comes back from its file, in PKCS #8 and in SEC 1")
    func keyFile() throws {
        let key = try exampleKey()
        #expect(ACMEKey(pem: key.pemForFile())?.thumbprint == key.thumbprint)
        // openssl ec -in key.pem, of the same key.
        let sec1 = """
            -----BEGIN EC PRIVATE KEY-----
            MHcCAQEEII6bEJ5xkJi/mASH3x9dd+nLKWBuvtImO19XwhPfhPSyoAoGCCqGSM49
            AwEHoUQDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEXH8UTNG72b
            focs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
            -----END EC PRIVATE KEY-----
            """
        #expect(ACMEKey(pem: sec1)?.thumbprint == key.thumbprint)
        #expect(ACMEKey(pem: "nothing") == nil)
    }
}
