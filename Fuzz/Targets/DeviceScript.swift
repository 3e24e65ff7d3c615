import Inet
import Noise
import WGUserspace

/// A script that is read from bytes and played to a device which has a session with us: raw datagrams, inner packets that are sealed
/// as they should be, handshakes that are right but for one bit, packets to send, changes of the peer, time.
struct DeviceScript {
    private var rest: ArraySlice<UInt8>
    private var now = Instant(nanoseconds: 1_000_000_000_000)

    init(_ bytes: [UInt8]) { rest = bytes[...] }

    private mutating func step() -> UInt8 { rest.popFirst() ?? 0 }

    private mutating func take(_ count: Int) -> [UInt8] {
        let taken = Array(rest.prefix(count))
        rest = rest.dropFirst(count)
        return taken
    }

    mutating func run() {
        let random = RandomSource.seeded(3)
        let ours = PrivateKey.generate(using: random)
        let deviceKey = PrivateKey.generate(using: random)
        let devicePublic = deviceKey.publicKey
        var device = Device(privateKey: deviceKey, configuration: DeviceConfiguration(), random: random)
        let source = SocketEndpoint(IPAddress(v4: 192, 0, 2, 1), port: 51820)
        let inner = IPPrefix(host: IPAddress(v4: 10, 0, 0, 1))
        let peer = device.setPeer(PeerConfiguration(publicKey: ours.publicKey, endpoint: source, allowedIPs: [inner]), now: now)
        var stamp: UInt64 = 1_700_000_000
        guard var session = Session(with: &device, devicePublic, ours, at: source, stamp: stamp, now: now, random: random) else { return }
        var steps = 0
        while !rest.isEmpty, steps < 400 {
            steps += 1
            let wallTime = WallTime(seconds: 1_700_000_000)
            switch step() % 8 {
            case 0, 1:
                let port = UInt16(step())
                let ecn = ECN(trafficClass: step())
                var datagram = take(Int(step()) * 6)
                datagram.withRawSpan {
                    _ = device.receive(
                        &$0, from: SocketEndpoint(source.address, port: port), to: source.address, ecn: ecn, now: now, wallTime: wallTime)
                }
            case 2, 3:
                var datagram = session.sealed(take(Int(step()) * 6))
                datagram.withRawSpan {
                    _ = device.receive(&$0, from: source, ecn: ECN(trafficClass: UInt8(steps & 3)), now: now, wallTime: wallTime)
                }
            case 4:
                now = now + Duration.milliseconds(Int64(step()) * Int64(step()))
                device.handleTimeout(now: now)
            case 5:
                var packet = [UInt8](repeating: 0, count: 16) + take(Int(step()) * 6)
                let range = 16..<packet.count
                packet += [UInt8](repeating: 0, count: 48)
                packet.withRawSpan { _ = device.send(range, in: &$0, now: now) }
            case 6:
                // A handshake with one bit turned over, or none.
                stamp += 1
                let bit = Int(step()) * 8 + Int(step())
                if let next = Session(with: &device, devicePublic, ours, at: source, stamp: stamp, now: now, random: random, flipping: bit)
                {
                    session = next
                }
            default:
                let what = step()
                var change = PeerChange(publicKey: ours.publicKey)
                change.remove = what & 0xC1 == 0xC1
                change.replaceAllowedIPs = what & 2 != 0
                change.addedAllowedIPs = [IPPrefix(IPAddress(v4: 10, 0, 0, what), length: Int(step()) % 33)].compactMap { $0 }
                change.persistentKeepalive = .seconds(Int(what))
                device.apply(change, now: now)
            }
            drain(&device, wallTime: wallTime)
        }
        _ = device.status(of: peer, now: now)
    }

    private func drain(_ device: inout Device, wallTime: WallTime) {
        var buffer = [UInt8](repeating: 0, count: 70_000)
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        while device.handleQueuedHandshake(now: now, wallTime: wallTime) != nil {}
        while device.pollTransmit(into: &bytes, at: 0, now: now, wallTime: wallTime) != nil {}
        while device.pollEvent() != nil {}
    }
}

/// Our side of a session with the device, in which anything can be sealed.
private struct Session: ~Copyable {
    private let keys: TransportKeys
    private let remoteIndex: UInt32
    private var counter: UInt64 = 0

    /// Shakes hands with the device; `nil` if it did not answer.
    init?(
        with device: inout Device, _ devicePublic: PublicKey, _ ours: borrowing PrivateKey, at source: SocketEndpoint, stamp: UInt64,
        now: Instant, random: RandomSource, flipping bit: Int? = nil
    ) {
        let wallTime = WallTime(seconds: stamp)
        guard let staticStatic = try? ours.staticStatic(with: devicePublic) else { return nil }
        var message = [UInt8](repeating: 0, count: HandshakeMessage.initiationByteCount)
        var written: InitiatorHandshake?
        message.withRawSpan {
            written = try? InitiatorHandshake.initiate(
                into: &$0, staticPublic: ours.publicKey, remote: devicePublic, precomputedStaticStatic: staticStatic, senderIndex: 7,
                timestamp: TAI64N(wallTime), random: random)
        }
        guard let handshake = written.take() else { return nil }
        if let bit, bit / 8 < message.count { message[bit / 8] ^= 1 << UInt8(bit % 8) }
        message.withRawSpan { _ = device.receive(&$0, from: source, now: now, wallTime: wallTime) }
        while device.handleQueuedHandshake(now: now, wallTime: wallTime) != nil {}
        var answer = [UInt8](repeating: 0, count: 2048)
        var range: Range<Int>?
        answer.withRawSpan { range = device.pollTransmit(into: &$0, at: 0, now: now, wallTime: wallTime)?.range }
        guard let range, range.count == HandshakeMessage.responseByteCount else { return nil }
        let response = Array(answer[range])
        guard let keys = try? handshake.finish(response: response.span.bytes, staticKey: ours, presharedKey: .zero()) else { return nil }
        self.keys = keys
        remoteIndex = response.span.bytes.littleEndian32(at: 4)
    }

    mutating func sealed(_ inner: [UInt8]) -> [UInt8] {
        var datagram = [UInt8](repeating: 0, count: 16) + inner + [UInt8](repeating: 0, count: 16)
        let (counter, remoteIndex) = (counter, remoteIndex)
        self.counter += 1
        var span = datagram.mutableSpan
        var bytes = span.mutableBytes
        bytes.storeLittleEndian(UInt32(4), at: 0)
        bytes.storeLittleEndian(remoteIndex, at: 4)
        bytes.storeLittleEndian(counter, at: 8)
        keys.seal(&bytes, plaintext: 16..<16 + inner.count, counter: counter)
        return datagram
    }
}

extension [UInt8] {
    fileprivate mutating func withRawSpan(_ body: (inout MutableRawSpan) -> Void) {
        var span = mutableSpan
        var bytes = span.mutableBytes
        body(&bytes)
    }
}
