import Inet
import Synchronization

/// Bounds the connections from the outside: those of one client, which is an IPv4 address or an IPv6 /64, and all of them. Of a client
/// that has enough, another one is refused; when there are enough in all, listeners accept none until there is room again.
package final class ConnectionLimiter: Sendable {
    private struct State {
        var maximum: Int
        var maximumPerClient: Int
        var total = 0
        var byClient: [IPAddress: Int] = [:]
        var refused: UInt64 = 0
        /// Listeners that wait for room: one call each.
        var waiting: [@Sendable () -> Void] = []
    }

    private let state: Mutex<State>
    /// For the lines about listeners that pause, as they all pause for one reason.
    let logBudget = LogBudget()

    package static let defaultMaximum = 8192
    package static let defaultMaximumPerClient = 1024

    package init(maximum: Int = defaultMaximum, maximumPerClient: Int = defaultMaximumPerClient) {
        state = Mutex(State(maximum: maximum, maximumPerClient: maximumPerClient))
    }

    package var maximum: Int { state.withLock { $0.maximum } }
    package var maximumPerClient: Int { state.withLock { $0.maximumPerClient } }

    /// For connections from now on; those that are open stay.
    package func change(maximum: Int, maximumPerClient: Int) {
        let waiting = state.withLock { state in
            state.maximum = maximum
            state.maximumPerClient = maximumPerClient
            return Self.takeWaiting(&state)
        }
        for resume in waiting { resume() }
    }

    // MARK: All of them

    /// A connection was accepted; ``leave()`` follows when it closes.
    /// - Returns: whether there is room for another one.
    package func enter() -> Bool {
        state.withLock { state in
            state.total += 1
            return state.total < state.maximum
        }
    }

    package func leave() {
        let waiting = state.withLock { state in
            state.total -= 1
            return Self.takeWaiting(&state)
        }
        for resume in waiting { resume() }
    }

    /// Calls `resume` once when there is room, which may be before this returns. From any thread.
    package func whenRoom(_ resume: @escaping @Sendable () -> Void) {
        let hasRoom = state.withLock { state in
            if state.total < state.maximum { return true }
            state.waiting.append(resume)
            return false
        }
        if hasRoom { resume() }
    }

    private static func takeWaiting(_ state: inout State) -> [@Sendable () -> Void] {
        guard state.total < state.maximum, !state.waiting.isEmpty else { return [] }
        defer { state.waiting = [] }
        return state.waiting
    }

    // MARK: Those of one client

    /// - Returns: whether the connection may stay; then ``release(_:)`` follows when it closes.
    package func admit(_ client: IPAddress) -> Bool {
        let key = Self.key(client)
        return state.withLock { state in
            guard state.byClient[key, default: 0] < state.maximumPerClient else {
                state.refused &+= 1
                return false
            }
            state.byClient[key, default: 0] += 1
            return true
        }
    }

    package func release(_ client: IPAddress) {
        let key = Self.key(client)
        state.withLock { state in
            let left = state.byClient[key, default: 1] - 1
            state.byClient[key] = left > 0 ? left : nil
        }
    }

    package var open: Int { state.withLock { $0.total } }
    package var refused: UInt64 { state.withLock { $0.refused } }

    static func key(_ client: IPAddress) -> IPAddress {
        let client = client.unmapped
        return client.family == .v4 ? client : client.masked(to: 64)
    }
}
