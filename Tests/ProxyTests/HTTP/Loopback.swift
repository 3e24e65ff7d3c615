import Inet
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Proxy

/// Real sockets of 127.0.0.1, all on one event loop: what happens on one side has happened when the loop has gone round.
final class Loopback: Sendable {
    let loop: any EventLoop

    init() { loop = MultiThreadedEventLoopGroup.singleton.next() }

    static let localhost = IPAddress(v4: 127, 0, 0, 1)

    /// - Returns: a listener and its port.
    func serve(_ initializer: @escaping @Sendable (any Channel) throws -> Void) async throws -> (channel: any Channel, port: UInt16) {
        let channel = try await ServerBootstrap(group: loop)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in channel.eventLoop.makeCompletedFuture { try initializer(channel) } }
            .bind(host: "127.0.0.1", port: 0).get()
        return (channel, UInt16(clamping: channel.localAddress?.port ?? 0))
    }

    func gateway(
        to origin: UInt16, kind: PublicListener.Kind = .http, limits: ProxyLimits = ProxyLimits(),
        limiter: ConnectionLimiter = ConnectionLimiter()
    ) async throws -> PublicListener {
        let router = Router(
            tunnels: [TunnelConfig(id: "1", domain: "app.example.com", agentVirtualIP: Self.localhost, port: origin)], logger: .silent)
        return try await gateway(router: router, kind: kind, limits: limits, limiter: limiter)
    }

    func gateway(
        router: any RequestRouter, kind: PublicListener.Kind = .http, limits: ProxyLimits = ProxyLimits(),
        limiter: ConnectionLimiter = ConnectionLimiter()
    ) async throws -> PublicListener {
        let service = ProxyService(mode: .gateway, router: router, connector: OriginDialer.connector(), limits: limits, logger: .silent)
        return try await PublicListener.bind(
            SocketEndpoint(Self.localhost, port: 0), kind: kind, service: service, limiter: limiter, group: loop
        ).get()
    }

    func client(
        _ port: UInt16, _ configure: @escaping @Sendable (any Channel) throws -> Void = { _ in }
    ) async throws -> NIOAsyncChannel<ByteBuffer, ByteBuffer> {
        try await ClientBootstrap(group: loop)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .connect(host: "127.0.0.1", port: Int(port)) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try configure(channel)
                    return try NIOAsyncChannel(
                        wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
                }
            }
    }

    /// Goes round until `value` no longer changes: nothing is in motion then that the loop could move.
    func settle(_ value: @escaping @Sendable () -> Int) async throws -> Int {
        var last = -1
        while true {
            let now = try await loop.submit(value).get()
            if now == last { return now }
            last = now
            for _ in 0..<200 { try await loop.submit {}.get() }
        }
    }
}

/// Reads from a connection what a test expects.
struct ByteReader {
    var iterator: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    private(set) var text = ""

    init(_ stream: NIOAsyncChannelInboundStream<ByteBuffer>) { iterator = stream.makeAsyncIterator() }

    /// Everything up to and with `mark`, or up to the end.
    mutating func read(through mark: String) async throws -> String {
        while !text.contains(mark), let bytes = try await iterator.next() { text += String(buffer: bytes) }
        guard let range = text.range(through: mark) else {
            defer { text = "" }
            return text
        }
        defer { text = String(text[range.upperBound...]) }
        return String(text[..<range.upperBound])
    }

    /// Forgets what came before.
    mutating func drop() { text = "" }

    /// The number of bytes up to the end.
    mutating func countToEnd() async throws -> Int {
        var count = text.utf8.count
        while let bytes = try await iterator.next() { count += bytes.readableBytes }
        return count
    }
}

extension String {
    fileprivate func range(through mark: String) -> Range<String.Index>? { self.ranges(of: mark).first }
}

/// An origin that answers by path: `/hello` shows the request's fields, `/count` the size of its body, `/fill?N` has a body of N bytes.
final class Origin: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    /// What all connections did.
    struct Record: Sendable {
        var connections = 0
        var closed = 0
        var written = 0
    }

    private let record: LoopValue<Record>
    private var head: HTTPRequestHead?
    private var received = 0
    private var left = 0
    private static let piece = ByteBuffer(repeating: 0x61, count: 32 * 1024)

    init(_ record: LoopValue<Record>) { self.record = record }

    static func install(on channel: any Channel, _ record: LoopValue<Record>) throws {
        try channel.pipeline.syncOperations.configureHTTPServerPipeline()
        try channel.pipeline.syncOperations.addHandler(Origin(record))
    }

    func channelActive(context: ChannelHandlerContext) { record.value.connections += 1 }

    func channelInactive(context: ChannelHandlerContext) { record.value.closed += 1 }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            received = 0
        case .body(let bytes): received += bytes.readableBytes
        case .end:
            guard let head else { return }
            let path = head.uri
            if path.hasPrefix("/fill?") {
                left = Int(path.dropFirst(6)) ?? 0
                respond(context, length: left)
                fill(context)
                return
            }
            let text = path.hasPrefix("/count") ? "\(received)" : head.headers.map { "\($0.name): \($0.value)\n" }.joined()
            respond(context, length: text.utf8.count)
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: text)))), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) { fill(context) }

    private func respond(_ context: ChannelHandlerContext, length: Int) {
        let head = HTTPResponseHead(version: .http1_1, status: .ok, headers: ["Content-Length": "\(length)"])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
    }

    private func fill(_ context: ChannelHandlerContext) {
        guard left > 0 else { return }
        while left > 0, context.channel.isWritable {
            let count = min(left, Self.piece.readableBytes)
            left -= count
            record.value.written += count
            let bytes = Self.piece.getSlice(at: 0, length: count) ?? Self.piece
            context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(bytes))), promise: nil)
        }
        if left == 0 { context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil) }
    }
}

/// A value that only one loop touches.
final class LoopValue<Value: Sendable>: @unchecked Sendable {
    private let loop: any EventLoop
    private var stored: Value

    init(_ value: Value, on loop: any EventLoop) {
        stored = value
        self.loop = loop
    }

    var value: Value {
        get {
            loop.preconditionInEventLoop()
            return stored
        }
        set {
            loop.preconditionInEventLoop()
            stored = newValue
        }
    }
}
