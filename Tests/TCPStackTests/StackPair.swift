import Inet
import TCPStack

/// Two stacks, joined by a link that loses, delays, reorders, doubles and corrupts packets, in virtual time.
///
/// Every connection sends `request` bytes of a pattern of its own from the client, and `answer` bytes from the server; both
/// sides check every byte and close when they are through.
final class StackPair {
    struct Link {
        var loss = 0.0
        var reorder = 0.0
        var duplicate = 0.0
        var corrupt = 0.0
        var delay = Duration.milliseconds(10)
        var jitter = Duration.zero
        static let perfect = Link()
    }

    struct Transfer {
        var id: ConnectionID
        /// Tells the patterns apart.
        var key: UInt32
        var toSend: Int
        var sent = 0
        var toReceive: Int
        var received = 0
        var isClosed = false
        var reason: CloseReason?
        var hasClosedWrite = false
        var isWrong = false
    }

    var client: Stack
    var server: Stack
    var now = Instant(nanoseconds: 1_000_000_000_000)
    let clientAddress: IPAddress
    let serverAddress: IPAddress
    var clientTransfers: [Transfer] = []
    var serverTransfers: [Transfer] = []
    /// How much the server answers on each connection.
    var answer = 0
    var request = 0
    var packets = 0
    /// When the last connection was through.
    private(set) var finishedAt = Duration.zero
    var link: Link
    /// The applications read only so often, so that windows close. Zero reads at once.
    var readPause = Duration.zero
    private var nextRead = Instant(nanoseconds: 0)
    /// The first thing that was not as it must be.
    private(set) var violation: String?
    private var watch = WireWatch()
    private var steps = 0
    private let random: RandomSource
    private let begin: Instant
    private var inFlight: [(at: Instant, order: Int, toServer: Bool, packet: [UInt8])] = []
    private var order = 0

    init(family: IPAddress.Family, link: Link, seed: UInt64, configuration: StackConfiguration = StackConfiguration()) {
        client = Stack(configuration: configuration, random: .seeded(seed &+ 1))
        server = Stack(configuration: configuration, random: .seeded(seed &+ 2))
        switch family {
        case .v4: (clientAddress, serverAddress) = (IPAddress(v4: 10, 1, 0, 1), IPAddress(v4: 10, 1, 0, 2))
        case .v6:
            (clientAddress, serverAddress) = (IPAddress(v6High: 0xFD00 << 48, low: 1), IPAddress(v6High: 0xFD00 << 48, low: 2))
        }
        self.link = link
        random = .seeded(seed)
        begin = now
        client.setAddresses([clientAddress], now: now)
        server.setAddresses([serverAddress], now: now)
    }

    func start(client id: ConnectionID, request: Int, answer: Int) {
        self.request = request
        self.answer = answer
        let port = client.endpoints(of: id)?.local.port ?? 0
        clientTransfers.append(Transfer(id: id, key: UInt32(port), toSend: request, toReceive: answer))
    }

    var isFinished: Bool {
        violation == nil && clientTransfers.count == serverTransfers.count && clientTransfers.allSatisfy(Self.isDone)
            && serverTransfers.allSatisfy(Self.isDone)
    }

    /// Everything that is left in the tables and buffers of both stacks.
    var remains: Int {
        let memory = client.counts.bufferedBytes + server.counts.bufferedBytes + client.counts.bufferMemory + server.counts.bufferMemory
        return client.tableEntries + server.tableEntries + memory
    }

    static func isDone(_ transfer: Transfer) -> Bool {
        transfer.reason == .finished && !transfer.isWrong && transfer.sent == transfer.toSend && transfer.received == transfer.toReceive
    }

    var summary: String {
        let open = (clientTransfers + serverTransfers).filter { !Self.isDone($0) }.prefix(4)
        return "\(violation ?? "") \(now - begin) \(packets) packets, not done: \(open), client \(client.counts), server \(server.counts)"
    }

    /// Runs until `limit` of virtual time has passed since the start, or nothing is left to happen.
    func run(until limit: Duration) {
        let end = begin + limit
        while now <= end {
            step()
            var next = inFlight.first?.at ?? .distantFuture
            if let deadline = client.nextDeadline { next = min(next, deadline) }
            if let deadline = server.nextDeadline { next = min(next, deadline) }
            guard next < .distantFuture else { break }
            if readPause > .zero, !isFinished { next = min(next, nextRead) }
            now = max(now, next)
            if now > end { break }
            if let deadline = client.nextDeadline, deadline <= now { client.handleTimeout(now: now) }
            if let deadline = server.nextDeadline, deadline <= now { server.handleTimeout(now: now) }
            while let first = inFlight.first, first.at <= now {
                let packet = inFlight.removeFirst()
                if packet.toServer {
                    server.receive(packet.packet.span.bytes, now: now)
                } else {
                    client.receive(packet.packet.span.bytes, now: now)
                }
            }
        }
    }

    private func step() {
        var last = begin
        let reads = now >= nextRead
        if reads { nextRead = now + readPause }
        Self.serve(&client, &clientTransfers, request: answer, answer: request, now: now, reads: reads, last: &last)
        Self.serve(&server, &serverTransfers, request: request, answer: answer, now: now, reads: reads, last: &last)
        finishedAt = max(finishedAt, last - begin)
        transmit(toServer: true)
        transmit(toServer: false)
        steps += 1
        if let wrong = watch.violation { violation = violation ?? wrong }
        if steps % 97 == 0, violation == nil { violation = client.brokenInvariant() ?? server.brokenInvariant() }
    }

    private static func serve(
        _ stack: inout Stack, _ transfers: inout [Transfer], request: Int, answer: Int, now: Instant, reads: Bool, last: inout Instant
    ) {
        while let event = stack.pollEvent() {
            switch event {
            case .accepted(_, let id):
                let port = stack.endpoints(of: id)?.remote.port ?? 0
                transfers.append(Transfer(id: id, key: UInt32(port), toSend: answer, toReceive: request))
            case .closed(let id, let reason):
                guard let place = transfers.firstIndex(where: { $0.id == id }) else { continue }
                transfers[place].reason = reason
                last = now
            case .connected, .readable, .writable, .inputClosed, .urgent, .datagrams, .udpWritable, .udpError, .udpClosed: break
            }
        }
        for place in transfers.indices where transfers[place].reason == nil { serve(&stack, &transfers[place], now: now, reads: reads) }
    }

    private static func serve(_ stack: inout Stack, _ transfer: inout Transfer, now: Instant, reads: Bool) {
        while reads, stack.readableBytes(transfer.id) > 0 {
            var buffer = [UInt8](repeating: 0, count: 16_384)
            var count = 0
            do {
                var span = buffer.mutableSpan
                var bytes = span.mutableBytes
                count = (try? stack.read(transfer.id, into: &bytes, now: now)) ?? 0
            }
            for index in 0..<count where buffer[index] != pattern(transfer.key, transfer.received + index) { transfer.isWrong = true }
            transfer.received += count
        }
        while transfer.sent < transfer.toSend {
            let count = min(16_384, transfer.toSend - transfer.sent, stack.writableBytes(transfer.id) + 1)
            let bytes = (0..<count).map { pattern(transfer.key, transfer.sent + $0) }
            let accepted = (try? stack.write(transfer.id, bytes.span.bytes, now: now)) ?? 0
            transfer.sent += accepted
            if accepted < count { break }
        }
        if transfer.sent == transfer.toSend, !transfer.hasClosedWrite {
            transfer.hasClosedWrite = true
            stack.closeWrite(transfer.id, now: now)
        }
    }

    private static func pattern(_ key: UInt32, _ position: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: (position &* 31) ^ (position >> 8) ^ Int(key))
    }

    private func transmit(toServer: Bool) {
        var buffer = [UInt8](repeating: 0, count: 1500)
        while true {
            var range: Range<Int>?
            do {
                var span = buffer.mutableSpan
                var bytes = span.mutableBytes
                range = toServer ? client.pollTransmit(into: &bytes, at: 0, now: now) : server.pollTransmit(into: &bytes, at: 0, now: now)
            }
            guard let range else { return }
            packets += 1
            var packet = Array(buffer[range])
            watch.look(packet, mtu: 1420)
            if chance(link.loss) { continue }
            if chance(link.corrupt) {
                let place = Int(random.next(below: UInt64(packet.count)))
                packet[place] ^= UInt8(1 << random.next(below: 8))
            }
            let copies = chance(link.duplicate) ? 2 : 1
            for _ in 0..<copies {
                var at = now + link.delay + random.jitter(upTo: link.jitter)
                if chance(link.reorder) { at += link.delay / 2 }
                order += 1
                let entry = (at: at, order: order, toServer: toServer, packet: packet)
                var low = 0
                var high = inFlight.count
                while low < high {
                    let middle = (low + high) / 2
                    if inFlight[middle].at <= at { low = middle + 1 } else { high = middle }
                }
                inFlight.insert(entry, at: low)
            }
        }
    }

    private func chance(_ probability: Double) -> Bool {
        probability > 0 && Double(random.next(below: 1_000_000)) < probability * 1_000_000
    }
}
