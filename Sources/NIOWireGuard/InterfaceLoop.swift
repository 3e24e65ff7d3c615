import Inet
import Logging
import NIOCore
import NIOPosix
import Noise
import TCPStack
import WGUserspace

/// Drives one `InterfaceCore` on UDP sockets: reads a batch, drains events, gives each channel one buffer, polls what is to
/// be sent into super-datagrams, re-arms one timer.
///
/// Unchecked: every member is touched on `eventLoop` only; `WireGuardInterface` is the door from other threads.
final class InterfaceLoop: @unchecked Sendable {
    let eventLoop: any EventLoop
    let logger: Logger
    var core: InterfaceCore
    let sockets: UDPSockets
    /// Which of the interface's loops this is.
    let share: LoopShare
    /// All loops of the interface by their number, if there are several, until it closes.
    var siblings: [InterfaceLoop] = []
    /// What they have for this one.
    let inbox: BoundedMailbox<Parcel>
    /// By the slot of their `ConnectionID`.
    var ports: [ConnectionPort?] = []
    var listeners: [ListenerID: AcceptHandler] = [:]
    /// By the slot of their `UDPSocketID`.
    var datagramPorts: [DatagramPort?] = []
    /// Each port at most once.
    var readQueue = CircularBuffer<any QueuedPort>()
    /// At most `PacketCapture.maximumCaptures`.
    var captures: [PacketCapture] = []
    private var isTurnScheduled = false
    private var isRestScheduled = false
    /// What dials choose their source from.
    var addresses: [InterfaceAddress] = []
    private var closing: EventLoopFuture<Void>?
    /// The clocks, read once for a batch of datagrams.
    private var batchTime: (now: Instant, wallTime: WallTime)?
    /// How long the machine has been suspended, and what was seen of it.
    private let timeSuspended: @Sendable () -> Duration
    private var knownSuspension: Duration
    private var timer: Scheduled<Void>?
    private var timerDeadline = Instant.distantFuture
    private var peerEvents: ((DeviceEvent) -> Void)?
    /// Room for a full super-datagram and one more packet behind it.
    private let outgoing = UnsafeMutableRawBufferPointer.allocate(
        byteCount: DatagramBatch.maximumBytes + InterfaceCore.maximumDatagramRoom, alignment: 64)

    /// Takes an accepted connection; runs on the interface's loop.
    typealias AcceptHandler = (ConnectionID, (local: SocketEndpoint, remote: SocketEndpoint)) -> Void

    init(
        eventLoop: any EventLoop, core: consuming InterfaceCore, logger: Logger,
        timeSuspended: @escaping @Sendable () -> Duration = SystemEdges.timeSuspended
    ) {
        self.timeSuspended = timeSuspended
        knownSuspension = timeSuspended()
        self.eventLoop = eventLoop
        self.logger = logger
        share = core.device.configuration.share
        inbox = BoundedMailbox(into: eventLoop, capacity: Self.maximumParcels)
        self.core = core
        sockets = UDPSockets(eventLoop: eventLoop, logger: logger)
    }

    deinit { outgoing.deallocate() }

    // MARK: Life

    func start(port: UInt16, mark: UInt32, peerEvents: @escaping (DeviceEvent) -> Void) -> EventLoopFuture<Void> {
        self.peerEvents = peerEvents
        return sockets.bind(port: port, mark: mark, handlers: handlers).map { [self] in scheduleTurn() }
    }

    /// The same with sockets that `port` gives it.
    func start(on port: SharedPort, mark: UInt32, among siblings: [InterfaceLoop], peerEvents: @escaping (DeviceEvent) -> Void) {
        self.peerEvents = peerEvents
        self.siblings = siblings
        sockets.begin(mark: mark, handlers: handlers)
        sockets.restore = { port.restore($0) }
        scheduleTurn()
    }

    private var handlers: UDPSockets.Handlers {
        UDPSockets.Handlers(
            receive: { [self] in receive(&$0, $1) }, batchEnded: { [self] in turn() }, unblocked: { [self] in scheduleTurn() },
            sourceRefused: { [self] in if let peer = $0.peer { core.device.forgetLocalAddress(of: peer) } })
    }

    var isClosed: Bool { closing != nil }

    /// Waits for the last bytes and FINs of connections that the application has closed.
    func drain(until deadline: NIODeadline) -> EventLoopFuture<Void> {
        guard !isClosed, core.stack.lingeringConnections > 0, .now() < deadline else { return eventLoop.makeSucceededVoidFuture() }
        return eventLoop.scheduleTask(in: Self.drainInterval) {}.futureResult.flatMap { [self] in drain(until: deadline) }
    }

    /// Connections end with a reset, the datagrams that say so are sent, keys are wiped.
    func close() -> EventLoopFuture<Void> {
        if let closing { return closing }
        let closed = eventLoop.makePromise(of: Void.self)
        // First, so that nothing new begins while handlers hear of the end.
        closing = closed.futureResult
        timer?.cancel()
        listeners = [:]
        peerEvents = nil
        siblings = []
        let now = SystemEdges.now
        while let event = core.stack.pollEvent() {
            switch event {
            case .closed(let id, let reason): port(for: id)?.finish(TunnelError(reason))
            case .udpClosed(let id): datagramPort(for: id)?.finish(.aborted)
            case .accepted, .connected, .readable, .writable, .inputClosed, .inputReset, .urgent, .datagrams, .udpWritable, .udpError: break
            }
        }
        var ends = ports.compactMap { $0?.channel?.closeFuture }
        ends += closeDatagramPorts()
        transmit(now: now)
        while core.stack.abortAll(atMost: Self.resetsAtOnce, now: now) { transmit(now: now) }
        transmit(now: now)
        for case let port? in ports where port.id != nil { port.finish(.interfaceClosed) }
        // The first loop speaks for all.
        if share.index == 0 { for capture in captures { capture.finish(.interfaceClosed) } }
        captures = []
        core.taps = nil
        readQueue = []
        for peer in core.device.peerIDs { core.device.removePeer(peer, now: now) }
        core.device.setPrivateKey(.generate(using: SystemEdges.random), now: now)
        ends.append(sockets.close())
        EventLoopFuture.andAllComplete(ends, on: eventLoop).cascade(to: closed)
        return closed.futureResult
    }

    /// Runs `body` on the core, then looks what there is to send. On the interface's loop.
    func withCore<Result>(_ body: (inout InterfaceCore, Instant) throws -> Result) rethrows -> Result {
        eventLoop.preconditionInEventLoop()
        defer { scheduleTurn() }
        return try body(&core, SystemEdges.now)
    }

    var udpCounters: UDPSockets.Counters { sockets.counters }

    // MARK: The turn

    func receive(_ datagram: inout MutableRawSpan, _ arrival: Arrival) {
        guard !isClosed else { return }
        if batchTime == nil { endSuspension(now: SystemEdges.now) }
        let time = batchTime ?? (SystemEdges.now, SystemEdges.wallTime)
        batchTime = time
        let loop = core.receive(
            &datagram, from: arrival.source, to: arrival.local, ecn: ECN(trafficClass: arrival.ecn), now: time.now, wallTime: time.wallTime)
        if let loop { handOver(datagram.bytes, arrival, to: loop) }
    }

    func scheduleTurn() {
        guard !isTurnScheduled, !isClosed else { return }
        isTurnScheduled = true
        eventLoop.execute { [self] in
            isTurnScheduled = false
            turn()
        }
    }

    private func turn() {
        batchTime = nil
        guard !isClosed else { return }
        let now = SystemEdges.now
        endSuspension(now: now)
        if let deadline = core.nextDeadline, deadline <= now { core.handleTimeout(now: now) }
        drainEvents()
        var left = readQueue.count
        while left > 0, let port = readQueue.popFirst() {
            left -= 1
            port.isQueuedForRead = false
            port.deliver()
        }
        transmit(now: now)
        if core.device.hasQueuedHandshakes { serveHandshakes() }
        drainEvents()
        if !readQueue.isEmpty { scheduleTurn() }
        armTimer()
    }

    /// The keys of before a suspension are gone before anything is opened or sealed with them (WG §6.3; Linux wipes them then, too).
    private func endSuspension(now: Instant) {
        let suspended = timeSuspended()
        guard suspended - knownSuspension >= Self.shortestSuspension else { return }
        knownSuspension = suspended
        core.device.wipeSessions(now: now)
        logger.info("The machine was suspended; all sessions begin anew")
    }

    /// Behind data, and for a part of the time only: a flood of handshakes does not stop what is under way. If more wait, the sockets
    /// are looked at first.
    private func serveHandshakes() {
        let wallTime = SystemEdges.wallTime
        let start = SystemEdges.now
        var now = start
        repeat {
            core.device.handleQueuedHandshake(now: now, wallTime: wallTime)
            now = SystemEdges.now
            handOverInitiations()
        } while core.device.hasQueuedHandshakes && now - start < Self.handshakeTurn
        core.device.recordHandshakeWork(now - start, now: now)
        transmit(now: now)
        if core.device.hasQueuedHandshakes { turnSoon() }
    }

    private func drainEvents() {
        while let event = core.stack.pollEvent() { handle(event) }
        while let event = core.device.pollEvent() { peerEvents?(event) }
    }

    private func handle(_ event: StackEvent) {
        switch event {
        case .connected(let id):
            guard let port = port(for: id), let endpoints = core.stack.endpoints(of: id) else { return }
            port.handleConnected(local: endpoints.local, remote: endpoints.remote)
        case .accepted(let listener, let id):
            guard let accept = listeners[listener], let endpoints = core.stack.endpoints(of: id) else {
                core.stack.abort(id, now: SystemEdges.now)
                return
            }
            accept(id, endpoints)
        case .readable(let id): if let port = port(for: id) { queueForRead(port) }
        case .writable(let id): port(for: id)?.handleWritable()
        // Urgent data is read in line.
        case .urgent: break
        case .inputClosed(let id): port(for: id)?.handleInputClosed()
        case .inputReset(let id): port(for: id)?.handleInputReset()
        case .closed(let id, let reason): port(for: id)?.finish(TunnelError(reason))
        case .datagrams(let id): if let port = datagramPort(for: id) { queueForRead(port) }
        case .udpWritable(let id): datagramPort(for: id)?.handleWritable()
        case .udpError(let id, let failure): datagramPort(for: id)?.handleFailure(failure)
        case .udpClosed(let id): datagramPort(for: id)?.finish(.aborted)
        }
    }

    // MARK: Sending

    private func transmit(now: Instant) {
        let wallTime = SystemEdges.wallTime
        var batch: DatagramBatch?
        var left = Self.maximumTurnBytes
        while !sockets.isBlocked {
            guard left > 0 else {
                turnSoon()
                break
            }
            var buffer = MutableRawSpan(_unsafeBytes: outgoing)
            let offset = batch?.range.upperBound ?? 0
            guard let next = core.pollTransmit(into: &buffer, at: offset, now: now, wallTime: wallTime) else { break }
            if var open = batch, open.take(next) {
                batch = open
            } else {
                if let batch { left -= send(batch) }
                batch = DatagramBatch(next)
            }
            if let full = batch, full.isFull {
                left -= send(full)
                batch = nil
            }
        }
        // What was polled is sealed and has to go, even if it has to wait for the kernel's buffer.
        if let batch { _ = send(batch) }
    }

    /// The rest of a long turn. A timer, because the loop runs tasks that are ready before it looks at its sockets.
    private func turnSoon() {
        guard !isRestScheduled else { return }
        isRestScheduled = true
        eventLoop.scheduleTask(in: Self.breath) { [self] in
            isRestScheduled = false
            turn()
        }
    }

    /// - Returns: what it cost, in bytes.
    private func send(_ batch: DatagramBatch) -> Int {
        sockets.send(UnsafeRawBufferPointer(rebasing: outgoing[batch.range]), batch.departure)
        return max(batch.range.count, Self.costOfSend)
    }

    // MARK: Timer

    /// One scheduled task. A later deadline lets it fire early and look again; an earlier one replaces it.
    private func armTimer() {
        guard let deadline = core.nextDeadline, deadline < timerDeadline else { return }
        timer?.cancel()
        timerDeadline = deadline
        let delay = max(Self.shortestDelay, min(Self.longestDelay, .nanoseconds((deadline - SystemEdges.now).inNanoseconds)))
        timer = eventLoop.scheduleTask(in: delay) { [self] in
            timerDeadline = .distantFuture
            timer = nil
            turn()
        }
    }

    /// What a turn may send before the sockets are looked at again.
    private static let maximumTurnBytes = 4 * 1024 * 1024
    /// A send call costs about as much as this many bytes in large batches.
    private static let costOfSend = 8 * 1024
    /// What handshakes may take of a turn: some of them, beside the millisecond or more that a batch of data takes.
    private static let handshakeTurn = Duration.microseconds(300)
    private static let breath = TimeAmount.microseconds(10)
    /// A deadline that is never met must not become a busy loop.
    private static let shortestDelay = TimeAmount.microseconds(250)
    /// The loop's timers stand still while the machine is suspended: what was due meanwhile is done so soon after.
    private static let longestDelay = TimeAmount.seconds(30)
    /// Two clocks are not read at one moment.
    private static let shortestSuspension = Duration.milliseconds(500)
    private static let resetsAtOnce = 1024
    private static let drainInterval = TimeAmount.milliseconds(10)
}
