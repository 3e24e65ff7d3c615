import Inet
import Noise
import TestSupport
import Testing

/// The `primitives` of `vectors/wireguard.json`; the padded lengths are the transport's.
@Suite struct PrimitiveVectorTests {
    let root: JSONValue
    var primitives: JSONValue { root["primitives"] }

    init() throws { root = try VectorFile("wireguard").root }

    @Test("every member of the file is known")
    func members() throws {
        #expect(try root.keys == ["generator", "protocol", "identifier", "note", "primitives", "replay_window", "handshakes"])
        #expect(
            try primitives.keys == [
                "initial_chaining_key", "initial_hash", "hmac_blake2s", "kdf", "mac_blake2s_128", "hchacha20", "xchacha20poly1305",
                "tai64n", "padding",
            ])
    }

    @Test("a handshake starts from the names of protocol and prologue")
    func initialState() throws {
        #expect(try root["protocol"].string == NoiseProtocol.wireGuard.name)
        #expect(try root["identifier"].string == HandshakeState.identifier)
        let state = SymmetricState.wireGuard()
        #expect(try state.withChainingKey { [UInt8]($0) } == primitives["initial_chaining_key"].hex)
        #expect(try [UInt8](state.hash) == primitives["initial_hash"].hex)
    }

    @Test("HMAC-BLAKE2s")
    func hmac() throws {
        var derivation = KeyDerivation()
        for vector in try primitives["hmac_blake2s"].array {
            #expect(try vector.keys == ["key", "data", "hmac"])
            var output = [UInt8](repeating: 0, count: 32)
            let (key, data) = (try vector["key"].hex, try vector["data"].hex)
            do {
                var span = output.mutableSpan
                var bytes = span.mutableBytes
                derivation.hmac(key: key.span.bytes, data: data.span.bytes, into: &bytes, at: 0)
            }
            #expect(try output == vector["hmac"].hex)
        }
    }

    @Test("KDF1, KDF2, KDF3")
    func kdf() throws {
        var derivation = KeyDerivation()
        for vector in try primitives["kdf"].array {
            #expect(try vector.keys == ["note", "key", "input", "t1", "t2", "t3"])
            let (key, input) = (try vector["key"].hex, try vector["input"].hex)
            let expected = try vector["t1"].hex + vector["t2"].hex + vector["t3"].hex
            for count in 1...3 {
                var output = SecretBytes(count: 96)
                derivation.extract(key: key.span.bytes, input: input.span.bytes)
                derivation.expand(count, into: &output)
                #expect([UInt8](output) == Array(expected.prefix(32 * count)) + [UInt8](repeating: 0, count: 96 - 32 * count))
            }
        }
    }

    @Test("keyed BLAKE2s-128, with keys of 16 and of 32 bytes")
    func mac() throws {
        for vector in try primitives["mac_blake2s_128"].array {
            #expect(try vector.keys == ["key", "data", "mac"])
            let (key, data) = (try vector["key"].hex, try vector["data"].hex)
            let mac = KeyedMAC(key: key.span.bytes)
            // Twice: the first must not have changed the template.
            for _ in 0..<2 { #expect(try [UInt8](mac.mac(over: data.span.bytes)) == vector["mac"].hex) }
        }
    }

    @Test("HChaCha20")
    func hChaCha20() throws {
        for vector in try primitives["hchacha20"].array {
            #expect(try vector.keys == ["key", "nonce", "subkey"])
            let (key, nonce) = (try vector["key"].hex, try vector["nonce"].hex)
            #expect(try [UInt8](XChaChaPoly.hChaCha20(key: key.span.bytes, nonce: nonce.span.bytes)) == vector["subkey"].hex)
        }
    }

    @Test("XChaCha20-Poly1305")
    func xChaChaPoly() throws {
        for vector in try primitives["xchacha20poly1305"].array {
            #expect(try vector.keys == ["key", "nonce", "ad", "plaintext", "ciphertext"])
            let (key, nonce, additionalData) = (try vector["key"].hex, try vector["nonce"].hex, try vector["ad"].hex)
            let text = try vector["plaintext"].hex
            var buffer = text + [UInt8](repeating: 0, count: 16)
            do {
                var span = buffer.mutableSpan
                var bytes = span.mutableBytes
                XChaChaPoly.seal(
                    &bytes, plaintext: 0..<text.count, nonce: nonce.span.bytes, key: key.span.bytes,
                    additionalData: additionalData.span.bytes)
            }
            #expect(try buffer == vector["ciphertext"].hex)
            do {
                let count = buffer.count
                var span = buffer.mutableSpan
                var bytes = span.mutableBytes
                let opened = XChaChaPoly.open(
                    &bytes, ciphertext: 0..<count, nonce: nonce.span.bytes, key: key.span.bytes,
                    additionalData: additionalData.span.bytes)
                #expect(opened == true)
            }
            #expect(Array(buffer.prefix(text.count)) == text)
        }
    }

    @Test("TAI64N labels, to the nanosecond and as they are sent")
    func tai64n() throws {
        for vector in try primitives["tai64n"].array {
            #expect(try vector.keys == ["unix_seconds", "nanoseconds", "label"])
            let time = WallTime(seconds: try vector["unix_seconds"].integer, nanoseconds: try vector["nanoseconds"].uint32)
            let expected = try vector["label"].hex
            #expect([UInt8](TAI64N(exactly: time)) == expected)
            // 2^24 ns is one step of the second highest of the four bytes.
            #expect([UInt8](TAI64N(time)) == Array(expected.prefix(9)) + [0, 0, 0])
            #expect(try TAI64N(expected).wallTime == time)
        }
    }
}
