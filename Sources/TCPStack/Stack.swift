import Inet

/// A TCP/IP stack without sockets, threads or clocks: packets and time go in, packets and events come out.
///
/// ```
///  receive(packet) ──► Stack+Receive ──► TCPConnection ──► pollEvent
///  write, read, close ──► TCPConnection ──► pollTransmit ──► packets
///  handleTimeout(now) at nextDeadline
/// ```
/// Call `receive` for each packet of a batch, then take all events, then `pollTransmit` until it gives `nil`: ACKs are decided
/// there, once for a batch and connection. Not thread-safe: one owner.
///
/// Source: RFC 9293, RFC 768, RFC 1122, RFC 7323, RFC 2018, RFC 6675, RFC 5681, RFC 9438, RFC 6298, RFC 5961, RFC 792, RFC 4443.
public struct Stack: ~Copyable {
    var configuration: StackConfiguration
    let random: RandomSource
    let textSource: TextBlockSource
    var addresses: [IPAddress] = []
    var connections = Slab<TCPConnection>()
    var listeners = Slab<Listener>()
    var listenersByPort: [UInt16: [Slab<Listener>.Handle]] = [:]
    var timeWait: TimeWaitTable
    var synQueue: SYNQueue
    var synCookies: SYNCookies
    var fragments = FragmentReassembler()
    var flows = FlowTable()
    let flowHash: SipHash
    let initialSequence: InitialSequence
    var ephemeralPorts: EphemeralPorts
    var deadlines = DeadlineQueue()
    var transmitQueue = Fifo<Slab<TCPConnection>.Handle>()
    var eventQueue = Fifo<Slab<TCPConnection>.Handle>()
    /// Segments that the connection at the head of `transmitQueue` has sent in its turn.
    var burst = 0
    /// The slot of the connection whose packet left last; -1 if it was nobody's.
    var lastSender = -1
    var udp = UDPTable()
    var replies: ReplyQueue
    var scratch: [UInt8]
    var resetLimit = TokenBucket(rate: Stack.repliesPerSecond, burst: Stack.repliesPerSecond)
    var icmpLimit = TokenBucket(rate: Stack.repliesPerSecond, burst: Stack.repliesPerSecond)
    var bufferedBytes = 0
    var bufferMemory = 0
    var pathMTUs = PathMTUCache()
    /// Connections reset because memory was short.
    public internal(set) var evictions: UInt64 = 0
    /// What `totals` begins with.
    var tally = StackTotals()

    /// What was not taken, by reason.
    public internal(set) var drops = DropCounters()

    /// How often SYN cookies had to be used.
    public internal(set) var synCounters = SYNCounters()

    /// - Parameters:
    ///   - configuration: bounds and times. The MTU is clamped to 576...65,535.
    ///   - random: for initial sequence numbers, hashes and ports. Must be cryptographically secure outside of tests.
    ///   - textSource: gives the memory that `take` hands over.
    public init(configuration: StackConfiguration, random: RandomSource, textSource: TextBlockSource = TextBlockSource()) {
        self.textSource = textSource
        var configuration = configuration
        configuration.mtu = min(max(configuration.mtu, 576), 65_535)
        self.configuration = configuration
        self.random = random
        timeWait = TimeWaitTable(limit: configuration.maximumTimeWait)
        synQueue = SYNQueue(configuration)
        synCookies = SYNCookies(random: random)
        flowHash = SipHash(random: random)
        initialSequence = InitialSequence(random: random)
        ephemeralPorts = EphemeralPorts(random: random)
        replies = ReplyQueue(limit: configuration.maximumReplyBytes)
        scratch = [UInt8](repeating: 0, count: configuration.mtu)
    }

    /// Sets the addresses that are ours. Connections from an address that is no longer ours end with `.aborted`.
    public mutating func setAddresses(_ addresses: [IPAddress], now: Instant) {
        self.addresses = addresses
        for index in 0..<connections.slotCount where connections.isOccupied(index) {
            if !addresses.contains(connections[index].local.address) { drop(index, now: now) }
        }
        dropUDP(local: { !addresses.contains($0) })
        for index in 0..<synQueue.slotCount where synQueue.isOccupied(index) {
            if !addresses.contains(synQueue[index].local.address) { removeHalfOpen(index) }
        }
        fragments.removeAll { !addresses.contains($1) }
    }

    /// The earliest moment at which `handleTimeout` has something to do; may be too early, never too late.
    public var nextDeadline: Instant? {
        let tables = min(synQueue.next ?? .distantFuture, fragments.next ?? .distantFuture, udp.nextSweep ?? .distantFuture)
        let earliest = min(deadlines.next ?? .distantFuture, timeWait.next ?? .distantFuture, tables)
        return earliest == .distantFuture ? nil : earliest
    }

    /// Fires every timer that is due. Poll for events and packets afterwards.
    public mutating func handleTimeout(now: Instant) {
        while let index = deadlines.popExpired(now: now) {
            guard connections.isOccupied(index) else { continue }
            if connections[index].timers.earliest <= now { connections[index].handleTimeout(now: now) }
            settle(index, now: now)
        }
        while let index = synQueue.popExpired(now: now) { halfOpenTimedOut(index, now: now) }
        while let index = timeWait.oldest(expiredBy: now) { removeTimeWait(index) }
        if let sweep = udp.nextSweep, sweep <= now { releaseIdleUDP(now: now) }
        expireFragments(now: now)
    }

    /// The next event, in the order of the connections that have one, then of UDP sockets.
    public mutating func pollEvent() -> StackEvent? {
        while let handle = eventQueue.first {
            guard let index = connections.index(of: handle) else {
                eventQueue.popFirst()
                continue
            }
            if let event = takeEvent(index) { return event }
            connections[index].flags.remove(.isQueuedForEvents)
            eventQueue.popFirst()
        }
        return pollUDPEvent()
    }

    /// How much the stack holds.
    public struct Counts: Sendable, Equatable {
        /// Connections whose ID is alive.
        public var connections: Int
        /// Connections that a peer has begun and not completed.
        public var halfOpen: Int
        public var timeWait: Int
        public var listeners: Int
        public var udpSockets: Int
        /// Bytes that wait to be acknowledged or read, or to leave a UDP socket.
        public var bufferedBytes: Int
        /// Bytes of memory that buffers hold.
        public var bufferMemory: Int
        /// Bytes that fragments of incomplete datagrams take.
        public var fragmentMemory: Int
    }

    public var counts: Counts {
        Counts(
            connections: connections.count, halfOpen: synQueue.count, timeWait: timeWait.count, listeners: listeners.count,
            udpSockets: udp.sockets.count, bufferedBytes: bufferedBytes, bufferMemory: bufferMemory, fragmentMemory: fragments.byteCount)
    }

    /// Entries in all tables that a connection can leave something in; 0 when nothing is left. For tests.
    package var tableEntries: Int {
        connections.count + timeWait.count + synQueue.count + synQueue.peerCount + fragments.count + flows.count + deadlines.count
            + replies.byteCount + udp.sockets.count
    }

    /// Forgets everything about remote addresses inside `prefixes`: connections end with `.aborted`, without a reset on the wire;
    /// UDP sockets with such a remote end, and datagrams from and to these addresses that wait are dropped.
    public mutating func purge(remote prefixes: [IPPrefix], now: Instant) {
        for index in 0..<connections.slotCount where connections.isOccupied(index) {
            let remote = connections[index].remote.address
            if prefixes.contains(where: { $0.contains(remote) }) { drop(index, now: now) }
        }
        for index in 0..<synQueue.slotCount where synQueue.isOccupied(index) {
            let remote = synQueue[index].remote.address
            if prefixes.contains(where: { $0.contains(remote) }) { removeHalfOpen(index) }
        }
        fragments.removeAll { source, _ in prefixes.contains { $0.contains(source) } }
        for index in timeWait.indices(where: { remote in prefixes.contains { $0.contains(remote) } }) { removeTimeWait(index) }
        dropUDP(remote: { remote in prefixes.contains { $0.contains(remote) } })
    }

    private mutating func drop(_ index: Int, now: Instant) {
        connections[index].abort(.aborted)
        connections[index].flags.remove(.needsReset)
        settle(index, now: now)
    }

    private mutating func takeEvent(_ index: Int) -> StackEvent? {
        let handle = connections.handle(at: index)
        let id = ConnectionID(index: handle.index, generation: handle.generation)
        let events = connections[index].events
        if events.contains(.opened) {
            connections[index].events.remove(.opened)
            connections[index].flags.insert(.isKnown)
            guard let listener = connections[index].listener else { return .connected(id) }
            connections[index].listener = nil
            leaveQueues(index, listener: listener)
            return .accepted(listener, id)
        }
        if events.contains(.urgent) {
            connections[index].events.remove(.urgent)
            return .urgent(id)
        }
        if events.contains(.readable) {
            connections[index].events.remove(.readable)
            return .readable(id)
        }
        if events.contains(.inputClosed) {
            connections[index].events.remove(.inputClosed)
            return .inputClosed(id)
        }
        if events.contains(.inputReset) {
            connections[index].events.remove(.inputReset)
            return .inputReset(id)
        }
        if events.contains(.writable) {
            connections[index].events.remove(.writable)
            return .writable(id)
        }
        guard events.contains(.closed) else { return nil }
        let reason = connections[index].closeReason
        release(index)
        return .closed(id, reason)
    }

    /// Segments of one connection in a row before another has its turn: long enough for offload batches, short enough to be fair.
    static let largestBurst = 32
    /// Resets, and ICMP messages, in a second.
    static let repliesPerSecond = 1000
}
