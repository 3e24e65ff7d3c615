import CSocketShim
import Inet
import Logging
import NIOCore
import NIOPosix
import WGUserspace

/// The UDP sockets of one interface: IPv4 and IPv6 on one port. A family that the machine does not have may be missing.
///
/// A NIO datagram channel adopts each descriptor and says when there is something to read: it reads the first datagram, we
/// read the rest of the batch (`recvmmsg`; UDP_GRO super-datagrams are split here). Datagrams go out with our own `sendmsg`
/// on the same descriptor (UDP_SEGMENT, source address, ECN), which NIO cannot. NIO closes a datagram channel on most errors;
/// the interface must outlive that, so nothing is written through NIO and a channel that closes is opened again on the same
/// port. Bound to the interface's event loop.
package final class UDPSockets: @unchecked Sendable {
    /// What becomes of datagrams and of the sockets' state; let go of at the end.
    package struct Handlers {
        /// Called with each datagram, in place in a scratch buffer.
        package var receive: (inout MutableRawSpan, Arrival) -> Void
        /// Called when a read batch is through.
        package var batchEnded: () -> Void
        /// Called when the kernel's buffer has room again.
        package var unblocked: () -> Void
        /// Called when the kernel refused the source address and took the datagrams without it.
        package var sourceRefused: (Departure) -> Void

        package init(
            receive: @escaping (inout MutableRawSpan, Arrival) -> Void, batchEnded: @escaping () -> Void = {},
            unblocked: @escaping () -> Void = {}, sourceRefused: @escaping (Departure) -> Void = { _ in }
        ) {
            self.receive = receive
            self.batchEnded = batchEnded
            self.unblocked = unblocked
            self.sourceRefused = sourceRefused
        }
    }

    package struct Counters: Sendable {
        package var datagramsSent = 0
        package var sendCalls = 0
        /// Datagrams that the kernel refused (no route, no such address family): the protocols above retry.
        package var sendErrors = 0
        package var datagramsReceived = 0
        package var readCalls = 0
        package var receiveErrors = 0
    }

    struct Socket: Sendable {
        let descriptor: CInt
        let channel: any Channel
    }

    /// A socket that is read, and is not sent by yet.
    struct Prepared: Sendable {
        let family: IPAddress.Family
        let socket: Socket
    }

    let eventLoop: any EventLoop
    let logger: Logger
    let sendCall: SendCall
    private let bindCall: BindCall
    private var v4: Socket?
    private var v6: Socket?
    private var isClosed = false
    private(set) var handlers: Handlers?
    /// Where loops share the port: who binds a family again that was lost. All loops have to bind it anew, in their order.
    var restore: ((IPAddress.Family) -> Void)?
    /// In order. The rest of the batch that found no room and the one that was being made: whoever sends stops at `isBlocked`.
    var held: [HeldBatch] = []
    var supportsSegmentation = true
    var hasSentBatch = false
    var refusedBatches = 0
    package internal(set) var counters = Counters()
    /// 0 until bound.
    package private(set) var port: UInt16 = 0
    /// SO_MARK; 0 is none.
    package private(set) var mark: UInt32 = 0
    /// Where reads of both families land: one hot block as long as the kernel has one super-datagram at a time.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: readSize * readsPerCall, alignment: 64)

    package init(
        eventLoop: any EventLoop, logger: Logger = Logger(label: "wireguard"), sendCall: @escaping SendCall = UDPSockets.systemSend,
        bindCall: @escaping BindCall = csocket_udp_bind
    ) {
        self.eventLoop = eventLoop
        self.logger = logger
        self.sendCall = sendCall
        self.bindCall = bindCall
    }

    /// Family (4 or 6), port, buffer size; the bound descriptor, or -errno.
    package typealias BindCall = (CInt, UInt16, CInt) -> CInt

    deinit { scratch.deallocate() }

    package func has(_ family: IPAddress.Family) -> Bool { self[family] != nil }

    subscript(family: IPAddress.Family) -> Socket? { family == .v4 ? v4 : v6 }

    // MARK: Life

    /// Binds both families and starts to read.
    /// - Parameters:
    ///   - port: 0 lets the kernel choose one, the same for both families.
    ///   - mark: SO_MARK; 0 is none.
    /// - Throws: (the future fails with) `InterfaceError.bindFailed` if the port is taken in either family, or if there is neither;
    ///   `.markRefused`.
    package func bind(port: UInt16, mark: UInt32 = 0, handlers: Handlers) -> EventLoopFuture<Void> {
        begin(mark: mark, handlers: handlers)
        return open(port: port).flatMapError { error in self.close().flatMapThrowing { throw error } }
    }

    /// For sockets that come from elsewhere (``SharedPort``): says what becomes of their datagrams.
    func begin(mark: UInt32, handlers: Handlers) {
        eventLoop.preconditionInEventLoop()
        self.handlers = handlers
        self.mark = mark
    }

    /// Moves both families to another port. The new sockets are bound before the old ones are closed: if that fails, the old
    /// ones stay and nothing has happened. Datagrams that are on their way to the old port are lost.
    /// - Parameter port: 0 lets the kernel choose; the port that is bound changes nothing.
    /// - Throws: (the future fails with) as ``bind(port:mark:handlers:)``.
    package func rebind(port: UInt16) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        guard !isClosed else { return eventLoop.makeFailedFuture(TunnelError.interfaceClosed) }
        return port == self.port && port != 0 ? eventLoop.makeSucceededVoidFuture() : open(port: port)
    }

    /// Marks what is sent from now on (SO_MARK), for firewalls and routing rules.
    /// - Throws: `InterfaceError.markRefused` without CAP_NET_ADMIN; then nothing has changed.
    package func setMark(_ mark: UInt32) throws(InterfaceError) {
        eventLoop.preconditionInEventLoop()
        guard mark != self.mark else { return }
        let descriptors = [v4, v6].compactMap { $0?.descriptor }
        for descriptor in descriptors {
            let result = csocket_set_mark(descriptor, mark)
            guard result < 0 else { continue }
            for descriptor in descriptors { _ = csocket_set_mark(descriptor, self.mark) }
            throw .markRefused(mark: mark, errno: -result)
        }
        self.mark = mark
    }

    package func close() -> EventLoopFuture<Void> {
        isClosed = true
        held = []
        handlers = nil
        restore = nil
        let channels = [v4, v6].compactMap { $0?.channel }
        (v4, v6) = (nil, nil)
        return EventLoopFuture.andAllComplete(channels.map { $0.close() }, on: eventLoop)
    }

    private func open(port: UInt16) -> EventLoopFuture<Void> {
        let pair: DescriptorPair
        do throws(InterfaceError) {
            pair = try DescriptorPair(port: port, mark: mark, bind: bindCall)
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
        pair.tellMissing(to: logger)
        return prepare(pair).flatMap { [self] in install($0, port: pair.port) }
    }

    // MARK: Sockets from elsewhere

    /// Makes channels of bound descriptors. They are read from now on; nothing is sent by them before they are installed.
    /// - Throws: (the future fails with) what NIO refuses, or `TunnelError.interfaceClosed`; the descriptors are closed then.
    func prepare(_ pair: DescriptorPair) -> EventLoopFuture<[Prepared]> {
        eventLoop.preconditionInEventLoop()
        guard !isClosed else {
            pair.close()
            return eventLoop.makeFailedFuture(TunnelError.interfaceClosed)
        }
        let adopted = [(IPAddress.Family.v4, pair.v4), (.v6, pair.v6)].compactMap { family, descriptor in
            descriptor.map { adopt($0, as: family).map { Prepared(family: family, socket: $0) } }
        }
        return EventLoopFuture.whenAllComplete(adopted, on: eventLoop).flatMap { [self] results in
            let prepared = results.compactMap { try? $0.get() }
            let failure = results.lazy.compactMap { if case .failure(let error) = $0 { error } else { nil } }.first
            guard let error = isClosed ? TunnelError.interfaceClosed : failure else { return eventLoop.makeSucceededFuture(prepared) }
            return discard(prepared).flatMapThrowing { throw error }
        }
    }

    func discard(_ prepared: [Prepared]) -> EventLoopFuture<Void> {
        EventLoopFuture.andAllComplete(prepared.map { $0.socket.channel.close() }, on: eventLoop)
    }

    /// Puts prepared sockets in the place of those that there are, of all families.
    func install(_ prepared: [Prepared], port: UInt16) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        guard !isClosed else { return discard(prepared).flatMapThrowing { throw TunnelError.interfaceClosed } }
        let former = [v4, v6].compactMap { $0?.channel }
        (v4, v6) = (nil, nil)
        for socket in prepared { install(socket.socket, as: socket.family) }
        self.port = port
        return EventLoopFuture.andAllComplete(former.map { $0.close() }, on: eventLoop)
    }

    /// Closes one family, to be bound again.
    func vacate(_ family: IPAddress.Family) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        let channel = self[family]?.channel
        if family == .v4 { v4 = nil } else { v6 = nil }
        return channel?.close() ?? eventLoop.makeSucceededVoidFuture()
    }

    /// Adopts one family again.
    func restore(_ descriptor: CInt, as family: IPAddress.Family) -> EventLoopFuture<Void> {
        prepare(DescriptorPair(v4: family == .v4 ? descriptor : nil, v6: family == .v6 ? descriptor : nil, port: port)).flatMap { [self] in
            guard !isClosed, self[family] == nil else { return discard($0) }
            for socket in $0 { install(socket.socket, as: family) }
            return eventLoop.makeSucceededVoidFuture()
        }
    }

    private func adopt(_ descriptor: CInt, as family: IPAddress.Family) -> EventLoopFuture<Socket> {
        let offload = csocket_enable_gro(descriptor) >= 0
        let tells = csocket_enable_arrival(descriptor, CInt(family.rawValue)) >= 0
        return DatagramBootstrap(group: eventLoop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.readSize))
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if offload { try channel.syncOptions?.setOption(.datagramReceiveSegmentSize, value: true) }
                    if tells {
                        try channel.syncOptions?.setOption(.receivePacketInfo, value: true)
                        try channel.syncOptions?.setOption(.explicitCongestionNotification, value: true)
                    }
                    try channel.pipeline.syncOperations.addHandler(ReadHandler(sockets: self, descriptor: descriptor))
                }
            }
            .withBoundSocket(descriptor)
            .map { Socket(descriptor: descriptor, channel: $0) }
    }

    private func install(_ socket: Socket, as family: IPAddress.Family) {
        if family == .v4 { v4 = socket } else { v6 = socket }
        socket.channel.closeFuture.whenComplete { _ in self.lost(socket.channel, family) }
    }

    /// NIO has closed the descriptor, whose number may soon name another file: nothing may be sent there any more.
    private func lost(_ channel: any Channel, _ family: IPAddress.Family) {
        guard !isClosed, self[family]?.channel === channel else { return }
        if family == .v4 { v4 = nil } else { v6 = nil }
        logger.error("A UDP socket was closed by an error; binding it again", metadata: ["port": "\(port)", "family": "\(family)"])
        if let restore { restore(family) } else { reopen(family) }
    }

    private func reopen(_ family: IPAddress.Family) {
        eventLoop.scheduleTask(in: Self.reopenPause) { [self] in
            // A change of port may have come first.
            guard !isClosed, self[family] == nil else { return }
            let port = port
            guard let descriptor = DescriptorPair.reopen(family, port: port, mark: mark, bind: bindCall) else { return reopen(family) }
            adopt(descriptor, as: family).whenComplete { [self] result in
                switch result {
                case .failure: reopen(family)
                case .success(let socket):
                    guard !isClosed, self[family] == nil, port == self.port else { return socket.channel.close(promise: nil) }
                    install(socket, as: family)
                }
            }
        }
    }

    /// What NIO does after a read error.
    package func closeForTesting(_ family: IPAddress.Family) -> EventLoopFuture<Void> {
        self[family]?.channel.close() ?? eventLoop.makeSucceededVoidFuture()
    }

    /// An error that comes back at once must not become a busy loop.
    static let reopenPause = TimeAmount.milliseconds(50)
}
