import Inet
import Logging
import NIOCore
import NIOExtras
import NIOPosix
import Synchronization

/// A listening socket for clients, with the connections that it accepted.
package final class PublicListener: Sendable {
    package enum Kind: Sendable {
        case https(any TLSFront)
        /// Plain HTTP: for a ``ProxyService`` with a ``RedirectRouter``, or in tests.
        case http
    }

    package let endpoint: SocketEndpoint
    private let channel: any Channel
    private let quiescing: QuiescingHelper
    private let connections: Connections

    /// Binds and accepts. Fails with ``ListenError``.
    package static func bind(
        _ endpoint: SocketEndpoint, kind: Kind, service: ProxyService, limiter: ConnectionLimiter, group: any EventLoopGroup
    ) -> EventLoopFuture<PublicListener> {
        let quiescing = QuiescingHelper(group: group)
        let connections = Connections()
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptPause(limiter: limiter, logger: service.logger))
                    try channel.pipeline.syncOperations.addHandler(quiescing.helper.makeServerChannelHandler(channel: channel))
                }
            }
            // Accepted sockets have them from the listening one, without a system call each.
            .serverChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            // A WebSocket has no time limit: a client that vanished is found out by the system, within 2 min.
            .serverChannelOption(.socketOption(.so_keepalive), value: 1)
            .serverChannelOption(.tcpOption(.keepaliveIdle), value: 60)
            .serverChannelOption(.tcpOption(.keepaliveInterval), value: 15)
            .serverChannelOption(.tcpOption(.keepaliveCount), value: 4)
            .serverChannelOption(.tcpOption(.unsentLowWater), value: TCPOption.unsent)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
                    try channel.syncOptions?.setOption(.writeBufferWaterMark, value: .init(low: 64 * 1024, high: 128 * 1024))
                    try accept(channel, kind: kind, service: service, limiter: limiter, connections: connections)
                }
            }
        let flag = if case .http = kind { "--http" } else { "--https" }
        let bound: EventLoopFuture<any Channel>
        do {
            bound = bootstrap.bind(to: try SocketAddress(ipAddress: "\(endpoint.address)", port: Int(endpoint.port)))
        } catch {
            bound = group.any().makeFailedFuture(error)
        }
        return bound.flatMapErrorThrowing { throw ListenError(endpoint, $0, flag: flag) }.map { channel in
            PublicListener(endpoint: endpoint, channel: channel, quiescing: quiescing, connections: connections)
        }
    }

    /// The bound port, if the endpoint's was 0.
    package var port: UInt16 { UInt16(clamping: channel.localAddress?.port ?? Int(endpoint.port)) }

    /// Connections that are open now.
    package var openConnections: Int { connections.all.withLock { $0.count } }

    /// Stops accepting, lets requests in hand end with `Connection: close`, and closes by force what is left at the deadline.
    package func drain(within limit: TimeAmount) -> EventLoopFuture<Void> {
        let promise = channel.eventLoop.makePromise(of: Void.self)
        connections.isDraining.store(true, ordering: .releasing)
        quiescing.helper.initiateShutdown(promise: promise)
        let deadline = channel.eventLoop.scheduleTask(in: limit) { self.closeConnections() }
        promise.futureResult.whenComplete { _ in deadline.cancel() }
        return promise.futureResult
    }

    /// Closes all connections at once.
    package func closeConnections() {
        for channel in connections.all.withLock({ Array($0.values) }) { channel.close(promise: nil) }
    }

    private init(endpoint: SocketEndpoint, channel: any Channel, quiescing: QuiescingHelper, connections: Connections) {
        self.endpoint = endpoint
        self.channel = channel
        self.quiescing = quiescing
        self.connections = connections
    }

    private static func accept(
        _ channel: any Channel, kind: Kind, service: ProxyService, limiter: ConnectionLimiter, connections: Connections
    ) throws {
        let client = channel.remoteAddress?.ipAddress.flatMap { IPAddress($0) } ?? .anyV6
        // It speaks for many: those are bounded by their requests.
        let isTrusted = service.trustedProxies.contains(client)
        guard isTrusted || limiter.admit(client) else { throw ChannelError.eof }
        let key = ObjectIdentifier(channel)
        connections.all.withLock { $0[key] = channel }
        channel.closeFuture.whenComplete { _ in
            if !isTrusted { limiter.release(client) }
            connections.all.withLock { $0[key] = nil }
        }
        switch kind {
        case .http: try service.configure(channel, scheme: .http)
        case .https(let front):
            let hello = HandshakeWatch(
                channel, clock: service.clock(of: channel.eventLoop), counters: service.counters(of: channel.eventLoop),
                limit: service.limits.header)
            let handler = front.makeTLSHandler(onWait: { hello.extend(by: $0) }) { coverage in
                let negotiation = ProtocolNegotiation { version in
                    hello.established()
                    // Said hello after the others were told to end.
                    if connections.isDraining.load(ordering: .acquiring) { throw ChannelError.eof }
                    try service.configure(channel, scheme: .https, speaks: version, coverage: coverage)
                }
                try channel.pipeline.syncOperations.addHandler(negotiation)
            }
            try channel.pipeline.syncOperations.addHandlers(FarewellGate(), handler)
        }
    }

    private final class Connections: Sendable {
        let all = Mutex<[ObjectIdentifier: any Channel]>([:])
        let isDraining = Atomic<Bool>(false)
    }

    /// `ServerQuiescingHelper` is a promise and two methods that any thread may call, but is not marked so.
    private final class QuiescingHelper: @unchecked Sendable {
        let helper: ServerQuiescingHelper
        init(group: any EventLoopGroup) { helper = ServerQuiescingHelper(group: group) }
    }
}

/// Of a TLS handshake: how it ends is counted, and the connection of a client that connects and does not say hello is closed.
private final class HandshakeWatch: ClockWatcher {
    private let channel: any Channel
    private let clock: ConnectionClock
    private let counters: HTTPCounters
    private var isOver = false
    private(set) var deadline: NIODeadline

    init(_ channel: any Channel, clock: ConnectionClock, counters: HTTPCounters, limit: TimeAmount) {
        self.channel = channel
        self.clock = clock
        self.counters = counters
        deadline = clock.deadline(after: limit)
        clock.add(self)
        channel.closeFuture.assumeIsolated().whenComplete { _ in self.end { self.counters.tlsFailed(.failed) } }
    }

    /// The client has done its part, and waits for ours.
    func extend(by amount: TimeAmount) { deadline = deadline + amount }

    func established() { end { counters.tlsEstablished() } }

    func deadlineReached() {
        end { counters.tlsFailed(.timeout) }
        channel.close(promise: nil)
    }

    private func end(_ count: () -> Void) {
        guard !isOver else { return }
        isOver = true
        clock.remove(self)
        count()
    }
}
