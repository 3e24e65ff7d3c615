import Inet
import Noise
import TestSupport
import Testing

@Suite struct X25519Tests {
    @Test(
        "the known products of RFC 7748 §5.2",
        arguments: [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"
            ),
        ])
    func knownProducts(scalar: String, point: String, product: String) throws {
        let scalar = try PrivateKey.make(#require([UInt8](hex: scalar)))
        let point = try PublicKey(#require([UInt8](hex: point)))
        #expect([UInt8](try scalar.staticStatic(with: point)).hex == product)
    }

    @Test("a thousand rounds of RFC 7748 §5.2")
    func iterated() throws {
        var k = [UInt8](repeating: 0, count: 32)
        k[0] = 9
        var u = k
        for round in 1...1_000 {
            let product = [UInt8](try PrivateKey.make(k).staticStatic(with: PublicKey(u)))
            (k, u) = (product, k)
            if round == 1 { #expect(k.hex == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079") }
        }
        #expect(k.hex == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
    }

    @Test("Alice and Bob of RFC 7748 §6.1 agree")
    func agreement() throws {
        let alice = try PrivateKey.make(#require([UInt8](hex: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")))
        let bob = try PrivateKey.make(#require([UInt8](hex: "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")))
        #expect([UInt8](alice.publicKey).hex == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        #expect([UInt8](bob.publicKey).hex == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
        let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
        #expect([UInt8](try alice.staticStatic(with: bob.publicKey)).hex == shared)
        #expect([UInt8](try bob.staticStatic(with: alice.publicKey)).hex == shared)
    }

    @Test("points of low order are refused in every encoding", arguments: lowOrderPoints)
    func lowOrder(point: String) throws {
        let key = PrivateKey.generate(using: .seeded(7))
        var bytes = try #require([UInt8](hex: point))
        for _ in 0..<2 {
            let remote = try PublicKey(bytes)
            #expect(failure { () throws(HandshakeError) in try key.staticStatic(with: remote) } == .lowOrderPoint)
            // RFC 7748 §5: the top bit is ignored.
            bytes[31] ^= 0x80
        }
    }

    /// 0, 1, the two of order 8, and p-1, p, p+1: https://cr.yp.to/ecdh.html#validate
    static let lowOrderPoints = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]
}
