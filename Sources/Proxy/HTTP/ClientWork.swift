import Inet
import Synchronization

/// Counts what is being done for each client, which is an IPv4 address or an IPv6 /64: over all of its connections, and until it has really
/// ended, not just until the client lost interest.
package final class ClientWorkLimiter: Sendable {
    private let maximum: Int
    private let counts = Mutex<[IPAddress: Int]>([:])

    package init(maximum: Int) { self.maximum = maximum }

    /// Nil if the client has too much in hand already.
    func begin(for client: IPAddress) -> ClientWork? {
        let key = ConnectionLimiter.key(client)
        let isAdmitted = counts.withLock { counts in
            guard counts[key, default: 0] < maximum else { return false }
            counts[key, default: 0] += 1
            return true
        }
        return isAdmitted ? ClientWork(self, key) : nil
    }

    /// Clients with something in hand, and how much.
    package var inHand: Int { counts.withLock { $0.values.reduce(0, +) } }

    fileprivate func end(_ key: IPAddress) {
        counts.withLock { counts in
            let left = counts[key, default: 1] - 1
            counts[key] = left > 0 ? left : nil
        }
    }
}

/// One request in hand: ends when the last who works on it lets go.
final class ClientWork: Sendable {
    private let limiter: ClientWorkLimiter
    private let key: IPAddress

    fileprivate init(_ limiter: ClientWorkLimiter, _ key: IPAddress) {
        self.limiter = limiter
        self.key = key
    }

    deinit { limiter.end(key) }
}
