import FoundationEssentials
import Glibc
import NIOCore
import NIOPosix
import Synchronization

/// One question to a running process, one JSON object on a line: `{"verb":"status"}`.
package struct AdminRequest: Codable, Sendable, Equatable {
    package var verb: String
    package var arguments: [String: String]?

    package init(verb: String, arguments: [String: String]? = nil) {
        self.verb = verb
        self.arguments = arguments
    }
}

/// What a process answers when it cannot do what it is asked.
package struct AdminFault: Codable, Error, Sendable, Equatable, CustomStringConvertible {
    package var error: String
    package init(error: String) { self.error = error }
    package var description: String { error }
}

/// The Unix socket on which a running process answers its owner and root, nobody else: mode 0600 and the kernel's word on who asks.
/// One request a connection; its size and time are bounded, but for a stream's time, which its verb bounds.
package final class AdminSocket: Sendable {
    /// Gives the answer as JSON.
    package typealias Verb = @Sendable (AdminRequest) async throws -> [UInt8]
    /// Answers with a stream, whose first line is JSON; it has not begun if the verb throws.
    package typealias StreamVerb = @Sendable (AdminRequest, AdminStream) async throws -> Void

    /// Bytes, with room for the files of a certificate and its key, which `certs import` sends.
    package static let maximumRequest = 1 << 20
    package static let timeLimit = TimeAmount.seconds(5)
    package static let maximumConnections = 16
    package static let maximumPath = OwnerSocket.maximumPath

    package var path: String { socket.path }
    private let socket: OwnerSocket
    private let verbs: VerbTable

    private init(_ socket: OwnerSocket, verbs: VerbTable) {
        self.socket = socket
        self.verbs = verbs
    }

    /// Binds the socket. A dead one in its place is removed; one that answers is an error.
    /// - Parameter timeLimit: for a whole request, answer included.
    package static func start(
        path: String, group: any EventLoopGroup, timeLimit: TimeAmount = AdminSocket.timeLimit
    ) async throws -> AdminSocket {
        let verbs = VerbTable(timeLimit: timeLimit)
        let socket = try await OwnerSocket.bind(
            path, group: group, shorter: "give --state a shorter directory", other: "stop it, or give --state another directory"
        ) { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(AdminHandler(verbs: verbs)) }
        }
        return AdminSocket(socket, verbs: verbs)
    }

    /// Adds a verb, or replaces it.
    package func register(_ name: String, _ verb: @escaping Verb) { verbs.set(name, .answer(verb)) }

    /// Adds a verb that answers with a stream, or replaces it.
    package func registerStream(_ name: String, _ verb: @escaping StreamVerb) { verbs.set(name, .stream(verb)) }

    package func close() async { await socket.close() }
}

/// The verbs of one socket and how many connections it has.
private final class VerbTable: Sendable {
    enum Entry: Sendable {
        case answer(AdminSocket.Verb)
        case stream(AdminSocket.StreamVerb)
    }

    private let verbs = Mutex<[String: Entry]>([:])
    let connections = ConnectionCount(limit: AdminSocket.maximumConnections)
    let timeLimit: TimeAmount

    init(timeLimit: TimeAmount) { self.timeLimit = timeLimit }

    func set(_ name: String, _ verb: Entry) { verbs.withLock { $0[name] = verb } }

    /// - Returns: the answer; `nil` if `stream` has taken over.
    func answer(_ line: [UInt8], stream: () -> AdminStream) async -> [UInt8]? {
        guard let request = try? JSONDecoder().decode(AdminRequest.self, from: Data(line)) else {
            return fault("the request is not one JSON object with a \"verb\"")
        }
        guard let verb = verbs.withLock({ $0[request.verb] }) else {
            let known = verbs.withLock { $0.keys.sorted().joined(separator: ", ") }
            return fault("there is no verb \"\(LogText.escape(request.verb, limit: 64))\"; use one of \(known)")
        }
        do {
            switch verb {
            case .answer(let verb): return try await verb(request)
            case .stream(let verb):
                try await verb(request, stream())
                return nil
            }
        } catch {
            return fault("\(error)")
        }
    }

    func fault(_ text: String) -> [UInt8] { (try? JSONEncoder().encode(AdminFault(error: text))).map(Array.init) ?? Array("{}".utf8) }
}

/// One connection: checks who asks, collects a line, answers, closes. Bound to its event loop.
private final class AdminHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State {
        case checking
        case reading
        /// The promise is kept when the client says anything more, which ends a stream.
        case answering(ended: EventLoopPromise<Void>)
        case closed
    }

    private let verbs: VerbTable
    private var state = State.checking
    private var line: [UInt8] = []
    /// Of the request in `line`.
    private var end: Int?
    private var timeout: Scheduled<Void>?

    init(verbs: VerbTable) { self.verbs = verbs }

    func channelActive(context: ChannelHandlerContext) {
        let channel = context.channel
        guard verbs.connections.enter() else { return channel.close(promise: nil) }
        timeout = context.eventLoop.scheduleTask(in: verbs.timeLimit) { channel.close(promise: nil) }
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        OwnerSocket.isOwner(channel).whenSuccess { isOwner in
            let (handler, context) = bound.value
            guard isOwner else { return context.close(promise: nil) }
            guard case .checking = handler.state else { return }
            handler.state = .reading
            handler.answerIfComplete(context)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        switch state {
        case .checking, .reading:
            guard line.count + buffer.readableBytes <= AdminSocket.maximumRequest else { return context.close(promise: nil) }
            let bytes = buffer.readBytes(length: buffer.readableBytes) ?? []
            // Only what is new is searched: a long request comes in many pieces.
            if end == nil { end = bytes.firstIndex(of: 0x0A).map { line.count + $0 } }
            line += bytes
            answerIfComplete(context)
        case .answering(let ended): ended.succeed()
        case .closed: break
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        timeout?.cancel()
        if case .closed = state { return }
        if case .answering(let ended) = state { ended.succeed() }
        state = .closed
        verbs.connections.leave()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func answerIfComplete(_ context: ChannelHandlerContext) {
        guard case .reading = state, let end else { return }
        let ended = context.eventLoop.makePromise(of: Void.self)
        state = .answering(ended: ended)
        let (request, verbs, channel) = (Array(line[..<end]), verbs, context.channel)
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        channel.eventLoop.makeFutureWithTask {
            await verbs.answer(request) {
                // From here on time is the verb's matter.
                channel.eventLoop.execute { bound.value.timeout?.cancel() }
                return AdminStream(channel, ended: ended.futureResult, timeLimit: verbs.timeLimit)
            }
        }.whenSuccess { answer in
            guard let answer else { return }
            channel.writeAndFlush(ByteBuffer(bytes: answer + [0x0A])).whenComplete { _ in channel.close(promise: nil) }
        }
    }
}

/// The asking side: `kakuremichi status` and its like.
package enum AdminClient {
    package static let maximumAnswer = 16 << 20

    /// Asks the process that holds `path`.
    /// - Parameter timeLimit: for the connection and for the answer, each.
    package static func ask(
        _ request: AdminRequest, at path: String, group: any EventLoopGroup, timeLimit: TimeAmount = .seconds(10)
    ) async throws -> [UInt8] {
        let bytes = try encode(request, for: path)
        let loop = group.next()
        let promise = loop.makePromise(of: [UInt8].self)
        let channel: any Channel
        do {
            channel = try await ClientBootstrap(group: loop)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(AnswerHandler(promise: promise))
                    }
                }
                .connectTimeout(timeLimit)
                .connect(unixDomainSocketPath: path).get()
        } catch {
            promise.fail(error)
            throw error
        }
        let timeout = loop.scheduleTask(in: timeLimit) { channel.close(promise: nil) }
        defer { timeout.cancel() }
        channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil)
        let answer = try await promise.futureResult.get()
        if let fault = try? JSONDecoder().decode(AdminFault.self, from: Data(answer)) { throw fault }
        return answer
    }

    /// The request's line.
    static func encode(_ request: AdminRequest, for path: String) throws -> [UInt8] {
        guard path.utf8.count <= AdminSocket.maximumPath else {
            throw AdminFault(
                error: "the path of a socket has at most \(AdminSocket.maximumPath) bytes, and this one has \(path.utf8.count): "
                    + "name the directory by a shorter path, such as one from the working directory on")
        }
        let bytes = Array(try JSONEncoder().encode(request)) + [0x0A]
        guard bytes.count <= AdminSocket.maximumRequest else {
            throw AdminFault(error: "the request is larger than the \(AdminSocket.maximumRequest) bytes that a process takes")
        }
        return bytes
    }

    /// Collects the answer until the other side closes. Bound to its event loop.
    private final class AnswerHandler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private var promise: EventLoopPromise<[UInt8]>?
        private var answer: [UInt8] = []

        init(promise: EventLoopPromise<[UInt8]>) { self.promise = promise }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var buffer = unwrapInboundIn(data)
            guard answer.count + buffer.readableBytes <= AdminClient.maximumAnswer else { return context.close(promise: nil) }
            answer += buffer.readBytes(length: buffer.readableBytes) ?? []
        }

        func channelInactive(context: ChannelHandlerContext) { finish() }
        func handlerRemoved(context: ChannelHandlerContext) { finish() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

        private func finish() {
            guard let promise else { return }
            self.promise = nil
            if answer.last == 0x0A {
                promise.succeed(answer.dropLast())
            } else {
                promise.fail(AdminFault(error: "the process closed the connection without an answer"))
            }
        }
    }
}
