import CSocketShim
import Inet
import Logging
import NIOCore
import NIOPosix

/// The UDP sockets of one interface: IPv4 and IPv6 on one port, either of which may be missing.
///
/// Datagrams come in through a NIO datagram channel that adopted the descriptor (UDP_GRO super-datagrams are split here);
/// they go out with our own `sendmsg` on the same descriptor (UDP_SEGMENT), and through NIO only while the kernel's buffer
/// is full: then `isBlocked` until NIO has written them. Bound to the interface's event loop.
final class UDPSockets: @unchecked Sendable {
    private struct Socket {
        let descriptor: CInt
        let channel: any Channel
    }

    private let eventLoop: any EventLoop
    private let logger: Logger
    private var v4: Socket?
    private var v6: Socket?
    private var supportsSegmentation = true
    private(set) var isBlocked = false
    private(set) var counters = Counters()
    /// 0 until bound.
    private(set) var port: UInt16 = 0

    struct Counters: Sendable {
        var datagramsSent = 0
        var sendCalls = 0
        /// Datagrams that the kernel refused (no route, no such address family): the protocols above retry.
        var sendErrors = 0
        var datagramsReceived = 0
        var readCalls = 0
    }

    init(eventLoop: any EventLoop, logger: Logger) {
        self.eventLoop = eventLoop
        self.logger = logger
    }

    /// Binds both families and starts to read. Succeeds if at least one family binds.
    /// - Parameters:
    ///   - port: 0 lets the kernel choose one, the same for both families where that is possible.
    ///   - receive: called with each datagram, in place in a scratch buffer.
    ///   - batchEnded: called when a read batch is through.
    func bind(
        port: UInt16, receive: @escaping (inout MutableRawSpan, SocketEndpoint) -> Void, batchEnded: @escaping () -> Void,
        unblocked: @escaping () -> Void
    ) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        self.unblocked = unblocked
        let first = csocket_udp_bind(4, port, Self.bufferSize)
        var chosen = port
        if first >= 0 { chosen = UInt16(clamping: csocket_local_port(first)) }
        var second = csocket_udp_bind(6, chosen, Self.bufferSize)
        if second < 0, port == 0, first >= 0 {
            // The kernel's choice for IPv4 may be taken for IPv6; IPv6 then gets a port of its own.
            second = csocket_udp_bind(6, 0, Self.bufferSize)
        }
        guard first >= 0 || second >= 0 else {
            return eventLoop.makeFailedFuture(InterfaceError.bindFailed(port: port, errno: -first))
        }
        if first < 0 { logger.info("IPv4 is not available for WireGuard", metadata: ["errno": "\(-first)"]) }
        if second < 0 { logger.debug("IPv6 is not available for WireGuard", metadata: ["errno": "\(-second)"]) }
        self.port = chosen != 0 ? chosen : UInt16(clamping: csocket_local_port(second))
        let handlerFor = { (self) -> ReadHandler in ReadHandler(sockets: self, receive: receive, batchEnded: batchEnded) }
        let fourth = first >= 0 ? adopt(first, handler: handlerFor(self)) : eventLoop.makeSucceededFuture(nil)
        let sixth = second >= 0 ? adopt(second, handler: handlerFor(self)) : eventLoop.makeSucceededFuture(nil)
        return fourth.and(sixth).map { sockets in
            self.v4 = sockets.0
            self.v6 = sockets.1
        }
    }

    private var unblocked: () -> Void = {}

    private func adopt(_ descriptor: CInt, handler: ReadHandler) -> EventLoopFuture<Socket?> {
        let offload = csocket_enable_gro(descriptor) >= 0
        return DatagramBootstrap(group: eventLoop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.readSize))
            .channelOption(.maxMessagesPerRead, value: Self.readsPerBatch)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if offload { try? channel.syncOptions?.setOption(.datagramReceiveSegmentSize, value: true) }
                    try channel.pipeline.syncOperations.addHandler(handler)
                }
            }
            .withBoundSocket(descriptor)
            .map { Socket(descriptor: descriptor, channel: $0) }
    }

    /// Sends `bytes`, which are whole datagrams of `segmentSize` bytes each, the last one possibly shorter.
    func send(_ bytes: UnsafeRawBufferPointer, segmentSize: Int, to endpoint: SocketEndpoint, trafficClass: UInt8) {
        eventLoop.preconditionInEventLoop()
        guard let base = bytes.baseAddress, let socket = endpoint.address.family == .v4 ? v4 : v6 else {
            counters.sendErrors += 1
            return
        }
        var to = endpoint.socketForm
        let isBatch = bytes.count > segmentSize
        if isBatch && !supportsSegmentation {
            sendOneByOne(bytes, segmentSize: segmentSize, to: endpoint, trafficClass: trafficClass)
            return
        }
        counters.sendCalls += 1
        let result = csocket_send(socket.descriptor, &to, base, bytes.count, isBatch ? UInt16(segmentSize) : 0, trafficClass)
        if result >= 0 {
            counters.datagramsSent += (bytes.count + segmentSize - 1) / segmentSize
            return
        }
        switch CInt(-result) {
        case Self.wouldBlock: hold(bytes, segmentSize: segmentSize, socket: socket, to: endpoint)
        case Self.inputOutputError, Self.invalidArgument,
            Self.messageTooLong where isBatch:
            logger.notice("The kernel refuses UDP_SEGMENT; datagrams are sent one by one", metadata: ["errno": "\(-result)"])
            supportsSegmentation = false
            sendOneByOne(bytes, segmentSize: segmentSize, to: endpoint, trafficClass: trafficClass)
        default: counters.sendErrors += 1
        }
    }

    private func sendOneByOne(_ bytes: UnsafeRawBufferPointer, segmentSize: Int, to endpoint: SocketEndpoint, trafficClass: UInt8) {
        var offset = 0
        while offset < bytes.count {
            let end = min(offset + segmentSize, bytes.count)
            let one = UnsafeRawBufferPointer(rebasing: bytes[offset..<end])
            send(one, segmentSize: one.count, to: endpoint, trafficClass: trafficClass)
            offset = end
        }
    }

    /// The kernel's buffer is full: NIO waits for room and writes these; nothing else is polled meanwhile, so at most one
    /// batch is held.
    private func hold(_ bytes: UnsafeRawBufferPointer, segmentSize: Int, socket: Socket, to endpoint: SocketEndpoint) {
        guard let address = SocketAddress(endpoint) else { return }
        isBlocked = true
        var offset = 0
        var last: EventLoopFuture<Void>?
        while offset < bytes.count {
            let end = min(offset + segmentSize, bytes.count)
            var buffer = socket.channel.allocator.buffer(capacity: end - offset)
            buffer.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[offset..<end]))
            last = socket.channel.write(AddressedEnvelope(remoteAddress: address, data: buffer))
            offset = end
        }
        socket.channel.flush()
        last?.hop(to: eventLoop).whenComplete { _ in
            self.isBlocked = false
            self.unblocked()
        }
    }

    func close() -> EventLoopFuture<Void> {
        let channels = [v4, v6].compactMap { $0?.channel }
        v4 = nil
        v6 = nil
        return EventLoopFuture.andAllComplete(channels.map { $0.close() }, on: eventLoop)
    }

    /// Copies each read into a scratch buffer (one hot 64 KiB block; 50 ns a packet) and decrypts there: NIO's own buffer
    /// is shared with its pool, so writing into it would allocate.
    private final class ReadHandler: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>

        private let sockets: UDPSockets
        private let receive: (inout MutableRawSpan, SocketEndpoint) -> Void
        private let batchEnded: () -> Void
        private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: UDPSockets.readSize, alignment: 64)

        init(sockets: UDPSockets, receive: @escaping (inout MutableRawSpan, SocketEndpoint) -> Void, batchEnded: @escaping () -> Void) {
            self.sockets = sockets
            self.receive = receive
            self.batchEnded = batchEnded
        }

        deinit { scratch.deallocate() }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let envelope = unwrapInboundIn(data)
            guard let source = SocketEndpoint(envelope.remoteAddress) else { return }
            let count = min(envelope.data.readableBytes, scratch.count)
            guard count > 0 else { return }
            envelope.data.withUnsafeReadableBytes { scratch.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            let segment = envelope.metadata?.segmentSize ?? 0
            let size = segment > 0 ? segment : count
            sockets.counters.readCalls += 1
            var offset = 0
            while offset < count {
                let end = min(offset + size, count)
                sockets.counters.datagramsReceived += 1
                var span = MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: scratch[offset..<end]))
                receive(&span, source)
                offset = end
            }
        }

        func channelReadComplete(context: ChannelHandlerContext) { batchEnded() }

        /// An ICMP error for an earlier datagram shows up here; the protocols above retry.
        func errorCaught(context: ChannelHandlerContext, error: any Error) { sockets.counters.sendErrors += 1 }
    }

    /// Asked of the kernel for each direction; it clamps to its own maximum.
    private static let bufferSize: CInt = 8 * 1024 * 1024
    /// The largest UDP_GRO super-datagram.
    fileprivate static let readSize = 65_536
    private static let readsPerBatch: UInt = 8
    private static let wouldBlock: CInt = 11
    private static let inputOutputError: CInt = 5
    private static let invalidArgument: CInt = 22
    private static let messageTooLong: CInt = 90
}
