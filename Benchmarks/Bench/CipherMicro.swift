import BenchShim
import Crypto
import FoundationEssentials
import Inet
import Noise

/// The libraries that could seal and open transport data, side by side.
enum CipherMicro {
    static func run() {
        for cipher in TransportCipher.allCases where cipher != .libsodium && cipher.isAvailable { provider(cipher) }
        swiftCrypto()
    }

    private static func provider(_ cipher: TransportCipher) {
        let key = [UInt8](repeating: 1, count: 32)
        var keys = TransportKeys(initiatorToResponder: key.span.bytes, responderToInitiator: key.span.bytes, isInitiator: true)
        keys.use(cipher)
        var packet = [UInt8](repeating: 7, count: Micro.size + 16)
        var (sealing, opening) = (Cost(), Cost())
        var isGood = true
        for _ in 0..<Micro.rounds {
            var (seal, open) = (Cost(), Cost())
            var span = packet.mutableSpan
            var bytes = span.mutableBytes
            seal.measure {
                for counter in 0..<count { keys.seal(&bytes, plaintext: 0..<Micro.size, counter: counter) }
                return Int(count)
            }
            keys.seal(&bytes, plaintext: 0..<Micro.size, counter: 7)
            let sealed = packet
            span = packet.mutableSpan
            bytes = span.mutableBytes
            open.measure {
                for _ in 0..<count {
                    bytes.copy(sealed.span.bytes, at: 0)
                    isGood = keys.open(&bytes, ciphertext: 0..<Micro.size + 16, counter: 7) && isGood
                }
                return Int(count)
            }
            sealing = sealing.better(seal)
            opening = opening.better(open)
        }
        report(cipher.rawValue, sealing, opening, isGood)
    }

    /// BoringSSL by swift-crypto's public interface, which gives new memory for each packet.
    private static func swiftCrypto() {
        let key = SymmetricKey(data: [UInt8](repeating: 1, count: 32))
        let text = [UInt8](repeating: 7, count: Micro.size)
        guard let nonce = try? Crypto.ChaChaPoly.Nonce(data: [UInt8](repeating: 0, count: 12)),
            let box = try? Crypto.ChaChaPoly.seal(text, using: key, nonce: nonce)
        else { return print("swift-crypto does not seal") }
        var (sealing, opening) = (Cost(), Cost())
        var isGood = true
        for _ in 0..<Micro.rounds {
            var (seal, open) = (Cost(), Cost())
            seal.measure {
                for _ in 0..<count { isGood = (try? Crypto.ChaChaPoly.seal(text, using: key, nonce: nonce)) != nil && isGood }
                return Int(count)
            }
            open.measure {
                for _ in 0..<count { isGood = (try? Crypto.ChaChaPoly.open(box, using: key)) != nil && isGood }
                return Int(count)
            }
            sealing = sealing.better(seal)
            opening = opening.better(open)
        }
        report("swift-crypto", sealing, opening, isGood)
    }

    private static func report(_ name: String, _ sealing: Cost, _ opening: Cost, _ isGood: Bool) {
        guard isGood else { return print("\(name) does not open what it has sealed") }
        sealing.report("seal-1420-\(name)", "a packet")
        opening.report("open-1420-\(name)", "a packet")
    }

    private static let count: UInt64 = 5000
}
