import BenchShim
import Inet
import Noise
import WGUserspace

/// Costs of single operations on one core, each the best of some rounds, beside the bare C calls of the same run.
enum Micro {
    static let size = 1420

    static func run() {
        Sodium.initialize()
        let keys = TransportKeys(
            initiatorToResponder: [UInt8](repeating: 1, count: 32).span.bytes,
            responderToInitiator: [UInt8](repeating: 1, count: 32).span.bytes,
            isInitiator: true)
        sealing(keys)
        opening(keys)
        CipherMicro.run()
        packets()
        SegmentMicro.run()
        InterfaceMicro.run()
        UDPMicro.run()
        lookUps()
        HeaderMicro.run()
        handshakes()
    }

    /// What this machine allows: one core's seal rate, and its fastest X25519.
    static func limits() {
        Sodium.initialize()
        var buffer = [UInt8](repeating: 7, count: size + 16)
        let seal =
            (0..<turns).map { _ in
                Double(buffer.withUnsafeMutableBufferPointer { bench_seal($0.baseAddress, size, calls) }) / Double(calls)
            }.min() ?? .infinity
        report("aead", Double(size) / seal * 1000, "MB/s", nil)
        report("x25519", best { min(Double(bench_x25519_sodium(200)), Double(bench_x25519_crypto(200))) / 200 }, "ns", nil)
    }

    /// Swift and C take turns on the same bytes, so that neither their place nor the machine's mood makes a difference.
    private static func sealing(_ keys: borrowing TransportKeys) {
        var buffer = [UInt8](repeating: 7, count: size + 16)
        var allocations: UInt64 = 0
        var (swift, c) = (Double.infinity, Double.infinity)
        for _ in 0..<turns {
            c = min(c, Double(buffer.withUnsafeMutableBufferPointer { bench_seal($0.baseAddress, size, calls) }) / Double(calls))
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            let (before, start) = (bench_allocations(), bench_nanoseconds())
            for counter in 0..<UInt64(calls) { keys.seal(&bytes, plaintext: 0..<size, counter: counter) }
            swift = min(swift, Double(bench_nanoseconds() - start) / Double(calls))
            allocations += bench_allocations() - before
        }
        report("seal-1420", swift, "ns", c)
        report("seal-1420-allocations", Double(allocations) / Double(turns * Int(calls)), "a packet", nil)
    }

    private static func opening(_ keys: borrowing TransportKeys) {
        var sealed = [UInt8](repeating: 7, count: size + 16)
        do {
            var span = sealed.mutableSpan
            var bytes = span.mutableBytes
            keys.seal(&bytes, plaintext: 0..<size, counter: 7)
        }
        var (work, other) = (sealed, sealed)
        var allocations: UInt64 = 0
        var (swift, c) = (Double.infinity, Double.infinity)
        var isGood = true
        for _ in 0..<turns {
            let spent = work.withUnsafeMutableBufferPointer { work in
                other.withUnsafeMutableBufferPointer { bench_open(work.baseAddress, $0.baseAddress, size, calls) }
            }
            isGood = isGood && spent > 0
            c = min(c, Double(spent) / Double(calls))
            var span = work.mutableSpan
            var bytes = span.mutableBytes
            let (before, start) = (bench_allocations(), bench_nanoseconds())
            for _ in 0..<calls {
                bytes.copy(sealed.span.bytes, at: 0)
                isGood = keys.open(&bytes, ciphertext: 0..<size + 16, counter: 7) && isGood
            }
            swift = min(swift, Double(bench_nanoseconds() - start) / Double(calls))
            allocations += bench_allocations() - before
        }
        guard isGood else { return print("an open failed") }
        report("open-1420", swift, "ns", c)
        report("open-1420-allocations", Double(allocations) / Double(turns * Int(calls)), "a packet", nil)
    }

    /// A packet through a device out, and through another in; with acknowledgements on the way the peers would have timers, so both send.
    private static func packets() {
        let pair = DevicePair()
        guard pair.connect() else { return print("devices do not connect") }
        let count = 10_000
        var datagrams = [[UInt8]](repeating: [UInt8](repeating: 0, count: 16 + 1424 + 16), count: count)
        var (out, into) = (Double.infinity, Double.infinity)
        var (outAllocations, inAllocations): (UInt64, UInt64) = (0, 0)
        for _ in 0..<rounds {
            for index in datagrams.indices { pair.write(into: &datagrams[index]) }
            var (before, start) = (bench_allocations(), bench_nanoseconds())
            for index in datagrams.indices { pair.send(&datagrams[index]) }
            out = min(out, Double(bench_nanoseconds() - start) / Double(count))
            outAllocations = bench_allocations() - before
            (before, start) = (bench_allocations(), bench_nanoseconds())
            for index in datagrams.indices { pair.receive(&datagrams[index]) }
            into = min(into, Double(bench_nanoseconds() - start) / Double(count))
            inAllocations = bench_allocations() - before
        }
        guard pair.received == count * rounds else { return print("only \(pair.received) packets came through") }
        report("device-out-1420", out, "ns", nil)
        report("device-out-allocations", Double(outAllocations) / Double(count), "a packet", nil)
        report("device-in-1420", into, "ns", nil)
        report("device-in-allocations", Double(inAllocations) / Double(count), "a packet", nil)
        var junk = [UInt8](repeating: 9, count: 148)
        junk.replaceSubrange(0..<4, with: [1, 0, 0, 0])
        let reject = best { pair.timeOf(10_000) { pair.receive(&junk) } }
        report("mac1-reject", reject, "ns", nil)
    }

    private static func lookUps() {
        for count in [10, 10_000] {
            var routes = AllowedIPs()
            var indices = IndexTable()
            let random = RandomSource.seeded(5)
            var drawn: [UInt32] = []
            for peer in 0..<count {
                _ = routes.insert(
                    IPPrefix(host: IPAddress(v4: 10, UInt8(peer >> 16), UInt8(truncatingIfNeeded: peer >> 8), UInt8(peer & 255))),
                    peer: peer)
                drawn.append(indices.draw(for: peer, random: random))
            }
            let addresses = (0..<4096).map { _ -> IPAddress in
                let peer = Int(random.next(below: UInt64(count)))
                return IPAddress(v4: 10, UInt8(peer >> 16), UInt8(truncatingIfNeeded: peer >> 8), UInt8(peer & 255))
            }
            let numbers = (0..<4096).map { _ in drawn[Int(random.next(below: UInt64(count)))] }
            var found = 0
            var (route, index) = (Cost(), Cost())
            for _ in 0..<rounds {
                var (routeTurn, indexTurn) = (Cost(), Cost())
                routeTurn.measure {
                    for _ in 0..<20 { for address in addresses where routes.lookup(address) != nil { found += 1 } }
                    return 20 * 4096
                }
                indexTurn.measure {
                    for _ in 0..<20 { for number in numbers where indices.peer(of: number) != nil { found += 1 } }
                    return 20 * 4096
                }
                (route, index) = (route.better(routeTurn), index.better(indexTurn))
            }
            guard found == 2 * rounds * 20 * 4096 else { return print("a look-up failed") }
            route.report("route-lookup-\(count)", "a look-up")
            index.report("index-lookup-\(count)", "a look-up")
        }
    }

    private static func handshakes() {
        let sodium = best { Double(bench_x25519_sodium(500)) / 500 }
        let crypto = best { Double(bench_x25519_crypto(500)) / 500 }
        report("x25519-libsodium", sodium, "ns", nil)
        report("x25519-libcrypto", crypto, "ns", nil)
        let bound = 1e9 / (4 * min(sodium, crypto))
        let random = RandomSource.seeded(1)
        let initiatorKey = PrivateKey.generate(using: random)
        let responderKey = PrivateKey.generate(using: random)
        let initiatorPublic = initiatorKey.publicKey
        let responderPublic = responderKey.publicKey
        guard let shared = try? initiatorKey.staticStatic(with: responderPublic) else { return }
        var initiation = [UInt8](repeating: 0, count: 148)
        var response = [UInt8](repeating: 0, count: 92)
        var (initiating, responding) = (Double.infinity, Double.infinity)
        for _ in 0..<rounds {
            var (mine, theirs): (UInt64, UInt64) = (0, 0)
            for number in 0..<300 {
                var start = bench_nanoseconds()
                var first = initiation.mutableSpan
                var firstBytes = first.mutableBytes
                guard
                    let handshake = try? InitiatorHandshake.initiate(
                        into: &firstBytes, staticPublic: initiatorPublic, remote: responderPublic, precomputedStaticStatic: shared,
                        senderIndex: UInt32(number), timestamp: TAI64N(WallTime(seconds: UInt64(number))), random: random)
                else { return print("no initiation") }
                mine += bench_nanoseconds() - start
                start = bench_nanoseconds()
                guard
                    var answer = try? ResponderHandshake.receive(
                        initiation: firstBytes.bytes, staticKey: responderKey, staticPublic: responderPublic),
                    (try? answer.openTimestamp(precomputedStaticStatic: shared)) != nil
                else { return print("no answer") }
                var second = response.mutableSpan
                var secondBytes = second.mutableBytes
                guard (try? answer.respond(into: &secondBytes, responderIndex: 1, presharedKey: .zero(), random: random)) != nil else {
                    return print("no response")
                }
                theirs += bench_nanoseconds() - start
                start = bench_nanoseconds()
                guard (try? handshake.finish(response: secondBytes.bytes, staticKey: initiatorKey, presharedKey: .zero())) != nil else {
                    return print("no keys")
                }
                mine += bench_nanoseconds() - start
            }
            initiating = min(initiating, Double(mine) / 300)
            responding = min(responding, Double(theirs) / 300)
        }
        report("handshakes-initiator", 1e9 / initiating, "a second", bound)
        report("handshakes-responder", 1e9 / responding, "a second", bound)
    }

    static let rounds = 5
    private static let turns = 20
    /// Of seal or open, in a turn: some milliseconds.
    private static let calls: CInt = 5_000

    private static func best(_ body: () -> Double) -> Double { (0..<rounds).map { _ in body() }.min() ?? 0 }

    static func report(_ name: String, _ value: Double, _ unit: String, _ baseline: Double?) {
        let shown = (value * 1000).rounded() / 1000
        print(
            "\(name) \(shown) \(unit)"
                + (baseline.map { " baseline \(($0 * 1000).rounded() / 1000) ratio \((value / $0 * 1000).rounded() / 1000)" } ?? ""))
    }
}

/// Two devices that are joined by hand.
final class DevicePair {
    private var near: Device
    private var far: Device
    private(set) var received = 0
    private let nearAt = SocketEndpoint(IPAddress(v4: 192, 0, 2, 1), port: 1)
    private let farAt = SocketEndpoint(IPAddress(v4: 192, 0, 2, 2), port: 1)
    private let now = Instant(nanoseconds: 1_000_000_000_000)
    private let wallTime = WallTime(seconds: 1_700_000_000)
    private let packet: [UInt8]

    init() {
        var packet = [UInt8](repeating: 3, count: Micro.size)
        do {
            var span = packet.mutableSpan
            var bytes = span.mutableBytes
            IPHeader.write(
                into: &bytes, source: IPAddress(v4: 10, 0, 0, 1), destination: IPAddress(v4: 10, 0, 0, 2), upperProtocol: .udp,
                payloadLength: Micro.size - 20)
        }
        self.packet = packet
        let random = RandomSource.seeded(2)
        near = Device(privateKey: .generate(using: random), configuration: DeviceConfiguration(), random: random)
        far = Device(privateKey: .generate(using: random), configuration: DeviceConfiguration(), random: random)
        let (nearKey, farKey) = (near.publicKey, far.publicKey)
        near.setPeer(
            PeerConfiguration(publicKey: farKey, endpoint: farAt, allowedIPs: [IPPrefix(host: IPAddress(v4: 10, 0, 0, 2))]), now: now)
        far.setPeer(
            PeerConfiguration(publicKey: nearKey, endpoint: nearAt, allowedIPs: [IPPrefix(host: IPAddress(v4: 10, 0, 0, 1))]), now: now)
    }

    func connect() -> Bool {
        guard let peer = near.peerIDs.first else { return false }
        near.initiateHandshake(with: peer, now: now)
        for _ in 0..<2 {
            while var message = poll(&near) { give(&message, &far, from: nearAt) }
            while var message = poll(&far) { give(&message, &near, from: farAt) }
        }
        return near.status(of: peer, now: now)?.hasSession ?? false
    }

    func write(into datagram: inout [UInt8]) {
        let packet = packet
        var span = datagram.mutableSpan
        var bytes = span.mutableBytes
        bytes.copy(packet.span.bytes, at: 16)
    }

    func send(_ datagram: inout [UInt8]) {
        var span = datagram.mutableSpan
        var bytes = span.mutableBytes
        _ = near.send(16..<16 + Micro.size, in: &bytes, now: now)
    }

    func receive(_ datagram: inout [UInt8]) {
        // Sealed without padding: 1,420 is the MTU.
        let length = datagram.count == 148 ? 148 : 16 + Micro.size + 16
        var span = datagram.mutableSpan
        var bytes = span.mutableBytes
        var message = bytes._mutatingExtracting(0..<length)
        if case .packet = far.receive(&message, from: nearAt, now: now, wallTime: wallTime) { received += 1 }
    }

    func timeOf(_ count: Int, _ body: () -> Void) -> Double {
        let start = bench_nanoseconds()
        for _ in 0..<count { body() }
        return Double(bench_nanoseconds() - start) / Double(count)
    }

    private func poll(_ device: inout Device) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 2048)
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        return device.pollTransmit(into: &bytes, at: 0, now: now, wallTime: wallTime).map { Array(buffer[$0.range]) }
    }

    private func give(_ message: inout [UInt8], _ device: inout Device, from source: SocketEndpoint) {
        var span = message.mutableSpan
        var bytes = span.mutableBytes
        if case .queued = device.receive(&bytes, from: source, now: now, wallTime: wallTime) {
            device.handleQueuedHandshake(now: now, wallTime: wallTime)
        }
    }
}
