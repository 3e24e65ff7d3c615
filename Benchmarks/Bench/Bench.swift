import BenchShim
import Glibc
import Inet
import Noise
import WGUserspace

/// What `scripts/bench` runs beside the program itself. `micro` prints one line a figure: NAME VALUE UNIT [baseline VALUE ratio VALUE].
@main enum Bench {
    static func main() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        switch (arguments.first, arguments.count) {
        case ("micro", 1): Micro.run()
        case ("limits", 1): Micro.limits()
        case ("stack", 1...2): if !StackMicro.run(only: arguments.dropFirst().first) { usage() }
        case ("goodput", 1): Goodput.table(seeds: 5)
        case ("relay", 6): relay(Array(arguments.dropFirst()))
        case ("flood", 7): flood(Array(arguments[1...]))
        case ("handshake-peers", 3):
            guard let seed = UInt64(arguments[1]), let count = Int(arguments[2]) else { return usage() }
            Handshakes.printPeers(seed: seed, count: count)
        case ("handshakes", 8):
            guard let seed = UInt64(arguments[1]), let peers = Int(arguments[2]), let key = PublicKey(base64: arguments[3]),
                let port = UInt16(arguments[5]), let rate = UInt64(arguments[6]), let count = Int(arguments[7])
            else { return usage() }
            Handshakes.run(seed: seed, peers: peers, responder: key, address: arguments[4], port: port, rate: rate, count: count)
        case ("simulate", 3):
            bench_print_by_line()
            if arguments[1] == "--seconds", let seconds = Double(arguments[2]) { exit(Simulate.run(seconds: seconds)) }
            if arguments[1] == "--seed", let seed = UInt64(arguments[2]) { exit(Simulate.run(seed: seed)) }
            usage()
        case ("serve", 3), ("transfer", 6), ("hold", 4), ("kernel-serve", 3), ("kernel-transfer", 6), ("tls", 7):
            if !Ends.run(arguments) { usage() }
        default: usage()
        }
    }

    private static func usage() {
        print(
            """
            usage: bench micro
                   bench limits
                   bench serve WG-QUICK-FILE PORT
                   bench transfer WG-QUICK-FILE ADDRESS:PORT (down|up) STREAMS BYTES
                   bench hold WG-QUICK-FILE ADDRESS:PORT COUNT
                   bench kernel-serve ADDRESS PORT
                   bench kernel-transfer ADDRESS PORT (down|up) STREAMS BYTES
                   bench tls ADDRESS PORT NAME PATH THREADS SECONDS
                   bench stack [bulk|rr|idle|time-wait|path]
                   bench goodput
                   bench relay PORT TARGET-PORT LOSS MILLISECONDS SECONDS
                   bench simulate (--seconds N | --seed SEED)
                   bench flood (junk|valid) PUBLIC-KEY ADDRESS PORT A-SECOND SECONDS
                   bench handshake-peers SEED COUNT
                   bench handshakes SEED PEERS PUBLIC-KEY ADDRESS PORT A-SECOND COUNT
            """)
    }

    /// A path over loopback, each way so late; the loss is on the way back. At most two minutes.
    private static func relay(_ arguments: [String]) {
        guard let front = UInt16(arguments[0]), let target = UInt16(arguments[1]), let loss = Double(arguments[2]),
            let milliseconds = Double(arguments[3]), let seconds = Double(arguments[4])
        else { return usage() }
        var (passed, lost): (UInt64, UInt64) = (0, 0)
        let isDone = bench_relay(
            front, target, loss, UInt64(milliseconds * 1e6), bench_nanoseconds(), min(seconds, 120), &passed, &lost)
        print(isDone == 0 ? "passed \(passed) lost \(lost)" : "relay: no sockets")
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
