import Inet
import Noise
import TestSupport
import Testing

@Suite struct SymmetricStateTests {
    @Test("a copy goes its own way")
    func copies() {
        var state = SymmetricState.wireGuard()
        state.mixKey(SecretBytes([1, 2, 3]))
        let copy = state.copy()
        #expect(key(copy) == key(state) && chainingKey(copy) == chainingKey(state) && copy.hash == state.hash)
        state.mixKey(SecretBytes([4]))
        state.mixHash(([5] as [UInt8]).span.bytes)
        #expect(key(copy) != key(state) && chainingKey(copy) != chainingKey(state) && copy.hash != state.hash)
    }

    @Test("two messages under one key have two nonces, a new key starts again")
    func nonces() throws {
        var state = SymmetricState.wireGuard()
        state.mixKey(SecretBytes([1]))
        var reader = state.copy()
        for round in 0..<4 {
            if round == 2 {
                state.mixKey(SecretBytes([2]))
                reader.mixKey(SecretBytes([2]))
            }
            var buffer = [UInt8](repeating: 0, count: 8 + 16)
            do {
                var span = buffer.mutableSpan
                var bytes = span.mutableBytes
                state.encryptAndHash(&bytes, plaintext: 0..<8)
            }
            var own = SecretBytes(buffer)
            try reader.decryptAndHash(&own)
            #expect([UInt8](own).prefix(8).allSatisfy { $0 == 0 })
            #expect(reader.hash == state.hash)
        }
    }

    @Test("nothing is left of intermediate keys")
    func wiped() {
        var state = SymmetricState.wireGuard()
        state.mixKeyAndHash(SecretBytes([1, 2, 3]))
        #expect(state.withSpare { [UInt8]($0) } == [UInt8](repeating: 0, count: 32))
        var derivation = KeyDerivation()
        var output = SecretBytes(count: 96)
        derivation.extract(key: ([1] as [UInt8]).span.bytes, input: ([2] as [UInt8]).span.bytes)
        derivation.expand(3, into: &output)
        #expect(derivation.withWork { [UInt8]($0) }.allSatisfy { $0 == 0 })
        #expect([UInt8](output).contains { $0 != 0 })
        var plain = [UInt8](repeating: 0, count: 32)
        var span = plain.mutableSpan
        var bytes = span.mutableBytes
        derivation.hmac(key: ([1] as [UInt8]).span.bytes, data: ([2] as [UInt8]).span.bytes, into: &bytes, at: 0)
        #expect(derivation.withWork { [UInt8]($0) }.allSatisfy { $0 == 0 })
    }

    private func key(_ state: borrowing SymmetricState) -> [UInt8] { state.withCipherKey { [UInt8]($0) } }

    private func chainingKey(_ state: borrowing SymmetricState) -> [UInt8] { state.withChainingKey { [UInt8]($0) } }
}
