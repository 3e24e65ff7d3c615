import Inet
import NIOConcurrencyHelpers
import NIOCore
import Synchronization
import TCPStack

/// A SwiftNIO `Channel` over one TCP connection inside a WireGuard interface. It reads and writes `ByteBuffer`.
///
/// Its pipeline may live on another event loop than the interface: it keeps a `ConnectionPort`, never protocol state.
/// Back-pressure works both ways: above the high mark of bytes that the stack has not taken it is unwritable, and
/// without a `read` the receive window closes. `close(mode: .output)` sends what is queued, then FIN. `close` sends what
/// the stack has taken, then FIN. Supported options: `autoRead`, `allowRemoteHalfClosure`, `writeBufferWaterMark`,
/// `maxMessagesPerRead` (one buffer a read, whatever its value), `connectTimeout` (set it before it connects), and to get only,
/// `bufferedWritableBytes`. Any other throws `ChannelError.operationUnsupported`.
///
/// Unchecked: the mutable members are touched on `eventLoop` only; what other threads may read is atomic or locked.
public final class WireGuardChannel: Channel, ChannelCore, @unchecked Sendable {
    public let allocator = ByteBufferAllocator()
    public let eventLoop: any EventLoop
    public let closeFuture: EventLoopFuture<Void>
    public var parent: (any Channel)? { nil }
    public var _channelCore: any ChannelCore { self }
    /// Made in `init`, so that later reads from any thread see it.
    public private(set) lazy var pipeline = ChannelPipeline(channel: self)

    private let closePromise: EventLoopPromise<Void>
    private let addresses = NIOLockedValueBox<(local: SocketAddress, remote: SocketAddress)?>(nil)
    private let active = Atomic<Bool>(false)
    private let writable = Atomic<Bool>(true)

    private var state = WireGuardChannelState()
    private var port: ConnectionPort?
    private var connectPromise: EventLoopPromise<Void>?
    private var closeOutputPromise: EventLoopPromise<Void>?
    /// What the end of output is: a FIN, or a reset that has to come behind everything else.
    private var abortPatience: TimeAmount?
    /// A write's promise may write and flush again: the outermost flush takes it along, so that the stack stays flat.
    private var isFlushing = false
    /// Asked to read; the buffer has not come.
    private var isReadPending = false
    private var hasAnnouncedRegistration = false
    private var hasAnnouncedActive = false
    private var autoRead = true
    private var allowsRemoteHalfClosure = false
    private var waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 64 * 1024, high: 256 * 1024)
    private var connectOptions: ConnectionOptions

    init(eventLoop: any EventLoop, options: ConnectionOptions) {
        self.eventLoop = eventLoop
        connectOptions = options
        closePromise = eventLoop.makePromise()
        closeFuture = closePromise.futureResult
        _ = pipeline
    }

    public var localAddress: SocketAddress? { addresses.withLockedValue { $0?.local } }
    public var remoteAddress: SocketAddress? { addresses.withLockedValue { $0?.remote } }
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

    // MARK: Becoming a connection

    /// Ties the channel to the interface. Then its initializer adds handlers, and `connect` or `becomeActive` follows.
    /// - Parameter endpoints: known before the initializer runs if the connection was accepted.
    func start(port: ConnectionPort, endpoints: (local: SocketEndpoint, remote: SocketEndpoint)? = nil) {
        eventLoop.preconditionInEventLoop()
        self.port = port
        if let endpoints { setAddresses(local: endpoints.local, remote: endpoints.remote) }
        state.register()
    }

    private func setAddresses(local: SocketEndpoint, remote: SocketEndpoint) {
        guard let local = SocketAddress(local), let remote = SocketAddress(remote) else { return }
        addresses.withLockedValue { $0 = (local, remote) }
    }

    private func announceRegistration() {
        hasAnnouncedRegistration = true
        pipeline.fireChannelRegistered()
    }

    /// Dials. `start` has been called.
    func connect(to remote: SocketEndpoint, from source: IPAddress?, promise: EventLoopPromise<Void>?) {
        eventLoop.preconditionInEventLoop()
        guard state.connect() else {
            promise?.fail(ChannelError.inappropriateOperationForState)
            return
        }
        connectPromise = promise
        announceRegistration()
        port?.request(.connect(to: remote, from: source, options: connectOptions))
    }

    /// An accepted connection becomes active. `start` has been called.
    func becomeActive(local: SocketEndpoint, remote: SocketEndpoint) {
        guard state.connect() else { return }
        announceRegistration()
        activate(local: local, remote: remote)
    }

    // MARK: Notices of the interface

    func handle(_ notice: ConnectionPort.Notice) {
        eventLoop.preconditionInEventLoop()
        noteAccepted()
        switch notice {
        case .connected(let local, let remote): activate(local: local, remote: remote)
        case .received(let buffer):
            // A reset may come while an accepted channel is still being set up.
            guard state.isActive else { return }
            isReadPending = false
            pipeline.fireChannelRead(buffer)
            guard state.isOpen else { return }
            pipeline.fireChannelReadComplete()
            readIfAutomatic()
        case .inputClosed: handleInputClosed()
        case .accepted: break
        case .outputClosed:
            let promise = closeOutputPromise
            closeOutputPromise = nil
            promise?.succeed(())
            pipeline.fireUserInboundEventTriggered(ChannelEvent.outputClosed)
        case .closed(let error): tearDown(error)
        }
    }

    private func activate(local: SocketEndpoint, remote: SocketEndpoint) {
        guard state.activate() else { return }
        setAddresses(local: local, remote: remote)
        active.store(true, ordering: .releasing)
        let promise = connectPromise
        connectPromise = nil
        promise?.succeed(())
        guard state.isActive else { return }
        announceActive()
        readIfAutomatic()
        flush0()
    }

    private func handleInputClosed() {
        guard state.closeInput() else { return }
        if allowsRemoteHalfClosure {
            pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
            pipeline.fireChannelReadComplete()
        } else {
            close0(error: ChannelError.eof, mode: .all, promise: nil)
        }
    }

    /// What the stack has taken meanwhile.
    private func noteAccepted() {
        guard let bytes = port?.takeAccepted(), bytes > 0 else { return }
        let done = state.accept(bytes)
        if state.bufferedBytes <= waterMark.low, !writable.load(ordering: .relaxed) {
            writable.store(true, ordering: .releasing)
            pipeline.fireChannelWritabilityChanged()
        }
        for promise in done { promise.succeed(()) }
    }

    private func readIfAutomatic() {
        if autoRead, state.canRead { pipeline.read() }
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
        port = nil
        let failure: any Error = error ?? ChannelError.ioOnClosedChannel
        for promise in state.removeAllPromises() { promise.fail(failure) }
        let connecting = connectPromise
        connectPromise = nil
        connecting?.fail(failure)
        closeOutputPromise?.fail(failure)
        closeOutputPromise = nil
        if wasActive {
            // Closed within the promise of `connect`: handlers that were added there know it as active, and hear of its end like the others.
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
        guard let remote = SocketEndpoint(address) else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        connect(to: remote, from: nil, promise: promise)
    }

    public func write0(_ data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard state.canWrite else {
            promise?.fail(state.isOpen ? ChannelError.outputClosed : ChannelError.ioOnClosedChannel)
            return
        }
        guard let buffer = tryUnwrapData(data, as: ByteBuffer.self) else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        state.append(buffer, promise: promise)
        guard writable.load(ordering: .relaxed), state.bufferedBytes - (port?.acceptedBytes ?? 0) > waterMark.high else { return }
        writable.store(false, ordering: .releasing)
        port?.waitForAccepted(true)
        // Nobody who writes expects to hear within it that he may write on, or of earlier writes.
        if let port, port.acceptedBytes > 0 { eventLoop.execute { self.noteAccepted() } }
        pipeline.fireChannelWritabilityChanged()
    }

    public func flush0() {
        state.markFlush()
        guard state.isActive, !isFlushing else { return }
        isFlushing = true
        defer { isFlushing = false }
        repeat {
            let buffers = state.takeFlushed()
            port?.waitForAccepted(state.hasPromises || !writable.load(ordering: .relaxed))
            if !buffers.isEmpty { port?.request(.write(buffers)) }
            noteAccepted()
            for promise in state.accept(0) { promise.succeed(()) }
        } while state.hasFlushed
        guard state.takeOutputClose() else { return }
        port?.request(abortPatience.map { .abortOnceAcknowledged(patience: $0) } ?? .closeOutput)
    }

    public func read0() {
        guard state.canRead, !isReadPending else { return }
        isReadPending = true
        port?.read()
    }

    public func close0(error: any Error, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        switch mode {
        case .all:
            guard state.isOpen else {
                promise?.fail(ChannelError.alreadyClosed)
                return
            }
            if let promise { closeFuture.cascade(to: promise) }
            let port = self.port
            tearDown(nil)
            port?.request(.close)
        case .output:
            guard state.closeOutput() else {
                promise?.fail(state.isOpen ? ChannelError.outputClosed : ChannelError.alreadyClosed)
                return
            }
            closeOutputPromise = promise
            flush0()
        case .input:
            promise?.fail(ChannelError.operationUnsupported)
        }
    }

    public func triggerUserOutboundEvent0(_ event: Any, promise: EventLoopPromise<Void>?) {
        guard let event = event as? AbortEvent else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        guard state.isOpen else {
            promise?.fail(ChannelError.alreadyClosed)
            return
        }
        let port = self.port
        if let patience = event.patience, state.isActive {
            abortPatience = patience
            if state.closeOutput() { flush0() } else { port?.request(.abortOnceAcknowledged(patience: patience)) }
        } else {
            tearDown(nil)
            port?.request(.abort)
        }
        promise?.succeed(())
    }

    /// Bytes that no handler took.
    public func channelRead0(_ data: NIOAny) {}

    /// An error that no handler took: the channel's state already says what it means.
    public func errorCaught0(error: any Error) {}

    /// Trigger this user event outbound to end the connection with a reset instead of a FIN.
    public struct AbortEvent: Sendable {
        /// So long the peer may take nothing more of what was written.
        public let patience: TimeAmount?

        /// At once. What was written and has not arrived is lost.
        public init() { patience = nil }

        /// Once the other side has acknowledged all that was written, or has taken nothing more of it for `patience` to twice that.
        /// Until then nothing can be written any more, and reading goes on; then the channel ends with `TunnelError.aborted`.
        public init(onceAcknowledgedWithin patience: TimeAmount) { self.patience = patience }
    }

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
                port?.pauseRead()
            }
        case (is ChannelOptions.Types.AllowRemoteHalfClosureOption, let value as Bool): allowsRemoteHalfClosure = value
        case (is ChannelOptions.Types.WriteBufferWaterMarkOption, let value as ChannelOptions.Types.WriteBufferWaterMark):
            waterMark = value
        case (is ChannelOptions.Types.MaxMessagesPerReadOption, _): break
        case (is ChannelOptions.Types.ConnectTimeoutOption, let value as TimeAmount?):
            connectOptions.connectTimeout = value.map { .nanoseconds($0.nanoseconds) }
        default: throw ChannelError.operationUnsupported
        }
    }

    private func get<Option: ChannelOption>(_ option: Option) throws -> Option.Value {
        eventLoop.preconditionInEventLoop()
        let value: Any?
        switch option {
        case is ChannelOptions.Types.AutoReadOption: value = autoRead
        case is ChannelOptions.Types.AllowRemoteHalfClosureOption: value = allowsRemoteHalfClosure
        case is ChannelOptions.Types.WriteBufferWaterMarkOption: value = waterMark
        case is ChannelOptions.Types.MaxMessagesPerReadOption: value = UInt(1)
        case is ChannelOptions.Types.BufferedWritableBytesOption: value = state.bufferedBytes - (port?.acceptedBytes ?? 0)
        default: value = nil
        }
        guard let result = value as? Option.Value else { throw ChannelError.operationUnsupported }
        return result
    }

    private struct SynchronousOptions: NIOSynchronousChannelOptions {
        let channel: WireGuardChannel
        func setOption<Option: ChannelOption>(_ option: Option, value: Option.Value) throws { try channel.set(option, value) }
        func getOption<Option: ChannelOption>(_ option: Option) throws -> Option.Value { try channel.get(option) }
    }
}

/// Carries a value to the one loop that will use it.
struct UncheckedBox<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}
