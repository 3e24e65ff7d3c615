import Inet
import Noise
import TestSupport
import Testing
import WGUserspace

/// A device at an address of the outer network, with an inner address of its own.
final class Node {
    var device: Device
    let key: PrivateKey
    var endpoint: SocketEndpoint
    let address: IPAddress
    /// What came out of the tunnel, in order: the numbers that `packet` carries.
    var received: [UInt32] = []
    /// The last packet that came out of the tunnel.
    var lastPacket: [UInt8] = []
    var events: [DeviceEvent] = []

    init(_ name: UInt8, seed: UInt64, configuration: DeviceConfiguration = DeviceConfiguration()) {
        let random = RandomSource.seeded(seed &* 1000 &+ UInt64(name))
        key = PrivateKey.generate(using: random)
        device = Device(privateKey: key.copy(), configuration: configuration, random: random)
        endpoint = SocketEndpoint(IPAddress(v4: 192, 0, 2, name), port: 51820)
        address = IPAddress(v4: 10, 0, 0, name)
    }

    var publicKey: PublicKey { key.publicKey }

    /// Everything is lost but the configuration's key, as when the program starts again.
    func restart(seed: UInt64) {
        device = Device(privateKey: key.copy(), configuration: device.configuration, random: .seeded(seed))
        received = []
        events = []
    }

    func drops(_ reason: DropReason) -> UInt64 { device.drops[reason] }

    // `#expect` cannot call methods of noncopyable values.
    func peer(for key: PublicKey) -> PeerID? { device.peer(for: key) }
    func peer(owning address: IPAddress) -> PeerID? { device.peer(owning: address) }
    func status(of id: PeerID) -> PeerStatus? { device.status(of: id) }
    func isUnderLoad(now: Instant) -> Bool { device.isUnderLoad(now: now) }
    func apply(_ change: PeerChange, now: Instant) -> PeerID? { device.apply(change, now: now) }
    func presharedKey(of id: PeerID) -> StoredPresharedKey? { device.presharedKey(of: id) }

    /// The only peer.
    var peer: PeerID {
        get throws { try #require(device.peerIDs.first) }
    }

    func status(now: Instant = Instant(nanoseconds: 0)) throws -> PeerStatus { try #require(device.status(of: try peer, now: now)) }
}

/// A message on the way.
struct Datagram {
    var bytes: [UInt8]
    var source: SocketEndpoint
    var destination: SocketEndpoint
    /// What its outer header says.
    var ecn = ECN.notECT
    /// The address of the sender's that it shall leave from.
    var local: IPAddress?

    init(_ bytes: [UInt8], from node: Node, _ transmit: Transmit) {
        self.bytes = bytes
        source = node.endpoint
        destination = transmit.endpoint
        ecn = transmit.ecn
        local = transmit.source
    }

    /// 1 to 4.
    var type: UInt8 { bytes.first ?? 0 }
    var isKeepalive: Bool { type == 4 && bytes.count == 32 }
}

/// Two devices and the wire between them, driven by hand in virtual time.
final class TwoDevices {
    let a: Node
    let b: Node
    var now = Instant(nanoseconds: 1_000_000_000_000)
    var latency = Duration.milliseconds(20)
    /// Whether a message gets through; it sees every one.
    var isDelivered: (Datagram) -> Bool = { _ in true }
    /// When the copies of a message that gets through arrive; it is lost if there is none.
    lazy var delay: (Datagram) -> [Duration] = { [unowned self] _ in [latency] }
    /// What the outer header of a message says when it arrives.
    var mark: (Datagram) -> ECN = { $0.ecn }
    /// Every message that was sent, with its time.
    private(set) var trace: [(at: Instant, Datagram)] = []
    private var wire: [(at: Instant, Datagram)] = []

    init(
        seed: UInt64 = 1, presharedKey: Bool = false, bKnowsA: Bool = true, keepalive: Duration? = nil,
        configuration: DeviceConfiguration = DeviceConfiguration()
    ) {
        a = Node(1, seed: seed, configuration: configuration)
        b = Node(2, seed: seed, configuration: configuration)
        let psk = presharedKey ? StoredPresharedKey(.generate(using: .seeded(seed &+ 7))) : nil
        a.device.setPeer(
            PeerConfiguration(
                publicKey: b.publicKey, presharedKey: psk, endpoint: b.endpoint, allowedIPs: [IPPrefix(host: b.address)],
                persistentKeepalive: keepalive), now: now)
        b.device.setPeer(
            PeerConfiguration(
                publicKey: a.publicKey, presharedKey: psk, endpoint: bKnowsA ? a.endpoint : nil, allowedIPs: [IPPrefix(host: a.address)]),
            now: now)
    }

    /// Seconds that the civil clock is ahead.
    var clockOffset: UInt64 = 0

    /// Civil time runs along.
    var wallTime: WallTime {
        WallTime(
            seconds: 1_700_000_000 + clockOffset + now.nanoseconds / 1_000_000_000, nanoseconds: UInt32(now.nanoseconds % 1_000_000_000))
    }

    func other(_ node: Node) -> Node { node === a ? b : a }

    /// Sends one packet with a number in it through the tunnel.
    @discardableResult
    func send(_ number: UInt32 = 0, from node: Node, size: Int = 32, source: IPAddress? = nil) -> SendResult {
        let result = sendRaw(packet(number, from: source ?? node.address, to: other(node).address, size: size), from: node)
        flush()
        return result
    }

    /// Hands inner bytes to the device and puts what comes of it on the wire.
    @discardableResult
    func sendRaw(_ packet: [UInt8], from node: Node) -> SendResult {
        var buffer = [UInt8](repeating: 0xEE, count: packet.count + 64)
        buffer.replaceSubrange(16..<16 + packet.count, with: packet)
        let result = buffer.withSpan { node.device.send(16..<16 + packet.count, in: &$0, now: now) }
        if case .datagram(let transmit) = result { put(Array(buffer[transmit.range]), from: node, transmit) }
        return result
    }

    /// Puts everything on the wire that the devices want to send.
    func flush() {
        for node in [a, b] {
            while let message = poll(node) { put(message) }
            while let event = node.device.pollEvent() { node.events.append(event) }
        }
    }

    /// The next message of the device's own.
    func poll(_ node: Node) -> Datagram? {
        var buffer = [UInt8](repeating: 0xEE, count: 2048)
        let transmit = buffer.withSpan { node.device.pollTransmit(into: &$0, at: 3, now: now, wallTime: wallTime) }
        return transmit.map { Datagram(Array(buffer[$0.range]), from: node, $0) }
    }

    /// Gives a message to a device at once; a handshake message is handled at once too.
    @discardableResult
    func deliver(
        _ bytes: [UInt8], to node: Node, from source: SocketEndpoint? = nil, at local: IPAddress? = nil, ecn: ECN = .notECT
    ) -> ReceiveResult {
        var bytes = bytes
        let source = source ?? other(node).endpoint
        var result = bytes.withSpan { node.device.receive(&$0, from: source, to: local, ecn: ecn, now: now, wallTime: wallTime) }
        if result == .queued { result = node.device.handleQueuedHandshake(now: now, wallTime: wallTime) ?? result }
        if case .packet(let range, from: _) = result { node.lastPacket = Array(bytes[range]) }
        if case .packet(let range, from: _) = result { node.received.append(number(in: Array(bytes[range]))) }
        while let event = node.device.pollEvent() { node.events.append(event) }
        return result
    }

    /// Time passes: messages arrive, deadlines are met.
    func advance(by duration: Duration) {
        let end = now + duration
        flush()
        while true {
            let deadlines = [a.device.nextDeadline, b.device.nextDeadline, wire.first?.at].compactMap { $0 }
            guard let next = deadlines.min(), next <= end else { break }
            now = max(now, next)
            while let first = wire.first, first.at <= now {
                wire.removeFirst()
                let node = [a, b].first { $0.endpoint == first.1.destination }
                if let node { deliver(first.1.bytes, to: node, from: first.1.source, at: first.1.destination.address, ecn: mark(first.1)) }
            }
            for node in [a, b] where (node.device.nextDeadline ?? .distantFuture) <= now {
                node.device.handleTimeout(now: now)
                #expect((node.device.nextDeadline ?? .distantFuture) > now)
            }
            flush()
        }
        now = end
    }

    /// A handshake begun by `node`, through to its confirmation.
    func connect(from node: Node? = nil) throws {
        let node = node ?? a
        node.device.initiateHandshake(with: try node.peer, now: now)
        advance(by: latency + latency + latency + .milliseconds(1))
        #expect(try node.status(now: now).hasSession)
        #expect(try other(node).status(now: now).hasSession)
    }

    /// The messages of a type that `node` sent since `start`.
    func sent(_ type: UInt8, by node: Node, since start: Instant = Instant(nanoseconds: 0)) -> [Datagram] {
        trace.filter { $0.at >= start && $0.1.type == type && $0.1.source == node.endpoint }.map { $0.1 }
    }

    /// The times at which `node` sent messages that `matches` likes.
    func times(by node: Node, _ matches: (Datagram) -> Bool) -> [Instant] {
        trace.filter { $0.1.source == node.endpoint && matches($0.1) }.map { $0.at }
    }

    func clearTrace() { trace = [] }

    private func put(_ bytes: [UInt8], from node: Node, _ transmit: Transmit) { put(Datagram(bytes, from: node, transmit)) }

    private func put(_ datagram: Datagram) {
        trace.append((now, datagram))
        guard isDelivered(datagram) else { return }
        for delay in delay(datagram) {
            let at = now + delay
            // Behind all that arrive earlier or at the same time.
            let place = (wire.lastIndex { $0.at <= at } ?? -1) + 1
            wire.insert((at, datagram), at: place)
        }
    }
}

/// An IPv4 packet of `size` bytes with a number in its payload.
func packet(_ number: UInt32, from source: IPAddress, to destination: IPAddress, size: Int = 32) -> [UInt8] {
    var bytes = [UInt8](repeating: 0x55, count: size)
    bytes.withSpan {
        IPHeader.write(
            into: &$0, source: source, destination: destination, upperProtocol: .udp,
            payloadLength: size - (source.family == .v4 ? 20 : 40))
        $0.storeBigEndian(number, at: size - 4)
    }
    return bytes
}

/// The number that `packet` carries.
func number(in packet: [UInt8]) -> UInt32 { packet.suffix(4).reduce(0) { $0 << 8 | UInt32($1) } }

extension [UInt8] {
    /// Calls `body` with the array's bytes to change them.
    mutating func withSpan<Result>(_ body: (inout MutableRawSpan) -> Result) -> Result {
        var span = mutableSpan
        var bytes = span.mutableBytes
        return body(&bytes)
    }

    func flipping(bit: Int, at offset: Int) -> [UInt8] {
        var copy = self
        copy[offset] ^= 1 << UInt8(bit)
        return copy
    }
}

extension Instant {
    static func seconds(_ count: Double) -> Duration { .nanoseconds(Int64(count * 1e9)) }
}
