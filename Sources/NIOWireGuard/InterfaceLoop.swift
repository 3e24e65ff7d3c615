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
    private var core: InterfaceCore
    private let sockets: UDPSockets
    private var ports: [ConnectionPort?] = []
    private var listeners: [ListenerID: AcceptHandler] = [:]
    private var readQueue = CircularBuffer<ConnectionPort>()
    private var isTurnScheduled = false
    private var isClosed = false
    private var timer: Scheduled<Void>?
    private var timerDeadline = Instant.distantFuture
    private var peerEvents: ((DeviceEvent) -> Void)?
    /// Room for a full super-datagram and one more packet behind it.
    private let outgoing = UnsafeMutableRawBufferPointer.allocate(
        byteCount: InterfaceLoop.maximumBatchBytes + InterfaceCore.maximumDatagramRoom, alignment: 64)

    /// Takes an accepted connection; runs on the interface's loop.
    typealias AcceptHandler = (ConnectionID, (local: SocketEndpoint, remote: SocketEndpoint)) -> Void

    init(eventLoop: any EventLoop, core: consuming InterfaceCore, logger: Logger) {
        self.eventLoop = eventLoop
        self.logger = logger
        self.core = core
        sockets = UDPSockets(eventLoop: eventLoop, logger: logger)
    }

    deinit { outgoing.deallocate() }

    // MARK: Life

    func start(port: UInt16, peerEvents: @escaping (DeviceEvent) -> Void) -> EventLoopFuture<UInt16> {
        self.peerEvents = peerEvents
        return sockets.bind(
            port: port, receive: { [self] in receive(&$0, from: $1) }, batchEnded: { [self] in turn() },
            unblocked: { [self] in scheduleTurn() }
        ).map { [self] in
            scheduleTurn()
            return sockets.port
        }
    }

    /// Connections end with a reset, the datagrams that say so are sent, keys are wiped with the core.
    func close() -> EventLoopFuture<Void> {
        guard !isClosed else { return eventLoop.makeSucceededVoidFuture() }
        let now = SystemEdges.now
        for port in ports {
            guard let port, let id = port.id else { continue }
            core.stack.abort(id, now: now)
            port.finish(.interfaceClosed)
        }
        transmit(now: now)
        isClosed = true
        timer?.cancel()
        listeners = [:]
        readQueue = []
        peerEvents = nil
        for peer in core.device.peerIDs { core.device.removePeer(peer, now: now) }
        return sockets.close()
    }

    /// Runs `body` on the core, then looks what there is to send. On the interface's loop.
    func withCore<Result>(_ body: (inout InterfaceCore, Instant) throws -> Result) rethrows -> Result {
        eventLoop.preconditionInEventLoop()
        defer { scheduleTurn() }
        return try body(&core, SystemEdges.now)
    }

    var udpCounters: UDPSockets.Counters { sockets.counters }

    // MARK: The turn

    private func receive(_ datagram: inout MutableRawSpan, from source: SocketEndpoint) {
        guard !isClosed else { return }
        core.receive(&datagram, from: source, now: SystemEdges.now, wallTime: SystemEdges.wallTime)
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
        guard !isClosed else { return }
        let now = SystemEdges.now
        drainEvents()
        var left = readQueue.count
        while left > 0, let port = readQueue.popFirst() {
            left -= 1
            port.isQueuedForRead = false
            port.deliver()
        }
        transmit(now: now)
        drainEvents()
        if !readQueue.isEmpty { scheduleTurn() }
        armTimer()
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
        case .inputClosed(let id): port(for: id)?.handleInputClosed()
        case .closed(let id, let reason): port(for: id)?.finish(TunnelError(reason))
        }
    }

    // MARK: Sending

    private func transmit(now: Instant) {
        guard !sockets.isBlocked else { return }
        let wallTime = SystemEdges.wallTime
        var batch: Batch?
        while !sockets.isBlocked {
            var buffer = MutableRawSpan(_unsafeBytes: outgoing)
            let offset = batch?.range.upperBound ?? 0
            guard let next = core.pollTransmit(into: &buffer, at: offset, now: now, wallTime: wallTime) else { break }
            if var open = batch, open.take(next) {
                batch = open
            } else {
                if let batch { send(batch) }
                batch = Batch(next)
            }
            if let full = batch, full.isFull {
                send(full)
                batch = nil
            }
        }
        if let batch { send(batch) }
    }

    private func send(_ batch: Batch) {
        sockets.send(
            UnsafeRawBufferPointer(rebasing: outgoing[batch.range]), segmentSize: batch.segmentSize, to: batch.endpoint,
            trafficClass: batch.isHandshake ? Self.handshakeTrafficClass : 0)
    }

    /// Datagrams that lie back to back and may leave as one super-datagram: one destination, one size, only the last shorter.
    private struct Batch {
        var range: Range<Int>
        let segmentSize: Int
        let endpoint: SocketEndpoint
        let isHandshake: Bool
        var count = 1
        var hasShortTail = false

        init(_ first: Transmit) {
            range = first.range
            segmentSize = first.range.count
            endpoint = first.endpoint
            isHandshake = first.isHandshake
        }

        var isFull: Bool {
            isHandshake || hasShortTail || count == InterfaceLoop.maximumSegments
                || range.upperBound + segmentSize > InterfaceLoop.maximumBatchBytes
        }

        mutating func take(_ next: Transmit) -> Bool {
            guard next.endpoint == endpoint, !next.isHandshake, next.range.lowerBound == range.upperBound,
                next.range.count <= segmentSize
            else { return false }
            range = range.lowerBound..<next.range.upperBound
            count += 1
            hasShortTail = next.range.count < segmentSize
            return true
        }
    }

    // MARK: Timer

    /// One scheduled task. A later deadline lets it fire early and look again; an earlier one replaces it.
    private func armTimer() {
        guard let deadline = core.nextDeadline, deadline < timerDeadline else { return }
        timer?.cancel()
        timerDeadline = deadline
        let delay = max(0, (deadline - SystemEdges.now).inNanoseconds)
        timer = eventLoop.scheduleTask(in: .nanoseconds(delay)) { [self] in
            timerDeadline = .distantFuture
            timer = nil
            guard !isClosed else { return }
            core.handleTimeout(now: SystemEdges.now)
            turn()
        }
    }

    // MARK: Connections

    func connect(
        port: ConnectionPort, to remote: SocketEndpoint, from source: IPAddress?, options: ConnectionOptions
    ) -> Result<ConnectionID, TunnelError> {
        guard !isClosed else { return .failure(.interfaceClosed) }
        guard let source = source ?? sourceAddress(for: remote.address) else { return .failure(.noSourceAddress) }
        defer { scheduleTurn() }
        do {
            let id = try core.stack.connect(from: source, to: remote, options: options, now: SystemEdges.now)
            register(port, for: id)
            return .success(id)
        } catch { return .failure(.unavailable("\(error)")) }
    }

    /// The address whose prefix holds `remote`, else the first of its family.
    var addresses: [InterfaceAddress] = []
    private func sourceAddress(for remote: IPAddress) -> IPAddress? { InterfaceAddress.source(for: remote, among: addresses) }

    func listen(
        address: IPAddress?, port: UInt16, backlog: Int, options: ConnectionOptions, accept: @escaping AcceptHandler
    ) throws -> ListenerID {
        let id = try core.stack.listen(address: address, port: port, backlog: backlog, options: options)
        listeners[id] = accept
        return id
    }

    func closeListener(_ id: ListenerID) {
        listeners[id] = nil
        core.stack.closeListener(id, now: SystemEdges.now)
        scheduleTurn()
    }

    func register(_ port: ConnectionPort, for id: ConnectionID) {
        let index = Int(id.index)
        while ports.count <= index { ports.append(nil) }
        ports[index] = port
    }

    func forget(_ id: ConnectionID, port: ConnectionPort) {
        let index = Int(id.index)
        if ports.indices.contains(index), ports[index] === port { ports[index] = nil }
    }

    private func port(for id: ConnectionID) -> ConnectionPort? {
        let index = Int(id.index)
        guard ports.indices.contains(index), let port = ports[index], port.id == id else { return nil }
        return port
    }

    func queueForRead(_ port: ConnectionPort) {
        guard !port.isQueuedForRead else { return }
        port.isQueuedForRead = true
        readQueue.append(port)
        scheduleTurn()
    }

    /// - Returns: how many bytes the send buffer took.
    func write(_ buffer: ByteBuffer, to id: ConnectionID) -> Int {
        defer { scheduleTurn() }
        return buffer.withUnsafeReadableBytes { bytes in
            (try? core.stack.write(id, RawSpan(_unsafeBytes: bytes), now: SystemEdges.now)) ?? 0
        }
    }

    /// The in-order bytes that there are, at most `maximumRead`; `nil` if none.
    func read(_ id: ConnectionID) -> ByteBuffer? {
        let available = min(core.stack.readableBytes(id), Self.maximumRead)
        guard available > 0 else { return nil }
        var buffer = ByteBufferAllocator().buffer(capacity: available)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: available) { bytes in
            var span = MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: bytes[..<available]))
            return (try? core.stack.read(id, into: &span, now: SystemEdges.now)) ?? 0
        }
        if core.stack.readableBytes(id) > 0, let port = port(for: id) { queueForRead(port) }
        return buffer.readableBytes > 0 ? buffer : nil
    }

    func closeWrite(_ id: ConnectionID) { withCore { $0.stack.closeWrite(id, now: $1) } }
    func close(_ id: ConnectionID) { withCore { $0.stack.close(id, now: $1) } }
    func abort(_ id: ConnectionID) { withCore { $0.stack.abort(id, now: $1) } }

    /// One channel read: large enough to amortise the pipeline, small enough to keep a turn short.
    private static let maximumRead = 256 * 1024
    /// UDP_SEGMENT's limits.
    fileprivate static let maximumSegments = 64
    fileprivate static let maximumBatchBytes = 65_000
    /// DSCP AF41, as WireGuard marks handshake messages.
    private static let handshakeTrafficClass: UInt8 = 0x88
}
