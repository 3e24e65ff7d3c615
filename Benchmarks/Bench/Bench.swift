import BenchShim
import Inet
import Noise
import WGUserspace

/// What `scripts/bench micro` and `scripts/bench --only flood-…` run. Prints one line a figure: NAME VALUE UNIT [BASELINE].
@main enum Bench {
    static func main() {
        let arguments = CommandLine.arguments
        switch arguments.dropFirst().first {
        case "micro": Micro.run()
        case "flood" where arguments.count >= 7: flood(Array(arguments[2...]))
        default: print("usage: bench micro | bench flood (junk|valid) PUBLIC-KEY ADDRESS PORT A-SECOND SECONDS")
        }
    }

    /// Initiations: junk ones with a wrong mac1, from one address; or with a right one, from 4,000 addresses of 127.0.0.0/8. At most 30 s.
    private static func flood(_ arguments: [String]) {
        guard arguments.count >= 6, let key = PublicKey(base64: arguments[1]), let port = UInt16(arguments[3]),
            let rate = UInt64(arguments[4]), let seconds = Double(arguments[5]), arguments[2].hasPrefix("127.")
        else { return print("flood: only to a loopback address, with a key, a port, a rate and seconds") }
        let isValid = arguments[0] == "valid"
        let (count, size) = (4096, HandshakeMessage.initiationByteCount)
        var messages = [UInt8](repeating: 0, count: count * size)
        let keys = MACKeys(publicKey: key)
        let random = RandomSource.seeded(bench_nanoseconds())
        var span = messages.mutableSpan
        var bytes = span.mutableBytes
        for number in 0..<count {
            var message = bytes._mutatingExtracting(number * size..<(number + 1) * size)
            random.fill(&message)
            message.storeLittleEndian(UInt32(1), at: 0)
            if isValid { keys.writeMAC1(into: &message, byteCount: size) }
        }
        let sent = messages.withUnsafeBufferPointer {
            bench_flood(
                arguments[2], port, $0.baseAddress, CInt(count), CInt(size), rate, min(seconds, 30), isValid ? 4000 : 0,
                isValid ? 66 : 0)
        }
        print("sent \(sent)")
    }
}
