import BenchShim
import Inet
import TCPStack

/// What the TCP/IP stack costs by itself: two of them, joined in memory, on one core.
enum StackMicro {
    /// - Returns: `false` for a name that there is not.
    static func run(only name: String? = nil) -> Bool {
        let all = [
            ("bulk", bulk), ("rr", requests), ("idle", idleConnections), ("time-wait", timeWait), ("path", Goodput.goals),
        ]
        let chosen = all.filter { name == nil || name == $0.0 }
        for (_, measure) in chosen { measure() }
        return !chosen.isEmpty
    }

    /// One connection, one way, in segments of 1,420 bytes; each is sent and received on this core.
    private static func bulk() {
        let pair = JoinedStacks()
        guard let (sender, receiver) = pair.connect() else { return print("the stacks do not connect") }
        var best = (gigabits: 0.0, nanoseconds: 0.0, allocations: 0.0, acknowledgments: 0.0)
        for round in 0...Micro.rounds {
            let (bytes, segments, back) = (pair.bytesRead, pair.toServer, pair.toClient)
            let (before, start) = (bench_allocations(), bench_processor_nanoseconds())
            while pair.bytesRead - bytes < 256_000_000 { pair.pushBulk(sender, receiver) }
            let spent = Double(bench_processor_nanoseconds() - start)
            let count = Double(pair.toServer - segments)
            let gigabits = Double(pair.bytesRead - bytes) * 8 / spent
            // The first round lets windows and buffers grow.
            guard round > 0, gigabits > best.gigabits else { continue }
            best = (gigabits, spent / count, Double(bench_allocations() - before) / count, Double(pair.toClient - back) / count)
        }
        Micro.report("stack-bulk", best.gigabits, "Gbit/s", nil)
        Micro.report("stack-bulk-segment", best.nanoseconds, "ns", nil)
        Micro.report("stack-bulk-allocations", best.allocations, "a segment", nil)
        Micro.report("stack-bulk-acks", best.acknowledgments, "a segment", nil)
    }

    /// 64 bytes there, 64 back, over and over.
    private static func requests() {
        let pair = JoinedStacks()
        guard let (client, server) = pair.connect() else { return print("the stacks do not connect") }
        let count = 100_000
        var best = (rate: 0.0, allocations: 0.0, segments: 0.0)
        for round in 0...Micro.rounds {
            let segments = pair.toServer + pair.toClient
            let (before, start) = (bench_allocations(), bench_processor_nanoseconds())
            for _ in 0..<count where !pair.exchange(client, server) { return print("a request was not answered") }
            let spent = Double(bench_processor_nanoseconds() - start)
            let moved = Double(pair.toServer + pair.toClient - segments)
            guard round > 0, moved / spent * 1e9 > best.rate else { continue }
            best = (moved / spent * 1e9, Double(bench_allocations() - before) / moved, moved / Double(count))
        }
        Micro.report("stack-rr", best.rate, "segments/s", nil)
        Micro.report("stack-rr-allocations", best.allocations, "a segment", nil)
        Micro.report("stack-rr-segments", best.segments, "a request", nil)
    }

    /// The listening side's memory: 10,000 connections that have each carried a request and an answer, and rest.
    private static func idleConnections() {
        let pair = JoinedStacks()
        let count = 10_000
        for _ in 0..<count {
            guard let (client, server) = pair.connect(), pair.exchange(client, server) else { return print("no 10,000 connections") }
        }
        pair.rest(.seconds(5))
        guard pair.server.counts.connections == count else { return print("connections were lost") }
        let before = bench_heap_bytes()
        pair.dropServer()
        Micro.report("stack-connection", Double(Stack.connectionSize), "bytes", nil)
        Micro.report("stack-idle-10000", Double(before - bench_heap_bytes()) / 1e6, "MB", nil)
    }

    /// The memory of the side that has closed first: 100,000 TIME-WAIT records.
    private static func timeWait() {
        let count = 100_000
        var configuration = StackConfiguration()
        configuration.maximumTimeWait = count
        let pair = JoinedStacks(configuration)
        for _ in 0..<count {
            guard let (client, server) = pair.connect() else { return print("no 100,000 connections") }
            pair.close(client, server)
        }
        guard pair.client.counts.timeWait == count else { return print("\(pair.client.counts) instead of \(count) in TIME-WAIT") }
        let before = bench_heap_bytes()
        pair.dropClient()
        Micro.report("stack-time-wait-100000", Double(before - bench_heap_bytes()) / 1e6, "MB", nil)
    }
}

/// A client and a server without a path between them: what one sends, the other receives at once.
final class JoinedStacks {
    private(set) var client: Stack
    private(set) var server: Stack
    private var now = Instant(nanoseconds: 1_000_000_000_000)
    /// Packets.
    private(set) var toServer = 0
    private(set) var toClient = 0
    private(set) var bytesRead = 0
    /// Of the segments that `pushBulk` moves.
    var costOut = Cost()
    var costIn = Cost()
    private let clients = (1...4).map { IPAddress(v4: 10, 1, 0, UInt8($0)) }
    private let remote = SocketEndpoint(IPAddress(v4: 10, 2, 0, 1), port: 80)
    private var next = 0
    private let text = [UInt8](repeating: 7, count: 65_536)
    private var buffer = [UInt8](repeating: 0, count: 65_536)
    /// Packets on their way, as many as a batch of a socket.
    private var wire = [UInt8](repeating: 0, count: batch * slot)
    private var ranges = [Range<Int>](repeating: 0..<0, count: batch)

    init(_ configuration: StackConfiguration = StackConfiguration()) {
        client = Stack(configuration: configuration, random: .seeded(1))
        server = Stack(configuration: configuration, random: .seeded(2))
        client.setAddresses(clients, now: now)
        server.setAddresses([remote.address], now: now)
        _ = try? server.listen(address: nil, port: remote.port, backlog: 1000)
    }

    func connect() -> (ConnectionID, ConnectionID)? {
        next += 1
        guard let id = try? client.connect(from: clients[next % clients.count], to: remote, now: now) else { return nil }
        settle()
        var (opened, accepted): (Bool, ConnectionID?) = (false, nil)
        while let event = client.pollEvent() { if event == .connected(id) { opened = true } }
        while let event = server.pollEvent() { if case .accepted(_, let id) = event { accepted = id } }
        return opened ? accepted.map { (id, $0) } : nil
    }

    func pushBulk(_ sender: ConnectionID, _ receiver: ConnectionID) {
        let text = text
        while ((try? client.write(sender, text.span.bytes, now: now)) ?? 0) == text.count {}
        // Batch by batch, as a socket gives them.
        while true {
            var count = 0
            costOut.measure {
                count = Self.poll(&client, &wire, &ranges, now)
                return count
            }
            costIn.measure {
                Self.give(wire, ranges[..<count], to: &server, now)
                return count
            }
            toServer += count
            while server.pollEvent() != nil {}
            while true {
                let count = Self.read(&server, receiver, &buffer, now)
                if count == 0 { break }
                bytesRead += count
            }
            moveToClient()
            while client.pollEvent() != nil {}
            pass(.microseconds(20))
            if count < Self.batch { return }
        }
    }

    func exchange(_ client: ConnectionID, _ server: ConnectionID) -> Bool {
        let text = text
        let piece = text.span.bytes.extracting(0..<64)
        guard (try? self.client.write(client, piece, now: now)) == 64 else { return false }
        moveToServer()
        while self.server.pollEvent() != nil {}
        guard Self.read(&self.server, server, &buffer, now) == 64, (try? self.server.write(server, piece, now: now)) == 64 else {
            return false
        }
        moveToClient()
        while self.client.pollEvent() != nil {}
        guard Self.read(&self.client, client, &buffer, now) == 64 else { return false }
        pass(.microseconds(5))
        return true
    }

    /// The client first.
    func close(_ client: ConnectionID, _ server: ConnectionID) {
        self.client.close(client, now: now)
        settle()
        self.server.close(server, now: now)
        settle()
        while self.client.pollEvent() != nil {}
        while self.server.pollEvent() != nil {}
        pass(.microseconds(5))
    }

    /// Lets time pass, timer by timer.
    func rest(_ duration: Duration) {
        let end = now + duration
        while let deadline = [client.nextDeadline, server.nextDeadline].compactMap({ $0 }).min(), deadline <= end {
            now = max(now, deadline)
            pass(.zero)
            settle()
        }
        now = end
    }

    func dropClient() { client = Stack(configuration: StackConfiguration(), random: .seeded(3)) }
    func dropServer() { server = Stack(configuration: StackConfiguration(), random: .seeded(3)) }

    private func pass(_ duration: Duration) {
        now += duration
        if let deadline = client.nextDeadline, deadline <= now { client.handleTimeout(now: now) }
        if let deadline = server.nextDeadline, deadline <= now { server.handleTimeout(now: now) }
    }

    private func settle() {
        while moveToServer() + moveToClient() > 0 {}
    }

    @discardableResult
    private func moveToServer() -> Int {
        let count = Self.move(&client, &server, &wire, &ranges, now)
        toServer += count
        return count
    }

    @discardableResult
    private func moveToClient() -> Int {
        let count = Self.move(&server, &client, &wire, &ranges, now)
        toClient += count
        return count
    }

    /// All that one has to send.
    private static func move(
        _ source: inout Stack, _ target: inout Stack, _ wire: inout [UInt8], _ ranges: inout [Range<Int>], _ now: Instant
    ) -> Int {
        var total = 0
        while true {
            let count = moveBatch(&source, &target, &wire, &ranges, now)
            total += count
            if count < batch { return total }
        }
    }

    private static func moveBatch(
        _ source: inout Stack, _ target: inout Stack, _ wire: inout [UInt8], _ ranges: inout [Range<Int>], _ now: Instant
    ) -> Int {
        let count = poll(&source, &wire, &ranges, now)
        give(wire, ranges[..<count], to: &target, now)
        return count
    }

    private static func poll(_ source: inout Stack, _ wire: inout [UInt8], _ ranges: inout [Range<Int>], _ now: Instant) -> Int {
        var span = wire.mutableSpan
        var bytes = span.mutableBytes
        var count = 0
        while count < batch, let range = source.pollTransmit(into: &bytes, at: count * slot, now: now) {
            ranges[count] = range
            count += 1
        }
        return count
    }

    private static func give(_ wire: [UInt8], _ ranges: ArraySlice<Range<Int>>, to target: inout Stack, _ now: Instant) {
        let bytes = wire.span.bytes
        for range in ranges { target.receive(bytes.extracting(range), now: now) }
    }

    private static func read(_ stack: inout Stack, _ id: ConnectionID, _ buffer: inout [UInt8], _ now: Instant) -> Int {
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        return (try? stack.read(id, into: &bytes, now: now)) ?? 0
    }

    private static let batch = 64
    private static let slot = 2048
}
