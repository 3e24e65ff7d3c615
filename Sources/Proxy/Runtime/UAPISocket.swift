import Glibc
import NIOCore
import NIOPosix
import WGUserspace

/// What a UAPI socket gives access to.
package struct UAPIService: Sendable {
    package var state: @Sendable () -> EventLoopFuture<UAPI.State>
    /// Fails with `UAPI.Fault`.
    package var apply: @Sendable (UAPI.SetRequest) -> EventLoopFuture<Void>

    package init(
        state: @escaping @Sendable () -> EventLoopFuture<UAPI.State>, apply: @escaping @Sendable (UAPI.SetRequest) -> EventLoopFuture<Void>
    ) {
        self.state = state
        self.apply = apply
    }
}

/// `NAME.sock`: where `wg` and its like ask and configure a running interface. For its owner and root, nobody else, as what is said
/// there holds keys; for the same reason no part of it is ever logged, and buffers are wiped.
package final class UAPISocket: Sendable {
    package static let maximumConnections = 16
    /// For one request, answer included, and for a client that says nothing.
    package static let timeLimit = TimeAmount.seconds(30)

    package var path: String { socket.path }
    private let socket: OwnerSocket

    private init(_ socket: OwnerSocket) { self.socket = socket }

    /// Binds `DIRECTORY/NAME.sock`. A dead socket in its place is removed; one that answers is an error.
    /// - Parameter name: one that `UAPIDirectory.isName` accepts.
    package static func start(
        name: String, directory: String, group: any EventLoopGroup, service: UAPIService, timeLimit: TimeAmount = UAPISocket.timeLimit
    ) async throws -> UAPISocket {
        let path = "\(directory)/\(name).sock"
        let connections = ConnectionCount(limit: maximumConnections)
        let socket = try await OwnerSocket.bind(
            path, group: group, shorter: "give --interface a shorter name", other: "stop it, or give --interface another name"
        ) { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(
                    UAPIHandler(service: service, connections: connections, timeLimit: timeLimit))
            }
        } configure: {
            // Nothing is read before it is known who writes; and a client that has only shut down its side still gets its answer.
            // One buffer a read, so that no more than one waits behind a request.
            $0.childChannelOption(.autoRead, value: false).childChannelOption(.allowRemoteHalfClosure, value: true)
                .childChannelOption(.maxMessagesPerRead, value: 1)
        }
        return UAPISocket(socket)
    }

    package func close() async { await socket.close() }
}

/// One client: requests one after the other, each answered before more is read. Bound to its event loop.
private final class UAPIHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State {
        case reading
        case answering
        case closed
    }

    private let service: UAPIService
    private let connections: ConnectionCount
    private let timeLimit: TimeAmount
    private var state = State.reading
    private var parser = UAPI.Parser()
    /// What came behind a request that is being answered; at most one read's worth, as no more is read meanwhile.
    private var rest: ByteBuffer?
    private var isInputClosed = false
    private var timeout: Scheduled<Void>?

    init(service: UAPIService, connections: ConnectionCount, timeLimit: TimeAmount) {
        self.service = service
        self.connections = connections
        self.timeLimit = timeLimit
    }

    func channelActive(context: ChannelHandlerContext) {
        guard connections.enter() else { return context.close(promise: nil) }
        startTimer(context)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        OwnerSocket.isOwner(context.channel).whenSuccess { isOwner in
            let (handler, context) = bound.value
            guard isOwner else { return context.close(promise: nil) }
            handler.readOn(context)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        switch state {
        case .reading: receive(buffer, context)
        case .answering:
            // A read was under way when the request before it was complete.
            var buffer = buffer
            if rest?.writeBuffer(&buffer) == nil { rest = buffer }
        case .closed: SecretBuffer.wipe(buffer)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) { readOn(context) }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .inputClosed? = event as? ChannelEvent else { return context.fireUserInboundEventTriggered(event) }
        isInputClosed = true
        if case .reading = state { context.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        timeout?.cancel()
        if let rest { SecretBuffer.wipe(rest) }
        rest = nil
        if case .closed = state { return }
        state = .closed
        connections.leave()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func startTimer(_ context: ChannelHandlerContext) {
        timeout?.cancel()
        let channel = context.channel
        timeout = context.eventLoop.scheduleTask(in: timeLimit) { channel.close(promise: nil) }
    }

    private func readOn(_ context: ChannelHandlerContext) {
        if case .reading = state, !isInputClosed { context.read() }
    }

    private func receive(_ buffer: ByteBuffer, _ context: ChannelHandlerContext) {
        var offset = 0
        let event = buffer.withUnsafeReadableBytes { parser.receive(RawSpan(_unsafeBytes: $0), from: &offset) }
        var taken = buffer
        let read = taken.readSlice(length: offset)
        if let read { SecretBuffer.wipe(read) }
        guard let event else { return }
        rest = taken.readableBytes > 0 ? taken : nil
        state = .answering
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        switch event {
        case .request(.get):
            service.state().hop(to: context.eventLoop).whenComplete { result in
                let (handler, context) = bound.value
                switch result {
                case .success(let state): handler.answer(SecretBuffer.make(state.text()), context)
                case .failure(let error): handler.answer(Self.status(error), context)
                }
            }
        case .request(.set(let request)):
            service.apply(request).hop(to: context.eventLoop).whenComplete { result in
                let (handler, context) = bound.value
                switch result {
                case .success: handler.answer(Self.status(nil), context)
                case .failure(let error): handler.answer(Self.status(error), context)
                }
            }
        case .refused(let fault): answer(Self.status(fault), context)
        case .closed: context.close(promise: nil)
        }
    }

    private static func status(_ error: (any Error)?) -> ByteBuffer {
        ByteBuffer(string: UAPI.status(error.map { $0 as? UAPI.Fault ?? .unknown }))
    }

    private func answer(_ buffer: ByteBuffer, _ context: ChannelHandlerContext) {
        guard case .answering = state else { return SecretBuffer.wipe(buffer) }
        let (bound, eventLoop) = (NIOLoopBound((self, context), eventLoop: context.eventLoop), context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(buffer)).whenComplete { _ in
            SecretBuffer.wipe(buffer)
            // Not from here: requests that came in one read would each go one call deeper.
            eventLoop.execute {
                let (handler, context) = bound.value
                handler.finishAnswer(context)
            }
        }
    }

    private func finishAnswer(_ context: ChannelHandlerContext) {
        guard case .answering = state else { return }
        state = .reading
        startTimer(context)
        guard let next = rest else { return isInputClosed ? context.close(promise: nil) : context.read() }
        rest = nil
        receive(next, context)
        guard case .reading = state else { return }
        if isInputClosed { context.close(promise: nil) } else { context.read() }
    }
}

/// Buffers that keys went through.
enum SecretBuffer {
    static func make(_ text: borrowing UAPI.Text) -> ByteBuffer {
        text.withBytes { bytes in
            var buffer = ByteBufferAllocator().buffer(capacity: bytes.byteCount)
            _ = bytes.withUnsafeBytes { buffer.writeBytes($0) }
            return buffer
        }
    }

    /// Overwrites what can be read. The storage itself, not a copy: it may be shared with the pool that read it or with the writer
    /// that is done with it, and neither looks at it again.
    static func wipe(_ buffer: ByteBuffer) {
        buffer.withUnsafeReadableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            explicit_bzero(UnsafeMutableRawPointer(mutating: base), bytes.count)
        }
    }
}
