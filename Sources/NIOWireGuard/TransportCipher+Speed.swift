import Inet
import Noise

extension TransportCipher {
    /// What one library takes to seal and open a full packet.
    public struct Speed: Sendable {
        public var cipher: TransportCipher
        public var nanoseconds: Int
    }

    /// Measures each library on this machine, for about two milliseconds.
    /// - Returns: those that are available, the default first.
    public static func speeds() -> [Speed] {
        var keys = TransportKeys.forMeasurement()
        var packet = [UInt8](repeating: 0, count: 1420 + 16)
        return allCases.filter(\.isAvailable).map { cipher in
            keys.use(cipher)
            var best = Int.max
            for round in 0..<rounds {
                let start = SystemEdges.now
                var span = packet.mutableSpan
                var bytes = span.mutableBytes
                for count in 0..<packetsPerRound {
                    let counter = UInt64(round * packetsPerRound + count)
                    keys.seal(&bytes, plaintext: 0..<1420, counter: counter)
                    _ = keys.open(&bytes, ciphertext: 0..<1436, counter: counter)
                }
                best = min(best, Int((SystemEdges.now - start).inNanoseconds) / packetsPerRound)
            }
            return Speed(cipher: cipher, nanoseconds: best)
        }
    }

    /// The one that is clearly faster; the default where they are about equal.
    public static func fastest(of speeds: [Speed]) -> TransportCipher {
        guard let best = speeds.min(by: { $0.nanoseconds < $1.nanoseconds }), let standard = speeds.first else { return .libsodium }
        return best.nanoseconds * 10 < standard.nanoseconds * 9 ? best.cipher : standard.cipher
    }

    private static let rounds = 8
    private static let packetsPerRound = 32
}

extension TransportKeys {
    /// Both directions under one key, so that it opens what it has sealed.
    fileprivate static func forMeasurement() -> TransportKeys {
        let key = [UInt8](repeating: 0, count: 32)
        return TransportKeys(initiatorToResponder: key.span.bytes, responderToInitiator: key.span.bytes, isInitiator: true)
    }
}
