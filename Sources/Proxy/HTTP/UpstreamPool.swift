import NIOCore

/// The connections of one event loop to its upstreams. Of those that wait, the one used last is used next, so that the others can grow old
/// and go. A connection of HTTP/1.1 carries one exchange at a time, one of HTTP/2 as many as its upstream allows.
final class UpstreamPool: ClockWatcher {
    let clock: ConnectionClock
    private let eventLoop: any EventLoop
    private let connector: UpstreamConnector
    private let limits: ProxyLimits
    private let counters: HTTPCounters
    private var idle: [UpstreamTarget: [HTTP1Upstream]] = [:]
    private var multiplexed: [UpstreamTarget: [HTTP2Upstream]] = [:]
    /// Exchanges that wait for a connection of HTTP/2 which is being made.
    private var waiting: [UpstreamTarget: [Completion]] = [:]
    typealias Completion = (Result<any UpstreamStream, UpstreamFailure>) -> Void
    private(set) var idleCount = 0
    private(set) var deadline = NIODeadline.distantFuture

    init(
        eventLoop: any EventLoop, connector: @escaping UpstreamConnector, limits: ProxyLimits, clock: ConnectionClock,
        counters: HTTPCounters
    ) {
        self.eventLoop = eventLoop
        self.connector = connector
        self.limits = limits
        self.clock = clock
        self.counters = counters
    }

    /// A way that is there already.
    func take(_ target: UpstreamTarget) -> (any UpstreamStream)? {
        if target.upstreamProtocol == .h2c { return multiplexed[target]?.first { $0.hasRoom }?.open(isReused: true) }
        while let connection = idle[target]?.popLast() {
            idleCount -= 1
            if connection.isActive { return connection }
            connection.closeIdle()
        }
        return nil
    }

    /// A new connection, and an exchange on it. `completion` may be called before this returns.
    func connect(_ target: UpstreamTarget, completion: @escaping Completion) {
        switch target.upstreamProtocol {
        case .http1:
            open(target) { [self] channel in
                try HTTP1Upstream.configure(channel, target: target, pool: self, limits: limits)
            } completion: {
                completion($0.map { $0 })
            }
        case .h2c:
            // Those that come while a connection is being made share it.
            waiting[target, default: []].append(completion)
            if waiting[target]?.count == 1 { connectShared(target) }
        }
    }

    private func connectShared(_ target: UpstreamTarget) {
        open(target) { [self] channel in
            let connection = try HTTP2Upstream.configure(channel, target: target, pool: self, limits: limits)
            multiplexed[target, default: []].append(connection)
            return connection
        } completion: { [self] result in
            switch result {
            case .success(let connection):
                connection.whenBegun { [self] failure in share(failure.map { .failure($0) } ?? .success(connection), target) }
            case .failure(let failure): share(.failure(failure), target)
            }
        }
    }

    private func share(_ result: Result<HTTP2Upstream, UpstreamFailure>, _ target: UpstreamTarget) {
        for (place, completion) in (waiting.removeValue(forKey: target) ?? []).enumerated() {
            switch result {
            case .success(let connection) where connection.hasRoom: completion(.success(connection.open(isReused: false)))
            // It takes fewer at once than have waited.
            case .success where place > 0: connect(target, completion: completion)
            case .success: completion(.failure(.broken("the upstream takes no requests")))
            case .failure(let failure): completion(.failure(failure))
            }
        }
    }

    private func open<Connection>(
        _ target: UpstreamTarget, configure: @escaping (any Channel) throws -> Connection,
        completion: @escaping (Result<Connection, UpstreamFailure>) -> Void
    ) {
        connector(target, eventLoop).hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let channel):
                guard channel.eventLoop === eventLoop else {
                    channel.close(promise: nil)
                    return completion(.failure(.broken("the connector gave a channel of another event loop")))
                }
                counters.upstreamOpened()
                channel.closeFuture.assumeIsolated().whenComplete { [counters] _ in counters.upstreamClosed() }
                let connection: Connection
                do {
                    // Nobody would tell a handler that comes now that the connection has ended.
                    guard channel.isActive else { throw ChannelError.ioOnClosedChannel }
                    connection = try configure(channel)
                } catch {
                    channel.close(promise: nil)
                    return completion(.failure(UpstreamFailure(error)))
                }
                completion(.success(connection))
            case .failure(let error): completion(.failure(UpstreamFailure(error)))
            }
        }
    }

    func put(_ connection: HTTP1Upstream) {
        guard idleCount < limits.poolIdleTotal, idle[connection.target]?.count ?? 0 < limits.poolIdlePerTarget else {
            return connection.closeIdle()
        }
        connection.idleSince = clock.now
        idle[connection.target, default: []].append(connection)
        idleCount += 1
        if deadline == .distantFuture {
            deadline = clock.deadline(after: limits.poolIdle)
            clock.add(self)
        }
    }

    /// A waiting connection closed.
    func remove(_ connection: HTTP1Upstream) {
        guard let index = idle[connection.target]?.firstIndex(where: { $0 === connection }) else { return }
        idle[connection.target]?.remove(at: index)
        idleCount -= 1
    }

    /// A connection takes no more exchanges.
    func remove(_ connection: HTTP2Upstream) {
        guard var connections = multiplexed[connection.target] else { return }
        connections.removeAll { $0 === connection }
        multiplexed[connection.target] = connections.isEmpty ? nil : connections
    }

    func closeIdle() {
        let all = idle.values.joined()
        idle = [:]
        idleCount = 0
        for connection in all { connection.closeIdle() }
        for connection in multiplexed.values.joined() { connection.leave() }
    }

    func deadlineReached() {
        var old: [HTTP1Upstream] = []
        var oldest = NIODeadline.distantFuture
        for (target, connections) in idle {
            let expired = connections.prefix { $0.idleSince + limits.poolIdle <= clock.now }
            old += expired
            let kept = connections.dropFirst(expired.count)
            idle[target] = kept.isEmpty ? nil : Array(kept)
            if let first = kept.first { oldest = min(oldest, first.idleSince) }
        }
        idleCount -= old.count
        for connection in old { connection.closeIdle() }
        if oldest == .distantFuture {
            deadline = .distantFuture
            clock.remove(self)
        } else {
            deadline = oldest + limits.poolIdle
        }
    }
}
