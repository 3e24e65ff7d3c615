import Inet
import NIOWireGuard
import TCPStack
import WGUserspace

/// A device with its stack, twice, joined in memory: what a packet costs on its whole way between a connection and the socket.
enum InterfaceMicro {
    static func run() {
        let (pair, asking) = (InterfacePair(), InterfacePair())
        guard let (sender, receiver) = pair.connect(), let (client, server) = asking.connect() else {
            return print("the interfaces do not connect")
        }
        var (request, bulk) = (Cost(), InterfacePair.Bulk())
        for round in 0...Micro.rounds {
            var each = Cost()
            each.measure {
                for _ in 0..<requests where !asking.exchange(client, server) { return 0 }
                return requests
            }
            let moved = pair.moveBulk(sender, receiver, bytes: 32_000_000)
            // The first round lets windows and buffers grow.
            guard round > 0 else { continue }
            request = request.better(each)
            bulk.out = bulk.out.better(moved.out)
            bulk.into = bulk.into.better(moved.into)
            bulk.acknowledgments = bulk.acknowledgments.better(moved.acknowledgments)
        }
        bulk.out.report("packet-out", "a packet")
        bulk.into.report("packet-in", "a packet")
        bulk.acknowledgments.report("acknowledgment", "an ACK, out and in")
        request.report("small-request", "a request and its answer, both sides")
    }

    private static let requests = 10_000
}

/// Two interfaces without a path between them: what one sends, the other receives at once.
private final class InterfacePair {
    struct Bulk {
        var out = Cost()
        var into = Cost()
        var acknowledgments = Cost()
    }

    private var client: InterfaceCore
    private var server: InterfaceCore
    private var now = Instant(nanoseconds: 1_000_000_000_000)
    private let wallTime = WallTime(seconds: 1_700_000_000)
    private let clientAt = SocketEndpoint(IPAddress(v4: 192, 0, 2, 1), port: 1)
    private let serverAt = SocketEndpoint(IPAddress(v4: 192, 0, 2, 2), port: 1)
    private let local = IPAddress(v4: 10, 1, 0, 1)
    private let remote = SocketEndpoint(IPAddress(v4: 10, 1, 0, 2), port: 80)
    private let text = [UInt8](repeating: 7, count: 65_536)
    private var buffer = [UInt8](repeating: 0, count: 65_536)
    private var wire = [UInt8](repeating: 0, count: batch * slot + InterfaceCore.maximumDatagramRoom)
    private var ranges = [Range<Int>](repeating: 0..<0, count: batch)

    init() {
        let random = RandomSource.seeded(3)
        var near = Device(privateKey: .generate(using: random), configuration: DeviceConfiguration(), random: random)
        var far = Device(privateKey: .generate(using: random), configuration: DeviceConfiguration(), random: random)
        let (nearKey, farKey) = (near.publicKey, far.publicKey)
        near.setPeer(PeerConfiguration(publicKey: farKey, endpoint: serverAt, allowedIPs: [IPPrefix(host: remote.address)]), now: now)
        far.setPeer(PeerConfiguration(publicKey: nearKey, endpoint: clientAt, allowedIPs: [IPPrefix(host: local)]), now: now)
        client = InterfaceCore(device: near, stack: Stack(configuration: StackConfiguration(), random: random))
        server = InterfaceCore(device: far, stack: Stack(configuration: StackConfiguration(), random: random))
        client.stack.setAddresses([local], now: now)
        server.stack.setAddresses([remote.address], now: now)
        _ = try? server.stack.listen(address: nil, port: remote.port, backlog: 16)
    }

    func connect() -> (ConnectionID, ConnectionID)? {
        guard let id = try? client.stack.connect(from: local, to: remote, now: now) else { return nil }
        for _ in 0..<8 {
            give(&server, from: clientAt, take(&client))
            give(&client, from: serverAt, take(&server))
        }
        var accepted: ConnectionID?
        while let event = server.stack.pollEvent() { if case .accepted(_, let id) = event { accepted = id } }
        while client.stack.pollEvent() != nil {}
        return accepted.map { (id, $0) }
    }

    /// 64 bytes there and 64 back.
    func exchange(_ sender: ConnectionID, _ receiver: ConnectionID) -> Bool {
        let text = text
        let piece = text.span.bytes.extracting(0..<64)
        guard (try? client.stack.write(sender, piece, now: now)) == 64 else { return false }
        give(&server, from: clientAt, take(&client))
        while server.stack.pollEvent() != nil {}
        guard Self.read(&server, receiver, into: &buffer, now: now) == 64, (try? server.stack.write(receiver, piece, now: now)) == 64 else {
            return false
        }
        give(&client, from: serverAt, take(&server))
        while client.stack.pollEvent() != nil {}
        guard Self.read(&client, sender, into: &buffer, now: now) == 64 else { return false }
        pass()
        return true
    }

    func moveBulk(_ sender: ConnectionID, _ receiver: ConnectionID, bytes: Int) -> Bulk {
        let text = text
        var bulk = Bulk()
        var moved = 0
        while moved < bytes {
            while ((try? client.stack.write(sender, text.span.bytes, now: now)) ?? 0) == text.count {}
            var count = 0
            bulk.out.measure {
                count = take(&client)
                return count
            }
            bulk.into.measure {
                give(&server, from: clientAt, count)
                return count
            }
            while server.stack.pollEvent() != nil {}
            while true {
                let read = Self.read(&server, receiver, into: &buffer, now: now)
                if read == 0 { break }
                moved += read
            }
            bulk.acknowledgments.measure {
                let count = take(&server)
                give(&client, from: serverAt, count)
                return count
            }
            while client.stack.pollEvent() != nil {}
            pass()
        }
        return bulk
    }

    /// What `core` sends now, a batch at most.
    private func take(_ core: inout InterfaceCore) -> Int {
        var count = 0
        var span = wire.mutableSpan
        var bytes = span.mutableBytes
        while count < Self.batch,
            let transmit = core.pollTransmit(into: &bytes, at: count * Self.slot, now: now, wallTime: wallTime)
        {
            ranges[count] = transmit.range
            count += 1
        }
        return count
    }

    private func give(_ core: inout InterfaceCore, from source: SocketEndpoint, _ count: Int) {
        var span = wire.mutableSpan
        var bytes = span.mutableBytes
        for range in ranges[..<count] {
            var datagram = bytes._mutatingExtracting(range)
            core.receive(&datagram, from: source, now: now, wallTime: wallTime)
            while core.device.hasQueuedHandshakes { core.device.handleQueuedHandshake(now: now, wallTime: wallTime) }
        }
    }

    private static func read(_ core: inout InterfaceCore, _ id: ConnectionID, into buffer: inout [UInt8], now: Instant) -> Int {
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        return (try? core.stack.read(id, into: &bytes, now: now)) ?? 0
    }

    private func pass() {
        now += .microseconds(20)
        if let deadline = client.nextDeadline, deadline <= now { client.handleTimeout(now: now) }
        if let deadline = server.nextDeadline, deadline <= now { server.handleTimeout(now: now) }
        while client.device.pollEvent() != nil {}
        while server.device.pollEvent() != nil {}
    }

    private static let batch = 64
    private static let slot = 2048
}
