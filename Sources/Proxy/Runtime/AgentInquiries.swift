import Inet
import NIOCore
import NIOWireGuard
import Synchronization
import TCPStack

/// Asks whether an agent is there, once for all who want to know at the same time: thousands of requests that wait for slow answers
/// are one question to their agent. Thread-safe.
package final class AgentInquiries: Sendable {
    package typealias Inquiry = @Sendable (_ remote: SocketEndpoint, _ source: IPAddress?) -> EventLoopFuture<Bool>

    private enum Entry: Sendable {
        case open(EventLoopFuture<Bool>)
        case answered(NIODeadline)
    }

    private let eventLoop: any EventLoop
    private let memory: TimeAmount
    private let inquire: Inquiry
    /// As many as there are agents that were ever asked: addresses come from configuration.
    private let entries = Mutex<[IPAddress: Entry]>([:])

    /// - Parameters:
    ///   - eventLoop: of the futures of `inquire`.
    ///   - memory: how long an answer counts. Not longer than the silence that makes somebody ask: so it is never older than what he waits for.
    package init(eventLoop: any EventLoop, memory: TimeAmount, inquire: @escaping Inquiry) {
        self.eventLoop = eventLoop
        self.memory = memory
        self.inquire = inquire
    }

    /// Whether somebody is at the address. The port and source of the first who asks are used for all.
    package func ask(_ remote: SocketEndpoint, from source: IPAddress?) -> EventLoopFuture<Bool> {
        let promise = eventLoop.makePromise(of: Bool.self)
        let now = eventLoop.now
        let known = entries.withLock { entries -> EventLoopFuture<Bool>? in
            switch entries[remote.address] {
            case .open(let future): return future
            case .answered(let time) where now < time + memory: return eventLoop.makeSucceededFuture(true)
            case .answered, nil:
                entries[remote.address] = .open(promise.futureResult)
                return nil
            }
        }
        if let known {
            promise.succeed(true)
            return known
        }
        inquire(remote, source).whenComplete { [self] result in
            let isThere = (try? result.get()) ?? false
            entries.withLock { $0[remote.address] = isThere ? .answered(eventLoop.now) : nil }
            promise.succeed(isThere)
        }
        return promise.futureResult
    }
}

extension WireGuardInterface {
    /// Whether somebody is there: the answer to a TCP connect, be it a refusal, or any packet of that peer in the meantime.
    func isAnswering(_ remote: SocketEndpoint, _ source: IPAddress?, within limit: Duration) -> EventLoopFuture<Bool> {
        receivedBytes(fromPeerOwning: remote.address).flatMap { before in
            self.isConnectAnswered(remote, source, within: limit).flatMap { isAnswered in
                if isAnswered { return self.eventLoop.makeSucceededFuture(true) }
                return self.receivedBytes(fromPeerOwning: remote.address).map { $0 != before }
            }
        }
    }

    private func isConnectAnswered(_ remote: SocketEndpoint, _ source: IPAddress?, within limit: Duration) -> EventLoopFuture<Bool> {
        var options = ConnectionOptions.tunnelDefault
        options.connectTimeout = limit
        return connect(to: remote, from: source, options: options) { $0.eventLoop.makeSucceededVoidFuture() }.map { channel in
            channel.close(promise: nil)
            return true
        }.flatMapErrorThrowing { error in
            switch error as? TunnelError {
            case .refused, .reset: true
            case .timedOut, .unreachable, .aborted, .noSourceAddress, .unavailable, .messageTooLarge, .queueFull, .interfaceClosed,
                .outOfMemory,
                nil:
                false
            }
        }
    }
}
