import Inet
import Synchronization

/// Bounds the connections from the outside: all of them, and those of one client, which is an IPv4 address or an IPv6 /64.
package final class ConnectionLimiter: Sendable {
    private struct State {
        var total = 0
        var byClient: [IPAddress: Int] = [:]
        var refused: UInt64 = 0
    }

    package let maximum: Int
    package let maximumPerClient: Int
    private let state = Mutex(State())

    package static let defaultMaximum = 8192
    package static let defaultMaximumPerClient = 1024

    package init(maximum: Int = defaultMaximum, maximumPerClient: Int = defaultMaximumPerClient) {
        self.maximum = maximum
        self.maximumPerClient = maximumPerClient
    }

    /// - Returns: whether the connection may stay; then ``release(_:)`` follows when it closes.
    package func admit(_ client: IPAddress) -> Bool {
        let key = Self.key(client)
        return state.withLock { state in
            guard state.total < maximum, state.byClient[key, default: 0] < maximumPerClient else {
                state.refused &+= 1
                return false
            }
            state.total += 1
            state.byClient[key, default: 0] += 1
            return true
        }
    }

    package func release(_ client: IPAddress) {
        let key = Self.key(client)
        state.withLock { state in
            state.total -= 1
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
