import Inet
import Noise
import TestSupport
import Testing

@Suite struct KeysTests {
    @Test("base64 goes both ways")
    func base64() throws {
        let random = RandomSource.seeded(3)
        for _ in 0..<50 {
            let key = PrivateKey.generate(using: random)
            let text = key.base64ForFile()
            #expect(text.utf8.count == 44 && text.hasSuffix("="))
            guard let again = PrivateKey(base64: text) else { throw NotAKey() }
            #expect(again.isEqual(to: key) && again.publicKey == key.publicKey)
            #expect(PublicKey(base64: key.publicKey.base64) == key.publicKey)
            #expect(key.publicKey.description == key.publicKey.base64)
            let preshared = PresharedKey.generate(using: random)
            guard let copy = PresharedKey(base64: preshared.base64ForFile()) else { throw NotAKey() }
            #expect(copy.isEqual(to: preshared) && !copy.isZero)
        }
    }

    @Test(
        "anything but 44 canonical characters is no key",
        arguments: [
            "", "A", String(repeating: "A", count: 43), String(repeating: "A", count: 44), String(repeating: "A", count: 45),
            String(repeating: "A", count: 42) + "==", String(repeating: "A", count: 42) + "B=",
            " " + String(repeating: "A", count: 42) + "=",
            String(repeating: "A", count: 43) + "=\n", String(repeating: "-", count: 43) + "=",
            String(repeating: "A", count: 20) + "="
                + String(repeating: "A", count: 23), String(repeating: "é", count: 22), String(repeating: "A", count: 42) + "\u{0}=",
            String(repeating: "=", count: 44), String(repeating: "A", count: 63) + "=",
        ])
    func notBase64(text: String) {
        #expect(PublicKey(base64: text) == nil)
        if PrivateKey(base64: text) != nil { Issue.record("a private key of \(text)") }
        if PresharedKey(base64: text) != nil { Issue.record("a pre-shared key of \(text)") }
    }

    @Test("a key has 32 bytes")
    func lengths() {
        for count in [0, 31, 33] {
            let bytes = [UInt8](repeating: 1, count: count)
            #expect(PublicKey(bytes.span.bytes) == nil)
            if PrivateKey(bytes.span.bytes) != nil { Issue.record("a private key of \(count) bytes") }
            if PresharedKey(bytes.span.bytes) != nil { Issue.record("a pre-shared key of \(count) bytes") }
        }
    }

    @Test("a generated key is clamped, a given one stays as it is and is clamped on use")
    func clamping() throws {
        let generated = PrivateKey.generate(using: .giving([UInt8](repeating: 0xFF, count: 32)))
        let given = try PrivateKey.make([UInt8](repeating: 0xFF, count: 32))
        let clamped: [UInt8] = [0xF8] + [UInt8](repeating: 0xFF, count: 30) + [0x7F]
        #expect(generated.isEqual(to: try PrivateKey.make(clamped)) == true)
        #expect(!generated.isEqual(to: given) && generated.publicKey == given.publicKey)
        #expect(given.copy().isEqual(to: given) == true)
    }

    @Test("public keys are told apart by every byte")
    func equality() throws {
        let bytes = (0..<32).map { UInt8($0) }
        let key = try PublicKey(bytes)
        #expect(try key == PublicKey(bytes))
        #expect(try key.hashValue == PublicKey(bytes).hashValue)
        for offset in bytes.indices { #expect(try key != PublicKey(bytes.flipping(bit: 0, at: offset))) }
        #expect([UInt8](key) == bytes)
    }

    @Test("no pre-shared key is 32 zero bytes")
    func zeroPresharedKey() throws {
        #expect(PresharedKey.zero().isZero == true)
        #expect(PresharedKey.zero().isEqual(to: try PresharedKey.make([UInt8](repeating: 0, count: 32))) == true)
    }
}
