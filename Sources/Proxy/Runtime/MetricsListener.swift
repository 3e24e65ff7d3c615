import Inet
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Answers `GET /metrics` and `GET /status` by plain HTTP on a loopback address.
///
/// It has no password, so it is read-only, and a web page that a browser of this machine shows must not get at it: the Host has to be
/// a literal loopback address or `localhost` (no DNS rebinding), a foreign Origin is refused, and no CORS field is ever sent.
/// One request a connection; number, size and time are bounded.
package final class MetricsListener: Sendable {
    /// Gives the body of an answer.
    package typealias Body = @Sendable () async throws -> [UInt8]

    package static let maximumConnections = 16
    package static let maximumHead = 16 * 1024
    /// For a connection from its first to its last byte.
    package static let timeLimit = TimeAmount.seconds(10)

    package let address: SocketAddress
    private let channel: any Channel
    private let pages: MetricsPages

    private init(channel: any Channel, address: SocketAddress, pages: MetricsPages) {
        self.channel = channel
        self.address = address
        self.pages = pages
    }

    /// - Throws: `CommandFailure` if the address is not a loopback address or cannot be bound.
    package static func start(
        _ endpoint: SocketEndpoint, group: any EventLoopGroup, logger: Logger, timeLimit: TimeAmount = MetricsListener.timeLimit
    ) async throws -> MetricsListener {
        guard endpoint.address.isLoopback else {
            throw CommandFailure("metrics are told to this machine alone: \(endpoint) is no loopback address; give 127.0.0.1:PORT")
        }
        let pages = MetricsPages(timeLimit: timeLimit)
        do {
            let channel = try await ServerBootstrap(group: group)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let pipeline = channel.pipeline.syncOperations
                        try pipeline.addHandler(HeadLimit())
                        try pipeline.configureHTTPServerPipeline(withPipeliningAssistance: false)
                        try pipeline.addHandler(MetricsHandler(pages: pages))
                    }
                }
                .bind(host: "\(endpoint.address)", port: Int(endpoint.port)).get()
            guard let address = channel.localAddress else { throw ChannelError.ioOnClosedChannel }
            logger.info("Metrics are answered", metadata: ["address": "\(endpoint.address)", "port": "\(address.port ?? 0)"])
            return MetricsListener(channel: channel, address: address, pages: pages)
        } catch {
            throw CommandFailure("metrics: \(ListenError(endpoint, error, flag: "--metrics-listen")), or no metrics (--metrics-listen off)")
        }
    }

    /// Until then requests are answered 503.
    package func serve(metrics: @escaping Body, status: @escaping Body) {
        pages.set(["/metrics": (MetricsText.contentType, metrics), "/status": ("application/json", status)])
    }

    package func close() async { try? await channel.close() }
}

/// What there is to see, and how many look.
private final class MetricsPages: Sendable {
    typealias Page = (contentType: String, body: MetricsListener.Body)

    private let pages = Mutex<[String: Page]?>(nil)
    private let connections = Atomic(0)
    let timeLimit: TimeAmount

    init(timeLimit: TimeAmount) { self.timeLimit = timeLimit }

    func set(_ pages: [String: Page]) { self.pages.withLock { $0 = pages } }
    var current: [String: Page]? { pages.withLock { $0 } }
    func enter() -> Bool { connections.wrappingAdd(1, ordering: .relaxed).newValue <= MetricsListener.maximumConnections }
    func leave() { connections.wrappingSubtract(1, ordering: .relaxed) }
}

/// Cuts a connection off that sends more than a head may have.
private final class HeadLimit: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    private var count = 0

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        count += unwrapInboundIn(data).readableBytes
        guard count <= MetricsListener.maximumHead else { return context.close(promise: nil) }
        context.fireChannelRead(data)
    }
}

/// One connection. Bound to its event loop.
private final class MetricsHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let pages: MetricsPages
    private var timeout: Scheduled<Void>?
    private var isEntered = false
    private var hasAnswered = false

    init(pages: MetricsPages) { self.pages = pages }

    func channelActive(context: ChannelHandlerContext) {
        let channel = context.channel
        isEntered = true
        guard pages.enter() else { return channel.close(promise: nil) }
        timeout = context.eventLoop.scheduleTask(in: pages.timeLimit) { channel.close(promise: nil) }
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timeout?.cancel()
        if isEntered { pages.leave() }
        isEntered = false
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(let head) = unwrapInboundIn(data), !hasAnswered else { return }
        hasAnswered = true
        switch MetricsRequest.judge(head, pages: pages.current.map { Set($0.keys) }) {
        case .refuse(let status):
            Self.answer(context.channel, status, "text/plain; charset=utf-8", Array("\(status.code) \(status.reasonPhrase)\n".utf8))
        case .page(let path):
            guard let page = pages.current?[path] else { return context.close(promise: nil) }
            let channel = context.channel
            channel.eventLoop.makeFutureWithTask { try await page.body() }.whenComplete { result in
                switch result {
                case .success(let body): Self.answer(channel, .ok, page.contentType, body)
                case .failure:
                    Self.answer(channel, .serviceUnavailable, "text/plain; charset=utf-8", Array("503 Service Unavailable\n".utf8))
                }
            }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private static func answer(_ channel: any Channel, _ status: HTTPResponseStatus, _ contentType: String, _ body: [UInt8]) {
        var fields: HTTPHeaders = [
            "Content-Type": contentType, "Content-Length": "\(body.count)", "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
        ]
        if status == .methodNotAllowed { fields.add(name: "Allow", value: "GET") }
        channel.write(HTTPServerResponsePart.head(.init(version: .http1_1, status: status, headers: fields)), promise: nil)
        channel.write(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(bytes: body))), promise: nil)
        channel.writeAndFlush(HTTPServerResponsePart.end(nil)).whenComplete { _ in channel.close(promise: nil) }
    }
}

/// The rules of who may ask what.
enum MetricsRequest {
    enum Verdict: Equatable {
        case page(String)
        case refuse(HTTPResponseStatus)
    }

    /// - Parameter pages: `nil` while the process is still starting.
    static func judge(_ head: HTTPRequestHead, pages: Set<String>?) -> Verdict {
        let hosts = head.headers["host"]
        guard hosts.count == 1, isLocal(hosts[0]) else { return .refuse(hosts.count == 1 ? .forbidden : .badRequest) }
        let origins = head.headers["origin"]
        guard origins.allSatisfy({ $0.lowercased() == "http://\(hosts[0].lowercased())" }) else { return .refuse(.forbidden) }
        guard head.method == .GET else { return .refuse(.methodNotAllowed) }
        guard let pages else { return .refuse(.serviceUnavailable) }
        let path = String(head.uri.prefix { $0 != "?" })
        return pages.contains(path) ? .page(path) : .refuse(.notFound)
    }

    /// `localhost`, or a loopback address as it is written, with or without a port.
    static func isLocal(_ host: String) -> Bool {
        let lower = host.lowercased()
        var name = Substring(lower)
        if let colon = lower.lastIndex(of: ":"), lower[lower.index(after: colon)...].allSatisfy({ $0.isASCII && $0.isNumber }),
            lower[..<colon].last == "]" || !lower[..<colon].contains(":")
        {
            name = lower[..<colon]
        }
        if name == "localhost" { return true }
        if name.first == "[", name.last == "]", name.count > 2 {
            guard let address = IPAddress(String(name.dropFirst().dropLast())) else { return false }
            return address.family == .v6 && address.isLoopback
        }
        guard let address = IPAddress(String(name)) else { return false }
        return address.family == .v4 && address.isLoopback
    }
}
