import Inet
import TCPStack

/// Two stacks, the paths between them and the applications on both, in virtual time. Everything that happens comes from the seed.
package final class StackSimulation {
    package enum Side: Int, Sendable, CaseIterable {
        case client, server
        package var other: Side { self == .client ? .server : .client }
    }

    /// What happens to the network or to a host.
    package enum Incident: Sendable, Equatable {
        case quality(Side, SimulatedPath.Quality)
        case down(Bool)
        /// It never answers again.
        case vanish(Side)
        /// It comes back without memory.
        case restart(Side)
    }

    private enum Event {
        case arrival(slot: Int, to: Side)
        case wake(conversation: Int, Side)
        case begin(conversation: Int)
        case incident(Int)
    }

    private struct SYN: Hashable {
        var port: UInt16
        var iss: UInt32
    }

    package struct Conversation {
        package internal(set) var client: SimulatedApplication
        package internal(set) var server: SimulatedApplication
        package var isOver: Bool { client.isOver && server.isOver }
        /// Neither host has forgotten it.
        package var isIntact: Bool { !client.isForgotten && !server.isForgotten }
        /// One end is over otherwise than by both having finished.
        package var isGivenUp: Bool { [client, server].contains { $0.reason.map { $0 != .finished } ?? false } }
    }

    package private(set) var now = Instant(nanoseconds: 1_000_000_000_000)
    package private(set) var conversations: [Conversation] = []
    /// The first thing that was not as it must be.
    package private(set) var violation: String?
    package private(set) var packets = 0
    package var elapsed: Duration { now - begin }
    /// A stall longer than this is a violation.
    package var patience: Duration?
    package var hosts: [SimulatedHost]
    package let begin: Instant
    private let random: RandomSource
    private let tick: Int64
    private var events = EventQueue<Event>()
    private var incidents: [Incident] = []
    private var watch = WireWatch()
    /// Conversations by the client's port and initial sequence number: ports are used again.
    private var bySYN: [SYN: Int] = [:]
    private var buffers: [[UInt8]] = []
    private var freeBuffers: [Int] = []
    private var readBuffer = [UInt8](repeating: 0, count: 65_536)
    private var writeBuffer = [UInt8](repeating: 0, count: 65_536)
    private var steps = 0
    private var stepsAtOnce = 0
    private var lastCheck = Instant(nanoseconds: 0)
    private let family: IPAddress.Family

    /// - Parameter tick: packets arrive at multiples of it, in batches as a socket gives them. Zero is each by itself.
    package init(
        family: IPAddress.Family, upstream: SimulatedPath.Quality, downstream: SimulatedPath.Quality, seed: UInt64,
        client: StackConfiguration = StackConfiguration(), server: StackConfiguration = StackConfiguration(), tick: Duration = .zero
    ) {
        self.family = family
        random = .seeded(seed)
        begin = now
        self.tick = tick.inNanoseconds
        hosts = [
            SimulatedHost(.client, family, client, path: SimulatedPath(upstream, seed: seed &+ 1), seed: seed &+ 2, now: now),
            SimulatedHost(.server, family, server, path: SimulatedPath(downstream, seed: seed &+ 3), seed: seed &+ 4, now: now),
        ]
        listen()
    }

    package func add(client: ApplicationPlan, server: ApplicationPlan, at moment: Duration = .zero) {
        let number = conversations.count
        conversations.append(
            Conversation(
                client: SimulatedApplication(client, isClient: true, expected: server.bytes, key: 2 * number),
                server: SimulatedApplication(server, isClient: false, expected: client.bytes, key: 2 * number + 1)))
        events.push(.begin(conversation: number), at: begin + moment)
    }

    package func schedule(_ incident: Incident, at moment: Duration) {
        incidents.append(incident)
        events.push(.incident(incidents.count - 1), at: begin + moment)
    }

    /// Entries and bytes that both stacks still hold.
    package var remains: Int {
        hosts.filter { !$0.isGone }.reduce(0) {
            $0 + $1.stack.tableEntries + $1.stack.counts.bufferedBytes + $1.stack.counts.bufferMemory
        }
    }

    /// Runs until `limit` after the beginning, or until nothing is left to happen, or something is wrong.
    /// - Returns: whether nothing is left to happen.
    @discardableResult
    package func run(until limit: Duration) -> Bool {
        let end = begin + limit
        while violation == nil {
            settle()
            var next = events.next ?? .distantFuture
            for host in hosts where !host.isGone { next = min(next, host.stack.nextDeadline ?? .distantFuture) }
            guard next < .distantFuture else { return true }
            guard next <= end else {
                now = max(now, end)
                return false
            }
            stepsAtOnce = next > now ? 0 : stepsAtOnce + 1
            if stepsAtOnce > 100_000 { violation = "time stands still" }
            now = max(now, next)
            while let event = events.pop(by: now) { handle(event) }
            for host in hosts where !host.isGone {
                if let deadline = host.stack.nextDeadline, deadline <= now { host.stack.handleTimeout(now: now) }
            }
        }
        return false
    }

    private func handle(_ event: Event) {
        switch event {
        case .arrival(let slot, let side): deliver(slot, to: side)
        case .wake(let number, let side): serve(number, side)
        case .begin(let number):
            let host = hosts[0]
            let remote = SocketEndpoint(hosts[1].address, port: Self.port)
            guard !host.isGone else {
                conversations[number].client.isForgotten = true
                return
            }
            let options = ConnectionOptions(coalescesSmallWrites: conversations[number].client.plan.coalesces)
            guard let id = try? host.stack.connect(from: host.address, to: remote, options: options, now: now) else {
                violation = "connect was refused"
                return
            }
            host.numbers[id] = number
            conversations[number].client.opened(id, now: now)
            transmit(.client, host)
            if let port = host.stack.endpoints(of: id)?.local.port, let iss = watch.offeredISS[port] {
                bySYN[SYN(port: port, iss: iss)] = number
            }
            if hosts[1].isGone { conversations[number].server.isForgotten = true }
            serve(number, .client)
        case .incident(let index): happen(incidents[index])
        }
    }

    private func happen(_ incident: Incident) {
        switch incident {
        case .quality(let side, let quality): hosts[side.rawValue].path.quality = quality
        case .down(let isDown): for host in hosts { host.path.isDown = isDown }
        case .vanish(let side):
            forget(side)
            hosts[side.rawValue].isGone = true
        case .restart(let side):
            forget(side)
            hosts[side.rawValue].restart(seed: random.nextUInt64(), now: now)
            watch.forget(host: side.rawValue)
            listen()
        }
    }

    private func forget(_ side: Side) {
        // One that is over here may have left a TIME-WAIT that the peer still needs.
        for number in conversations.indices where conversations[number].client.id != nil && !conversations[number].isOver {
            self[number, side].isForgotten = true
        }
        hosts[side.rawValue].numbers = [:]
    }

    private func listen() {
        // The old listener lives on if it was the client that came back.
        _ = try? hosts[1].stack.listen(address: nil, port: Self.port, backlog: 65_536)
    }

    private subscript(number: Int, side: Side) -> SimulatedApplication {
        _read { if side == .client { yield conversations[number].client } else { yield conversations[number].server } }
        _modify { if side == .client { yield &conversations[number].client } else { yield &conversations[number].server } }
    }

    private func serve(_ number: Int, _ side: Side) {
        let before = self[number, side].wake
        self[number, side].serve(&hosts[side.rawValue].stack, now: now, buffer: &readBuffer)
        if let fault = self[number, side].fault, violation == nil { violation = "conversation \(number), \(side): \(fault)" }
        // One that is on its way already will do.
        if let wake = self[number, side].wake, wake != before { events.push(.wake(conversation: number, side), at: max(wake, now)) }
    }

    /// Events, packets out, and checks, until both stacks are at rest.
    private func settle() {
        for side in Side.allCases where !hosts[side.rawValue].isGone {
            let host = hosts[side.rawValue]
            while let event = host.stack.pollEvent() { take(event, side, host) }
            transmit(side, host)
            let (held, budget) = (host.stack.counts.bufferMemory, host.configuration.memoryLimit)
            if held > budget { violation = violation ?? "\(side) holds \(held) bytes, its budget is \(budget)" }
        }
        steps += 1
        if let wrong = watch.violation { violation = violation ?? wrong }
        // Walking all connections is left for now and then when there are many.
        if steps % max(97, conversations.count) == 0 { check() }
    }

    private func take(_ event: StackEvent, _ side: Side, _ host: SimulatedHost) {
        switch event {
        case .accepted(_, let id):
            guard let port = host.stack.endpoints(of: id)?.remote.port, let iss = watch.acceptedISS[port],
                let number = bySYN[SYN(port: port, iss: iss)]
            else {
                violation = "a connection that nobody has made"
                return
            }
            host.numbers[id] = number
            // It may have met a host that has forgotten it since.
            let client = conversations[number].client
            self[number, side] = SimulatedApplication(
                conversations[number].server.plan, isClient: false, expected: client.plan.bytes, key: client.key + 1)
            self[number, side].opened(id, now: now)
            serve(number, side)
        case .closed(let id, let reason):
            guard let number = host.numbers.removeValue(forKey: id), self[number, side].id == id else { return }
            self[number, side].closed(reason)
        case .inputClosed(let id):
            guard let number = host.numbers[id] else { return }
            self[number, side].inputClosed()
            serve(number, side)
        case .connected(let id), .readable(let id), .writable(let id), .inputReset(let id):
            guard let number = host.numbers[id] else { return }
            serve(number, side)
        case .urgent, .datagrams, .udpWritable, .udpError, .udpClosed: break
        }
    }

    private func check() {
        for host in hosts where !host.isGone {
            if let broken = host.stack.brokenInvariant() { violation = violation ?? "\(host.side): \(broken)" }
        }
        guard let patience, now - lastCheck > .seconds(5) else { return }
        lastCheck = now
        // The reset of an end that gave up may be lost: only keepalive tells the other then, which may take longer.
        for (number, conversation) in conversations.enumerated() where conversation.isIntact && !conversation.isGivenUp {
            for application in [conversation.client, conversation.server]
            where application.id != nil && !application.isOver && !application.isComplete {
                let progress = max(conversation.client.lastProgress, conversation.server.lastProgress)
                guard violation == nil, now - progress > patience else { continue }
                violation =
                    "conversation \(number) has not moved for \(now - progress): client \(conversation.client.summary); server \(conversation.server.summary)"
            }
        }
    }

    private func transmit(_ side: Side, _ host: SimulatedHost) {
        var count = 0
        while true {
            var range: Range<Int>?
            do {
                var span = writeBuffer.mutableSpan
                var bytes = span.mutableBytes
                range = host.stack.pollTransmit(into: &bytes, at: 0, now: now)
            }
            guard let range else { break }
            count += 1
            packets += 1
            watch.look(writeBuffer.span.bytes.extracting(range), from: side.rawValue, mtu: host.configuration.mtu)
            switch host.path.send(byteCount: range.count, now: now) {
            case .lost: break
            case .tooBig:
                guard host.path.quality.tellsTooBig else { break }
                let error = TooBig.message(
                    about: writeBuffer.span.bytes.extracting(range), to: host.address, mtu: host.path.quality.mtu)
                put(error, to: side, at: now + host.path.quality.delay)
            case .arrives(let moment, let copy, let bit, let isMarked):
                if isMarked { Self.mark(&writeBuffer, at: range.lowerBound) }
                let slot = store(range, damagedBit: bit)
                events.push(.arrival(slot: slot, to: side.other), at: batched(moment))
                if let copy { events.push(.arrival(slot: store(range, damagedBit: nil), to: side.other), at: batched(copy)) }
            }
            if count > 100_000 {
                violation = violation ?? "\(side) sends for ever"
                break
            }
        }
    }

    private func batched(_ moment: Instant) -> Instant {
        guard tick > 0 else { return moment }
        return Instant(nanoseconds: (moment.nanoseconds + UInt64(tick) - 1) / UInt64(tick) * UInt64(tick))
    }

    private static func mark(_ packet: inout [UInt8], at offset: Int) {
        var span = packet.mutableSpan
        var bytes = span.mutableBytes
        if ECN(of: bytes.bytes.extracting(offset..<bytes.byteCount)) != .notECT { ECN.ce.write(into: &bytes, at: offset) }
    }

    private func store(_ range: Range<Int>, damagedBit: Int?) -> Int {
        let slot = freeBuffers.popLast() ?? buffers.count
        if slot == buffers.count { buffers.append([]) }
        buffers[slot].removeAll(keepingCapacity: true)
        buffers[slot].append(contentsOf: writeBuffer[range])
        if let damagedBit { buffers[slot][damagedBit / 8] ^= 1 << UInt8(damagedBit % 8) }
        return slot
    }

    private func put(_ packet: [UInt8], to side: Side, at moment: Instant) {
        buffers.append(packet)
        events.push(.arrival(slot: buffers.count - 1, to: side), at: moment)
    }

    private func deliver(_ slot: Int, to side: Side) {
        let host = hosts[side.rawValue]
        defer { freeBuffers.append(slot) }
        guard !host.isGone else { return }
        let packet = buffers[slot]
        guard let (source, destination) = Self.portsOfReset(packet) else { return host.stack.receive(packet.span.bytes, now: now) }
        transmit(side, host)
        let before = watch.resets(from: side.rawValue, local: destination, remote: source)
        let evictions = host.stack.evictions
        host.stack.receive(packet.span.bytes, now: now)
        transmit(side, host)
        // A connection that gives way for memory at this very moment is reset for that.
        if watch.resets(from: side.rawValue, local: destination, remote: source) != before, host.stack.evictions == evictions {
            violation = violation ?? "a reset answers a reset"
        }
    }

    private static func portsOfReset(_ packet: [UInt8]) -> (source: UInt16, destination: UInt16)? {
        guard let ip = try? IPHeader(parsing: packet.span.bytes), ip.upperProtocol == .tcp, ip.payload.count >= TCPHeader.minimumLength,
            TCPFlags(rawValue: packet[ip.payload.lowerBound + 13]).contains(.rst)
        else { return nil }
        let start = ip.payload.lowerBound
        return (packet.span.bytes.bigEndian16(at: start), packet.span.bytes.bigEndian16(at: start + 2))
    }

    package static let port: UInt16 = 80
}

/// One end of the paths.
package final class SimulatedHost {
    package let side: StackSimulation.Side
    package let address: IPAddress
    package let configuration: StackConfiguration
    package var stack: Stack
    /// From this host to the other.
    package var path: SimulatedPath
    package var isGone = false
    var numbers: [ConnectionID: Int] = [:]

    init(
        _ side: StackSimulation.Side, _ family: IPAddress.Family, _ configuration: StackConfiguration, path: SimulatedPath, seed: UInt64,
        now: Instant
    ) {
        self.side = side
        self.configuration = configuration
        self.path = path
        let last = side == .client ? 1 : 2
        address = family == .v4 ? IPAddress(v4: 10, 1, 0, UInt8(last)) : IPAddress(v6High: 0xFD00 << 48, low: UInt64(last))
        stack = Stack(configuration: configuration, random: .seeded(seed))
        stack.setAddresses([address], now: now)
    }

    func restart(seed: UInt64, now: Instant) {
        stack = Stack(configuration: configuration, random: .seeded(seed))
        stack.setAddresses([address], now: now)
    }
}

/// What a router sends when a packet does not fit: RFC 1191 §4, RFC 4443 §3.2.
enum TooBig {
    static func message(about packet: RawSpan, to address: IPAddress, mtu: Int) -> [UInt8] {
        let isV4 = address.family == .v4
        let quoted = min(packet.byteCount, isV4 ? 28 : 1232)
        let header = isV4 ? IPHeader.minimumIPv4Length : IPHeader.ipv6Length
        let router = isV4 ? IPAddress(v4: 10, 9, 9, 9) : IPAddress(v6High: 0xFD00 << 48, low: 0x9999)
        var message = [UInt8](repeating: 0, count: header + 8 + quoted)
        var span = message.mutableSpan
        var bytes = span.mutableBytes
        IPHeader.write(
            into: &bytes, at: 0, source: router, destination: address, upperProtocol: isV4 ? .icmp : .icmpV6, payloadLength: 8 + quoted)
        bytes.store(UInt8(isV4 ? 3 : 2), at: header)
        bytes.store(UInt8(isV4 ? 4 : 0), at: header + 1)
        bytes.storeBigEndian(UInt32(mtu), at: header + 4)
        bytes.copy(packet.extracting(0..<quoted), at: header + 8)
        var checksum = InternetChecksum()
        if !isV4 { checksum.addPseudoHeader(source: router, destination: address, length: 8 + quoted, protocolNumber: 58) }
        checksum.add(bytes.bytes.extracting(header..<(header + 8 + quoted)))
        bytes.storeBigEndian(checksum.value, at: header + 2)
        return message
    }
}
