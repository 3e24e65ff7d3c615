import Inet
import Noise
import TestSupport
import Testing

@Suite struct TransportCipherTests {
    @Test("both libraries seal to the same bytes and open each other's, at every length and many counters")
    func agreement() {
        let random = RandomSource.seeded(11)
        for count in [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 512, 1_420, 9_000] {
            let counter = random.nextUInt64()
            let text = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.nextUInt64()) }
            let sealed = TransportCipher.allCases.map { seal(text, counter, keys(.libsodium, isInitiator: true, switchingTo: $0)) }
            #expect(sealed[0] == sealed[1])
            for cipher in TransportCipher.allCases {
                #expect(open(sealed[0], counter, keys(cipher, isInitiator: false)) == text)
                #expect(open(sealed[0], counter ^ 1, keys(cipher, isInitiator: false)) == nil)
            }
        }
    }

    @Test("no bit may change, and what is not authentic leaves no text behind") func forgeries() {
        let sealed = seal([UInt8](repeating: 0x55, count: 40), 7, keys(.libcrypto, isInitiator: true))
        let opening = keys(.libcrypto, isInitiator: false)
        for offset in sealed.indices {
            for bit in 0..<8 {
                var forged = sealed.flipping(bit: bit, at: offset)
                #expect(!open(&forged, 7, opening))
                #expect(!forged.prefix(40).contains(0x55))
            }
        }
        for count in 0..<sealed.count { #expect(open(Array(sealed.prefix(count)), 7, opening) == nil) }
        #expect(open(sealed, 7, opening) == [UInt8](repeating: 0x55, count: 40))
    }

    @Test("one key seals and another opens, whichever library it is", arguments: TransportCipher.allCases)
    func directions(_ cipher: TransportCipher) {
        let initiator = keys(cipher, isInitiator: true)
        let responder = keys(cipher, isInitiator: false)
        let there = seal([1, 2, 3], 1, initiator)
        let back = seal([1, 2, 3], 1, responder)
        #expect(there != back)
        #expect(open(there, 1, responder) == [1, 2, 3] && open(back, 1, initiator) == [1, 2, 3])
        #expect(open(there, 1, initiator) == nil && open(back, 1, responder) == nil)
    }

    private func keys(_ cipher: TransportCipher, isInitiator: Bool, switchingTo last: TransportCipher? = nil) -> TransportKeys {
        var keys = TransportKeys(
            initiatorToResponder: [UInt8](1...32).span.bytes, responderToInitiator: [UInt8](33...64).span.bytes, isInitiator: isInitiator)
        keys.use(cipher)
        if let last { keys.use(last) }
        return keys
    }

    private func seal(_ text: [UInt8], _ counter: UInt64, _ keys: borrowing TransportKeys) -> [UInt8] {
        var buffer = text + [UInt8](repeating: 0xEE, count: 16 + 3)
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        keys.seal(&bytes, plaintext: 0..<text.count, counter: counter)
        #expect(buffer.suffix(3) == [0xEE, 0xEE, 0xEE])
        return Array(buffer.dropLast(3))
    }

    private func open(_ sealed: [UInt8], _ counter: UInt64, _ keys: borrowing TransportKeys) -> [UInt8]? {
        var copy = sealed
        return open(&copy, counter, keys) ? Array(copy.dropLast(16)) : nil
    }

    private func open(_ sealed: inout [UInt8], _ counter: UInt64, _ keys: borrowing TransportKeys) -> Bool {
        var span = sealed.mutableSpan
        var bytes = span.mutableBytes
        let count = bytes.byteCount
        return keys.open(&bytes, ciphertext: 0..<count, counter: counter)
    }
}
