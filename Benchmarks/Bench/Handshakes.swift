import BenchShim
import Inet
import Noise

/// One initiator after another shakes hands with a responder on a real socket, at a steady rate, so that the responder's CPU time for a
/// handshake can be read from outside, whoever it is. The initiators' keys come from a seed: `bench handshake-peers` prints them.
enum Handshakes {
    /// Public keys, for the responder's configuration.
    static func printPeers(seed: UInt64, count: Int) {
        let random = RandomSource.seeded(seed)
        for _ in 0..<min(count, 100_000) { print(PrivateKey.generate(using: random).publicKey.base64) }
    }

    /// Prints how many handshakes were completed: initiation, response, and a keepalive that confirms the session.
    static func run(seed: UInt64, peers: Int, responder: PublicKey, address: String, port: UInt16, rate: UInt64, count: Int) {
        Sodium.initialize()
        let random = RandomSource.seeded(seed)
        let initiators = (0..<peers).compactMap { _ in Initiator(key: .generate(using: random), responder: responder) }
        let descriptor = bench_udp_connect(address, port)
        guard initiators.count == peers, descriptor >= 0, rate > 0, peers > 0 else { return print("handshakes: no socket, or no keys") }
        let start = bench_nanoseconds()
        var completed = 0
        for number in 0..<count {
            bench_wait_until(start + UInt64(number) * 1_000_000_000 / rate)
            if initiators[number % peers].shakeHands(on: descriptor, index: UInt32(number + 1), random: random) { completed += 1 }
        }
        print("completed \(completed)")
    }

    private final class Initiator {
        private let key: PrivateKey
        private let publicKey: PublicKey
        private let responder: PublicKey
        private let staticStatic: SecretBytes

        init?(key: consuming PrivateKey, responder: PublicKey) {
            guard let shared = try? key.staticStatic(with: responder) else { return nil }
            publicKey = key.publicKey
            self.key = key
            self.responder = responder
            staticStatic = shared
        }

        func shakeHands(on descriptor: CInt, index: UInt32, random: RandomSource) -> Bool {
            var initiation = [UInt8](repeating: 0, count: HandshakeMessage.initiationByteCount)
            var span = initiation.mutableSpan
            var bytes = span.mutableBytes
            let civil = bench_civil_nanoseconds()
            let time = WallTime(seconds: civil / 1_000_000_000, nanoseconds: UInt32(civil % 1_000_000_000))
            guard
                let handshake = try? InitiatorHandshake.initiate(
                    into: &bytes, staticPublic: publicKey, remote: responder, precomputedStaticStatic: staticStatic, senderIndex: index,
                    timestamp: TAI64N(time), random: random),
                bench_udp_send(descriptor, initiation, initiation.count) == 1
            else { return false }
            var response = [UInt8](repeating: 0, count: HandshakeMessage.responseByteCount)
            // What else comes, say a keepalive of an earlier session, is passed over.
            repeat {
                guard bench_udp_receive(descriptor, &response, response.count, 500) >= 0 else { return false }
            } while response[0] != 2 || response.span.bytes.littleEndian32(at: 8) != index
            guard let keys = try? handshake.finish(response: response.span.bytes, staticKey: key, presharedKey: .zero()) else {
                return false
            }
            var keepalive = [UInt8](repeating: 0, count: 32)
            var words = keepalive.mutableSpan
            var message = words.mutableBytes
            message.storeLittleEndian(UInt32(4), at: 0)
            message.storeLittleEndian(response.span.bytes.littleEndian32(at: 4), at: 4)
            keys.seal(&message, plaintext: 16..<16, counter: 0)
            return bench_udp_send(descriptor, keepalive, keepalive.count) == 1
        }
    }
}
