import Inet
import Logging
import NIOCore
import NIOEmbedded
import Proxy
import Testing

/// A proxy without sockets: one client's connection and the upstreams that it asks for, on one loop with its own time.
/// Bytes go in and come out as text.
final class EmbeddedProxy {
    enum Answer {
        case connect
        case fail(UpstreamFailure)
        /// The connect stays open until the test decides.
        case wait
    }

    let loop = EmbeddedEventLoop()
    let service: ProxyService
    let client: EmbeddedChannel
    let clientReads = ReadCounter()
    private let dialer: EmbeddedDialer

    static let tunnels = [
        TunnelConfig(id: "1", domain: "app.example.com", agentVirtualIP: IPAddress(v4: 10, 1, 0, 2), target: "localhost:8080"),
        TunnelConfig(id: "2", domain: "off.example.com", agentVirtualIP: IPAddress(v4: 10, 1, 0, 3), enabled: false),
        TunnelConfig(id: "3", domain: "*.wild.example.com", agentVirtualIP: IPAddress(v4: 10, 1, 0, 4), port: 81),
    ]

    init(
        mode: ProxyMode = .gateway, router: (any RequestRouter)? = nil, limits: ProxyLimits = ProxyLimits(),
        scheme: ClientIdentity.Scheme = .https, speaks: ProxyService.ClientProtocol = .http1, coverage: (any HostCoverage)? = nil,
        challenges: (any ChallengeResponder)? = nil, trusted: TrustedProxies = TrustedProxies(), logger: Logger = .silent
    ) throws {
        let dialer = EmbeddedDialer()
        self.dialer = dialer
        service = ProxyService(
            mode: mode, router: router ?? Router(tunnels: Self.tunnels, logger: logger),
            connector: { target, eventLoop in dialer.dial(target, eventLoop) }, limits: limits, trustedProxies: trusted,
            challenges: challenges, logger: logger)
        client = EmbeddedChannel(loop: loop)
        client.remoteAddress = try SocketAddress(ipAddress: "198.51.100.9", port: 51_234)
        try client.pipeline.syncOperations.addHandler(clientReads)
        try service.configure(client, scheme: scheme, speaks: speaks, coverage: coverage)
        client.connect(to: try SocketAddress(ipAddress: "192.0.2.1", port: 443), promise: nil)
    }

    /// How the next connects end; after the last, all succeed.
    func answerConnects(_ answers: Answer...) { dialer.answers = answers }

    var dialed: [UpstreamTarget] { dialer.dialed }
    var upstreams: [EmbeddedChannel] { dialer.channels }

    /// The connection that was dialed last.
    func upstream() throws -> EmbeddedChannel { try #require(dialer.channels.last) }

    /// The connect that was left open succeeds.
    func completeConnect(_ prepare: (any Channel) -> Void = { _ in }) throws {
        let promise = try #require(dialer.pending.last)
        dialer.pending.removeLast()
        let channel = dialer.makeChannel(loop)
        prepare(channel)
        promise.succeed(channel)
    }

    func send(_ text: String) throws { _ = try client.writeInbound(ByteBuffer(string: text)) }

    /// Everything that the client was sent since the last call.
    func received() throws -> String { try Self.drain(client) }

    func respond(_ text: String, on channel: EmbeddedChannel? = nil) throws {
        _ = try (channel ?? upstream()).writeInbound(ByteBuffer(string: text))
    }

    /// Everything that the upstream was sent since the last call.
    func forwarded(on channel: EmbeddedChannel? = nil) throws -> String { try Self.drain(channel ?? upstream()) }

    func advance(by amount: TimeAmount) { loop.advanceTime(by: amount) }

    static func drain(_ channel: EmbeddedChannel) throws -> String {
        var bytes: [UInt8] = []
        while let data = try channel.readOutbound(as: IOData.self) {
            if case .byteBuffer(let buffer) = data { bytes += Array(buffer.readableBytesView) }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Counts reads that reach the socket.
final class ReadCounter: ChannelOutboundHandler {
    typealias OutboundIn = Never
    private(set) var count = 0

    func read(context: ChannelHandlerContext) {
        count += 1
        context.read()
    }
}

/// Used on the one thread of a test.
final class EmbeddedDialer: @unchecked Sendable {
    var answers: [EmbeddedProxy.Answer] = []
    var dialed: [UpstreamTarget] = []
    var channels: [EmbeddedChannel] = []
    var pending: [EventLoopPromise<any Channel>] = []

    func dial(_ target: UpstreamTarget, _ eventLoop: any EventLoop) -> EventLoopFuture<any Channel> {
        dialed.append(target)
        switch answers.isEmpty ? .connect : answers.removeFirst() {
        case .connect: return eventLoop.makeSucceededFuture(makeChannel(eventLoop))
        case .fail(let failure): return eventLoop.makeFailedFuture(failure)
        case .wait:
            let promise = eventLoop.makePromise(of: (any Channel).self)
            pending.append(promise)
            return promise.futureResult
        }
    }

    func makeChannel(_ eventLoop: any EventLoop) -> any Channel {
        let channel = EmbeddedChannel(handlers: [ReadCounter()], loop: eventLoop as? EmbeddedEventLoop ?? EmbeddedEventLoop())
        if let address = try? SocketAddress(ipAddress: "10.1.0.2", port: 80) { channel.connect(to: address, promise: nil) }
        channels.append(channel)
        return channel
    }
}

struct CoveredHosts: HostCoverage {
    var hosts: Set<String>
    func covers(_ host: String) -> Bool { hosts.contains(host) }
}

extension Logger {
    static var silent: Logger { Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }) }
}

/// The argument of a test, shown by its name.
struct RawMessage: Sendable, CustomTestStringConvertible {
    let name: String
    let bytes: String
    var testDescription: String { name }

    init(_ name: String, _ bytes: String) {
        self.name = name
        self.bytes = bytes
    }
}
