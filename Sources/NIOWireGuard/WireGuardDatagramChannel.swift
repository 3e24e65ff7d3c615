import Inet
import NIOConcurrencyHelpers
import NIOCore
import Synchronization
import TCPStack

/// A SwiftNIO `Channel` over one UDP socket inside a WireGuard interface. It reads and writes `AddressedEnvelope<ByteBuffer>`; one
/// that is connected also writes `ByteBuffer`.
///
/// Its pipeline may live on another event loop than the interface. Each datagram is one packet: larger ones than the MTU allows
/// fail with `TunnelError.messageTooLarge` (RFC 8085 §3.2). A write succeeds when the stack has queued it. Above the high mark of
/// bytes that the stack has not taken the channel is unwritable; beyond `maximumBufferedBytes` writes fail with
/// `TunnelError.queueFull`. Without a `read` datagrams wait in the stack, whose queue drops the newest when it is full.
///
/// A socket on all addresses hands each datagram with `metadata.packetInfo`, which holds the address that it was sent to; an envelope
/// that is written with it leaves from that address. What ICMP says of a datagram: a connected channel gets `TunnelError.unreachable`
/// as an error, and stays open; everything else is a user inbound event, `DeliveryFailure`.
///
/// Supported options: `autoRead`, `writeBufferWaterMark`, `maxMessagesPerRead` (at most so many datagrams a read), and to get only,
/// `bufferedWritableBytes`. Any other throws `ChannelError.operationUnsupported`.
///
/// Unchecked: the mutable members are touched on `eventLoop` only; what other threads may read is atomic or locked.
public final class WireGuardDatagramChannel: Channel, ChannelCore, @unchecked Sendable {
    public let allocator = ByteBufferAllocator()
    public let eventLoop: any EventLoop
    public let closeFuture: EventLoopFuture<Void>
    public var parent: (any Channel)? { nil }
    public var _channelCore: any ChannelCore { self }
    /// Made in `init`, so that later reads from any thread see it.
    public private(set) lazy var pipeline = ChannelPipeline(channel: self)

    private let closePromise: EventLoopPromise<Void>
    private let addresses = NIOLockedValueBox<(local: SocketAddress?, remote: SocketAddress?)>((nil, nil))
    private let active = Atomic<Bool>(false)
    private let writable = Atomic<Bool>(true)

    private var state = DatagramChannelState()
    /// One for each loop of the interface, by its number: the lanes of the channel.
    private var ports: [DatagramPort] = []
    /// The lane of what goes to an address.
    private var lane: (IPAddress) -> Int = { _ in 0 }
    /// While it opens: what the lanes have still to open.
    private var lanesToOpen = 0
    private var opening: DatagramPort.Opening?
    private var opened: (local: SocketEndpoint, remote: SocketEndpoint?)?
    /// Batches of other lanes than the one that answered the last read, at most one of each.
    private var surplus = CircularBuffer<[AddressedEnvelope<ByteBuffer>]>()
    private var openPromise: EventLoopPromise<Void>?
    private var isConnected = false
    private var connectedAddress: IPAddress?
    /// A write's promise may write and flush again: the outermost flush takes it along, so that the stack stays flat.
    private var isFlushing = false
    private var isReadPending = false
    private var hasAnnouncedRegistration = false
    private var hasAnnouncedActive = false
    private var autoRead = true
    private var maximumPerRead: UInt = 32
    private var waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 64 * 1024, high: 256 * 1024)

    /// An ICMP error about a datagram that this channel has sent.
    public struct DeliveryFailure: Sendable, Equatable {
        /// Where the datagram was going.
        public let remote: SocketAddress
        public let reason: UDPFailure.Reason
    }

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        closePromise = eventLoop.makePromise()
        closeFuture = closePromise.futureResult
        _ = pipeline
    }

    public var localAddress: SocketAddress? { addresses.withLockedValue { $0.local } }
    public var remoteAddress: SocketAddress? { addresses.withLockedValue { $0.remote } }
    public var isActive: Bool { active.load(ordering: .acquiring) }
    public var isWritable: Bool { writable.load(ordering: .acquiring) }
    public var syncOptions: (any NIOSynchronousChannelOptions)? { SynchronousOptions(channel: self) }

    public func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) -> EventLoopFuture<Void> {
        // The boxes carry the value to the channel's own loop; nobody else touches it meanwhile.
        let box = UncheckedBox((option, value))
        if eventLoop.inEventLoop { return eventLoop.makeCompletedFuture { try set(option, value) } }
        return eventLoop.submit { try self.set(box.value.0, box.value.1) }
    }

    public func getOption<Option: ChannelOption>(_ option: Option) -> EventLoopFuture<Option.Value> {
        let box = UncheckedBox(option)
        if eventLoop.inEventLoop { return eventLoop.makeCompletedFuture(Result { try get(option) }) }
        return eventLoop.submit { UncheckedBox(try self.get(box.value)) }.map { $0.value }
    }

    // MARK: Becoming a socket

    /// Ties the channel to the interface. Then its initializer adds handlers, and `open` follows.
    /// - Parameter lane: the number of the port for an address; not asked if there is only one.
    func start(ports: [DatagramPort], lane: @escaping @Sendable (IPAddress) -> Int) {
        eventLoop.preconditionInEventLoop()
        self.ports = ports
        if ports.count > 1 {
            self.lane = lane
            state = DatagramChannelState(laneCount: ports.count)
        }
        state.register()
    }

    /// Opens the socket. `start` has been called.
    func open(_ opening: DatagramPort.Opening, promise: EventLoopPromise<Void>?) {
        eventLoop.preconditionInEventLoop()
        guard state.open() else {
            promise?.fail(ChannelError.inappropriateOperationForState)
            return
        }
        openPromise = promise
        hasAnnouncedRegistration = true
        pipeline.fireChannelRegistered()
        self.opening = opening
        lanesToOpen = ports.count
        ports.first?.request(.open(opening))
    }

    // MARK: Notices of the interface

    func handle(_ notice: DatagramPort.Notice, from lane: Int) {
        eventLoop.preconditionInEventLoop()
        switch notice {
        case .opened(let local, let remote): handleOpened(local: local, remote: remote, lane: lane)
        case .received(let envelopes):
            // With several lanes one read is answered by each.
            if ports.count > 1, !isReadPending {
                if state.isOpen { surplus.append(envelopes) }
            } else {
                deliver(envelopes)
            }
        case .written(let outcomes): handleWritten(outcomes, lane: lane)
        case .failed(let failure):
            guard state.isActive else { return }
            if isConnected, failure.reason == .unreachable {
                pipeline.fireErrorCaught(TunnelError.unreachable)
            } else if let remote = SocketAddress(failure.remote) {
                pipeline.fireUserInboundEventTriggered(DeliveryFailure(remote: remote, reason: failure.reason))
            }
        case .closed(let error):
            let others = ports
            tearDown(error)
            close(others)
        }
    }

    /// The first lane chooses the port, and decides whether it is free; it is closed last, so that the others have it free then, too.
    private func handleOpened(local: SocketEndpoint, remote: SocketEndpoint?, lane: Int) {
        guard var opening else { return }
        lanesToOpen -= 1
        if lane == 0 {
            opened = (local, remote)
            opening.port = local.port
            for port in ports.dropFirst() { port.request(.open(opening)) }
        }
        guard lanesToOpen == 0, let opened else { return }
        self.opening = nil
        activate(local: opened.local, remote: opened.remote)
    }

    private func close(_ ports: [DatagramPort]) {
        for port in ports.reversed() { port.request(.close) }
    }

    private func deliver(_ envelopes: [AddressedEnvelope<ByteBuffer>]) {
        isReadPending = false
        for envelope in envelopes {
            guard state.isOpen else { return }
            pipeline.fireChannelRead(envelope)
        }
        guard state.isOpen else { return }
        pipeline.fireChannelReadComplete()
        readIfAutomatic()
    }

    private func activate(local: SocketEndpoint, remote: SocketEndpoint?) {
        guard state.activate() else { return }
        isConnected = remote != nil
        connectedAddress = remote?.address
        let (localAddress, remoteAddress) = (SocketAddress(local), remote.flatMap { SocketAddress($0) })
        addresses.withLockedValue { $0 = (localAddress, remoteAddress) }
        active.store(true, ordering: .releasing)
        let promise = openPromise
        openPromise = nil
        promise?.succeed(())
        guard state.isActive else { return }
        announceActive()
        readIfAutomatic()
        if state.hasFlushed { flush0() }
    }

    private func handleWritten(_ outcomes: [TunnelError?], lane: Int) {
        guard state.isOpen else { return }
        let done = outcomes.map { (state.removeFirst(of: lane), $0) }
        if state.bufferedBytes <= waterMark.low, !writable.load(ordering: .relaxed) {
            writable.store(true, ordering: .releasing)
            pipeline.fireChannelWritabilityChanged()
        }
        for (promise, error) in done {
            if let error { promise?.fail(error) } else { promise?.succeed(()) }
        }
    }

    private func readIfAutomatic() {
        if autoRead, state.isActive { pipeline.read() }
    }

    private func announceActive() {
        guard !hasAnnouncedActive else { return }
        hasAnnouncedActive = true
        pipeline.fireChannelActive()
    }

    private func tearDown(_ error: TunnelError?) {
        let wasActive = state.isActive
        guard state.close() else { return }
        active.store(false, ordering: .releasing)
        ports = []
        surplus = []
        opening = nil
        let failure: any Error = error ?? ChannelError.ioOnClosedChannel
        for promise in state.removeAllPromises() { promise.fail(failure) }
        let opening = openPromise
        openPromise = nil
        opening?.fail(failure)
        if wasActive {
            // Closed within the promise of `open`: handlers that were added there know it as active, and hear of its end like the others.
            announceActive()
            if let error { pipeline.fireErrorCaught(error) }
            pipeline.fireChannelInactive()
        }
        if hasAnnouncedRegistration { pipeline.fireChannelUnregistered() }
        // On the next tick: a handler may still be on the stack.
        eventLoop.execute {
            self.removeHandlers(pipeline: self.pipeline)
            self.closePromise.succeed(())
        }
    }

    // MARK: ChannelCore

    public func localAddress0() throws -> SocketAddress {
        guard let address = localAddress else { throw ChannelError.unknownLocalAddress }
        return address
    }

    public func remoteAddress0() throws -> SocketAddress {
        guard let address = remoteAddress else { throw ChannelError.inappropriateOperationForState }
        return address
    }

    public func register0(promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.inappropriateOperationForState)
    }

    public func registerAlreadyConfigured0(promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.inappropriateOperationForState)
    }

    public func bind0(to: SocketAddress, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }

    public func connect0(to address: SocketAddress, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }

    public func write0(_ data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard state.isOpen else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        guard let datagram = outgoing(data) else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        guard state.bufferedBytes + DatagramChannelState.cost(of: datagram.data) <= max(Self.maximumBufferedBytes, waterMark.high) else {
            promise?.fail(TunnelError.queueFull)
            return
        }
        // A connected socket is where it sends to.
        let lane = ports.count > 1 ? (datagram.remote?.address ?? connectedAddress).map(lane) ?? 0 : 0
        state.append(datagram, lane: lane, promise: promise)
        if state.bufferedBytes > waterMark.high, writable.load(ordering: .relaxed) {
            writable.store(false, ordering: .releasing)
            pipeline.fireChannelWritabilityChanged()
        }
    }

    private func outgoing(_ data: NIOAny) -> DatagramPort.Outgoing? {
        if let envelope = tryUnwrapData(data, as: AddressedEnvelope<ByteBuffer>.self) {
            guard let remote = SocketEndpoint(envelope.remoteAddress) else { return nil }
            let local = envelope.metadata?.packetInfo.flatMap { SocketEndpoint($0.destinationAddress) }
            return .init(data: envelope.data, remote: remote, source: local?.address)
        }
        return tryUnwrapData(data, as: ByteBuffer.self).map { .init(data: $0, remote: nil, source: nil) }
    }

    public func flush0() {
        state.markFlush()
        guard state.isActive, !isFlushing else { return }
        isFlushing = true
        defer { isFlushing = false }
        repeat {
            for (lane, datagrams) in state.takeFlushed().enumerated() where !datagrams.isEmpty && ports.indices.contains(lane) {
                ports[lane].request(.write(datagrams))
            }
        } while state.hasFlushed
    }

    public func read0() {
        guard state.isActive, !isReadPending else { return }
        isReadPending = true
        guard surplus.isEmpty else { return deliverSurplus() }
        for port in ports { port.request(.read(maximum: Int(clamping: maximumPerRead))) }
    }

    /// On the next tick: a handler that reads is on the stack.
    private func deliverSurplus() {
        eventLoop.execute { [self] in
            // Reading may have been paused meanwhile.
            guard isReadPending, let batch = surplus.popFirst() else { return }
            deliver(batch)
        }
    }

    public func close0(error: any Error, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        guard mode == .all else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        guard state.isOpen else {
            promise?.fail(ChannelError.alreadyClosed)
            return
        }
        if let promise { closeFuture.cascade(to: promise) }
        let ports = ports
        tearDown(nil)
        close(ports)
    }

    public func triggerUserOutboundEvent0(_ event: Any, promise: EventLoopPromise<Void>?) {
        promise?.fail(ChannelError.operationUnsupported)
    }

    /// A datagram that no handler took.
    public func channelRead0(_ data: NIOAny) {}

    /// An error that no handler took.
    public func errorCaught0(error: any Error) {}

    // MARK: Options

    private func set<Option: ChannelOption>(_ option: Option, _ value: Option.Value) throws {
        eventLoop.preconditionInEventLoop()
        switch (option, value) {
        case (is ChannelOptions.Types.AutoReadOption, let value as Bool):
            let wasAutomatic = autoRead
            autoRead = value
            if value && !wasAutomatic { readIfAutomatic() }
            if !value && isReadPending {
                isReadPending = false
                for port in ports { port.request(.pauseRead) }
            }
        case (is ChannelOptions.Types.WriteBufferWaterMarkOption, let value as ChannelOptions.Types.WriteBufferWaterMark):
            waterMark = value
        case (is ChannelOptions.Types.MaxMessagesPerReadOption, let value as UInt): maximumPerRead = max(value, 1)
        default: throw ChannelError.operationUnsupported
        }
    }

    private func get<Option: ChannelOption>(_ option: Option) throws -> Option.Value {
        eventLoop.preconditionInEventLoop()
        let value: Any?
        switch option {
        case is ChannelOptions.Types.AutoReadOption: value = autoRead
        case is ChannelOptions.Types.WriteBufferWaterMarkOption: value = waterMark
        case is ChannelOptions.Types.MaxMessagesPerReadOption: value = maximumPerRead
        case is ChannelOptions.Types.BufferedWritableBytesOption: value = state.bufferedBytes
        default: value = nil
        }
        guard let result = value as? Option.Value else { throw ChannelError.operationUnsupported }
        return result
    }

    private struct SynchronousOptions: NIOSynchronousChannelOptions {
        let channel: WireGuardDatagramChannel
        func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) throws { try channel.set(option, value) }
        func getOption<Option: ChannelOption>(_ option: Option) throws -> Option.Value { try channel.get(option) }
    }

    /// What waits in one channel, data and 128 bytes for each datagram, unless the high mark is higher. A writer that looks at
    /// `isWritable` never comes here.
    public static let maximumBufferedBytes = 4 * 1024 * 1024
}
