import NIOCore

/// The connections of one event loop to its upstreams. The one used last is used next, so that the others can grow old and go.
final class UpstreamPool: ClockWatcher {
    private let eventLoop: any EventLoop
    private let connector: UpstreamConnector
    private let limits: ProxyLimits
    private let clock: ConnectionClock
    private var idle: [UpstreamTarget: [UpstreamConnection]] = [:]
    private(set) var idleCount = 0
    private(set) var deadline = NIODeadline.distantFuture

    init(eventLoop: any EventLoop, connector: @escaping UpstreamConnector, limits: ProxyLimits, clock: ConnectionClock) {
        self.eventLoop = eventLoop
        self.connector = connector
        self.limits = limits
        self.clock = clock
    }

    /// A connection that waits, if there is one that still lives.
    func take(_ target: UpstreamTarget) -> UpstreamConnection? {
        while let connection = idle[target]?.popLast() {
            idleCount -= 1
            if connection.isActive { return connection }
            connection.closeIdle()
        }
        return nil
    }

    /// A new connection. `completion` may be called before this returns.
    func connect(_ target: UpstreamTarget, completion: @escaping (Result<UpstreamConnection, UpstreamFailure>) -> Void) {
        connector(target, eventLoop).hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let channel):
                guard channel.eventLoop === eventLoop else {
                    channel.close(promise: nil)
                    return completion(.failure(.broken("the connector gave a channel of another event loop")))
                }
                do {
                    completion(.success(try UpstreamConnection.configure(channel, target: target, pool: self, limits: limits)))
                } catch {
                    channel.close(promise: nil)
                    completion(.failure(UpstreamFailure(error)))
                }
            case .failure(let error): completion(.failure(UpstreamFailure(error)))
            }
        }
    }

    func put(_ connection: UpstreamConnection) {
        guard idleCount < limits.poolIdleTotal, idle[connection.target]?.count ?? 0 < limits.poolIdlePerTarget else {
            return connection.closeIdle()
        }
        connection.isReused = true
        connection.idleSince = clock.now
        idle[connection.target, default: []].append(connection)
        idleCount += 1
        if deadline == .distantFuture {
            deadline = clock.deadline(after: limits.poolIdle)
            clock.add(self)
        }
    }

    /// A waiting connection closed.
    func remove(_ connection: UpstreamConnection) {
        guard let index = idle[connection.target]?.firstIndex(where: { $0 === connection }) else { return }
        idle[connection.target]?.remove(at: index)
        idleCount -= 1
    }

    func closeIdle() {
        let all = idle.values.joined()
        idle = [:]
        idleCount = 0
        for connection in all { connection.closeIdle() }
    }

    func deadlineReached() {
        var old: [UpstreamConnection] = []
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
