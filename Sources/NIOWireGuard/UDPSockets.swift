import CSocketShim
import Inet
import Logging
import NIOCore
import NIOPosix

/// The UDP sockets of one interface: IPv4 and IPv6 on one port. A family that the machine does not have may be missing.
///
/// Datagrams come in through a NIO datagram channel that adopted the descriptor (UDP_GRO super-datagrams are split here);
/// they go out with our own `sendmsg` on the same descriptor (UDP_SEGMENT). NIO closes a datagram channel on most errors;
/// the interface must outlive that, so nothing is written through NIO and a channel that closes is opened again on the same
/// port. Bound to the interface's event loop.
package final class UDPSockets: @unchecked Sendable {
    /// `sendmsg`: descriptor, destination, bytes, segment size (0: one datagram), traffic class; the bytes sent, or -errno.
    package typealias SendCall = (CInt, SocketEndpoint, UnsafeRawBufferPointer, UInt16, UInt8) -> Int

    private struct Socket {
        let descriptor: CInt
        let channel: any Channel
    }

    /// What the kernel's full buffer did not take.
    private struct HeldBatch {
        let bytes: [UInt8]
        let segmentSize: Int
        let endpoint: SocketEndpoint
        let trafficClass: UInt8
    }

    private let eventLoop: any EventLoop
    private let logger: Logger
    private let sendCall: SendCall
    private var v4: Socket?
    private var v6: Socket?
    private var isClosed = false
    private var receive: ((inout MutableRawSpan, SocketEndpoint) -> Void)?
    private var batchEnded: (() -> Void)?
    private var unblocked: (() -> Void)?
    /// In order. The rest of the batch that found no room and the one that was being made: whoever sends stops at `isBlocked`.
    private var held: [HeldBatch] = []
    private var supportsSegmentation = true
    private var hasSentSegments = false
    package private(set) var counters = Counters()
    /// 0 until bound.
    package private(set) var port: UInt16 = 0

    package struct Counters: Sendable {
        package var datagramsSent = 0
        package var sendCalls = 0
        /// Datagrams that the kernel refused (no route, no such address family): the protocols above retry.
        package var sendErrors = 0
        package var datagramsReceived = 0
        package var readCalls = 0
        package var receiveErrors = 0
    }

    package init(
        eventLoop: any EventLoop, logger: Logger = Logger(label: "wireguard"), sendCall: @escaping SendCall = UDPSockets.systemSend
    ) {
        self.eventLoop = eventLoop
        self.logger = logger
        self.sendCall = sendCall
    }

    /// Whether the kernel's buffer is full: then nothing may be sent until `unblocked` is called.
    package var isBlocked: Bool { !held.isEmpty }

    package func has(_ family: IPAddress.Family) -> Bool { self[family] != nil }

    // MARK: Life

    /// Binds both families and starts to read.
    /// - Parameters:
    ///   - port: 0 lets the kernel choose one, the same for both families.
    ///   - receive: called with each datagram, in place in a scratch buffer.
    ///   - batchEnded: called when a read batch is through.
    ///   - unblocked: called when the kernel's buffer has room again.
    /// - Throws: (the future fails with) `InterfaceError.bindFailed` if the port is taken in either family, or if there is neither.
    package func bind(
        port: UInt16, receive: @escaping (inout MutableRawSpan, SocketEndpoint) -> Void, batchEnded: @escaping () -> Void,
        unblocked: @escaping () -> Void
    ) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        let pair: DescriptorPair
        switch DescriptorPair.open(port: port) {
        case .success(let opened): pair = opened
        case .failure(let error): return eventLoop.makeFailedFuture(error)
        }
        if pair.v4 == nil { logger.info("IPv4 is not available for WireGuard") }
        if pair.v6 == nil { logger.debug("IPv6 is not available for WireGuard") }
        self.port = pair.port
        self.receive = receive
        self.batchEnded = batchEnded
        self.unblocked = unblocked
        let adopted = [(IPAddress.Family.v4, pair.v4), (.v6, pair.v6)].compactMap { family, descriptor in
            descriptor.map { adopt($0, as: family) }
        }
        return EventLoopFuture.andAllSucceed(adopted, on: eventLoop).flatMapError { error in
            self.close().flatMapThrowing { throw error }
        }
    }

    package func close() -> EventLoopFuture<Void> {
        isClosed = true
        held = []
        (receive, batchEnded, unblocked) = (nil, nil, nil)
        let channels = [v4, v6].compactMap { $0?.channel }
        (v4, v6) = (nil, nil)
        return EventLoopFuture.andAllComplete(channels.map { $0.close() }, on: eventLoop)
    }

    private func adopt(_ descriptor: CInt, as family: IPAddress.Family) -> EventLoopFuture<Void> {
        let offload = csocket_enable_gro(descriptor) >= 0
        return DatagramBootstrap(group: eventLoop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.readSize))
            .channelOption(.maxMessagesPerRead, value: Self.readsPerBatch)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if offload { try channel.syncOptions?.setOption(.datagramReceiveSegmentSize, value: true) }
                    try channel.pipeline.syncOperations.addHandler(ReadHandler(sockets: self))
                }
            }
            .withBoundSocket(descriptor)
            .flatMap { channel in
                guard !self.isClosed else { return channel.close() }
                self[family] = Socket(descriptor: descriptor, channel: channel)
                channel.closeFuture.whenComplete { _ in self.lost(channel, family) }
                return channel.eventLoop.makeSucceededVoidFuture()
            }
    }

    /// NIO has closed the descriptor, whose number may soon name another file: nothing may be sent there any more.
    private func lost(_ channel: any Channel, _ family: IPAddress.Family) {
        guard !isClosed, self[family]?.channel === channel else { return }
        self[family] = nil
        logger.error("A UDP socket was closed by an error; binding it again", metadata: ["port": "\(port)", "family": "\(family)"])
        reopen(family)
    }

    private func reopen(_ family: IPAddress.Family) {
        eventLoop.scheduleTask(in: Self.reopenPause) { [self] in
            guard !isClosed else { return }
            let descriptor = csocket_udp_bind(CInt(family.rawValue), port, DescriptorPair.bufferSize)
            guard descriptor >= 0 else { return reopen(family) }
            adopt(descriptor, as: family).whenFailure { _ in self.reopen(family) }
        }
    }

    /// What NIO does after a read error.
    package func closeForTesting(_ family: IPAddress.Family) -> EventLoopFuture<Void> {
        self[family]?.channel.close() ?? eventLoop.makeSucceededVoidFuture()
    }

    private subscript(family: IPAddress.Family) -> Socket? {
        get { family == .v4 ? v4 : v6 }
        set { if family == .v4 { v4 = newValue } else { v6 = newValue } }
    }

    // MARK: Sending

    /// Sends `bytes`, which are whole datagrams of `segmentSize` bytes each, the last one possibly shorter.
    package func send(_ bytes: UnsafeRawBufferPointer, segmentSize: Int, to endpoint: SocketEndpoint, trafficClass: UInt8) {
        eventLoop.preconditionInEventLoop()
        let count = (bytes.count + segmentSize - 1) / max(1, segmentSize)
        guard !isBlocked else { return hold(bytes, segmentSize: segmentSize, to: endpoint, trafficClass: trafficClass) }
        guard let socket = self[endpoint.address.family] else {
            counters.sendErrors += count
            return
        }
        var isRefusedAsBatch = false
        if count > 1, supportsSegmentation {
            counters.sendCalls += 1
            let result = sendCall(socket.descriptor, endpoint, bytes, UInt16(clamping: segmentSize), trafficClass)
            if result >= 0 {
                counters.datagramsSent += count
                hasSentSegments = true
                return
            }
            switch CInt(clamping: -result) {
            case Self.wouldBlock: return hold(bytes, segmentSize: segmentSize, to: endpoint, trafficClass: trafficClass)
            // No UDP_SEGMENT here, or not for this destination. A datagram by itself will tell.
            case Self.inputOutputError, Self.invalidArgument, Self.messageTooLong: isRefusedAsBatch = true
            default:
                counters.sendErrors += count
                return
            }
        }
        var hasError = false
        for start in stride(from: 0, to: bytes.count, by: max(1, segmentSize)) {
            let one = UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + segmentSize, bytes.count)])
            counters.sendCalls += 1
            let result = sendCall(socket.descriptor, endpoint, one, 0, trafficClass)
            if result >= 0 {
                counters.datagramsSent += 1
            } else if CInt(clamping: -result) == Self.wouldBlock {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[start...])
                return hold(rest, segmentSize: segmentSize, to: endpoint, trafficClass: trafficClass)
            } else {
                hasError = true
                counters.sendErrors += 1
            }
        }
        if isRefusedAsBatch && !hasError && !hasSentSegments {
            logger.notice("The kernel refuses UDP_SEGMENT; datagrams are sent one by one")
            supportsSegmentation = false
        }
    }

    private func hold(_ bytes: UnsafeRawBufferPointer, segmentSize: Int, to endpoint: SocketEndpoint, trafficClass: UInt8) {
        held.append(HeldBatch(bytes: Array(bytes), segmentSize: segmentSize, endpoint: endpoint, trafficClass: trafficClass))
        guard held.count == 1 else { return }
        eventLoop.scheduleTask(in: Self.blockedPause) { [self] in
            let batches = held
            held = []
            for batch in batches {
                batch.bytes.withUnsafeBytes {
                    send($0, segmentSize: batch.segmentSize, to: batch.endpoint, trafficClass: batch.trafficClass)
                }
            }
            if !isBlocked { unblocked?() }
        }
    }

    package static func systemSend(
        _ descriptor: CInt, to endpoint: SocketEndpoint, bytes: UnsafeRawBufferPointer, segmentSize: UInt16, trafficClass: UInt8
    ) -> Int {
        var to = endpoint.socketForm
        return csocket_send(descriptor, &to, bytes.baseAddress, bytes.count, segmentSize, trafficClass)
    }

    // MARK: Receiving

    /// Copies each read into a scratch buffer (one hot 64 KiB block; 50 ns a packet) and decrypts there: NIO's own buffer
    /// is shared with its pool, so writing into it would allocate.
    private final class ReadHandler: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>

        private let sockets: UDPSockets
        private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: UDPSockets.readSize, alignment: 64)

        init(sockets: UDPSockets) { self.sockets = sockets }

        deinit { scratch.deallocate() }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let envelope = unwrapInboundIn(data)
            guard let receive = sockets.receive, let source = SocketEndpoint(envelope.remoteAddress) else { return }
            let count = min(envelope.data.readableBytes, scratch.count)
            guard count > 0 else { return }
            envelope.data.withUnsafeReadableBytes { scratch.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            let segment = envelope.metadata?.segmentSize ?? 0
            let size = segment > 0 ? segment : count
            sockets.counters.readCalls += 1
            var offset = 0
            while offset < count {
                let end = offset + min(size, count - offset)
                sockets.counters.datagramsReceived += 1
                var span = MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: scratch[offset..<end]))
                receive(&span, source)
                offset = end
            }
        }

        func channelReadComplete(context: ChannelHandlerContext) { sockets.batchEnded?() }

        /// An ICMP error for an earlier datagram shows up here; the protocols above retry.
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            sockets.counters.receiveErrors += 1
            sockets.logger.debug("UDP read error", metadata: ["error": "\(error)"])
        }
    }

    /// The largest UDP_GRO super-datagram.
    fileprivate static let readSize = 65_536
    private static let readsPerBatch: UInt = 8
    /// The kernel's buffer drains some hundred kilobytes meanwhile.
    private static let blockedPause = TimeAmount.microseconds(200)
    /// An error that comes back at once must not become a busy loop.
    private static let reopenPause = TimeAmount.milliseconds(50)
    private static let inputOutputError: CInt = 5
    private static let wouldBlock: CInt = 11
    private static let invalidArgument: CInt = 22
    private static let messageTooLong: CInt = 90
}

/// One bound descriptor for each address family that the machine has.
private struct DescriptorPair {
    var v4: CInt?
    var v6: CInt?
    var port: UInt16

    static func open(port: UInt16) -> Result<DescriptorPair, InterfaceError> {
        var attempt = 1
        while true {
            let first = csocket_udp_bind(4, port, bufferSize)
            guard first >= 0 || isFamilyMissing(first) else { return .failure(.bindFailed(port: port, errno: -first)) }
            let wanted = first >= 0 ? UInt16(clamping: csocket_local_port(first)) : port
            let second = csocket_udp_bind(6, wanted, bufferSize)
            if second >= 0 || (first >= 0 && isFamilyMissing(second)) {
                let port = first >= 0 ? wanted : UInt16(clamping: csocket_local_port(second))
                return .success(DescriptorPair(v4: first >= 0 ? first : nil, v6: second >= 0 ? second : nil, port: port))
            }
            if first >= 0 { csocket_close(first) }
            // The kernel's choice for IPv4 may be taken for IPv6.
            guard port == 0, attempt < maximumAttempts else { return .failure(.bindFailed(port: port, errno: -second)) }
            attempt += 1
        }
    }

    /// A port that is taken or forbidden is an error; anything else says that the machine lacks the family.
    private static func isFamilyMissing(_ result: CInt) -> Bool { -result != addressInUse && -result != accessDenied }

    /// Asked of the kernel for each direction; it clamps to its own maximum.
    static let bufferSize: CInt = 8 * 1024 * 1024
    private static let maximumAttempts = 16
    private static let accessDenied: CInt = 13
    private static let addressInUse: CInt = 98
}
