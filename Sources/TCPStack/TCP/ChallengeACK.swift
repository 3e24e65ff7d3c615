import Inet

/// A token bucket: `rate` tokens a second, at most `burst` saved up.
package struct TokenBucket: Sendable {
    private var nextFree: UInt64 = 0
    private let interval: UInt64
    private let burst: UInt64

    package init(rate: Int, burst: Int) {
        interval = 1_000_000_000 / UInt64(max(1, rate))
        self.burst = UInt64(max(1, burst))
    }

    /// Whether one more may pass at `now`.
    package mutating func take(now: Instant) -> Bool {
        let time = now.nanoseconds
        let horizon = time &+ interval &* burst
        let start = max(nextFree, time)
        guard start &+ interval <= horizon else { return false }
        nextFree = start &+ interval
        return true
    }
}

/// The limit on ACKs that answer suspicious segments. One for each connection: a limit shared by all of them would tell an
/// outsider about the others (CVE-2016-5696).
/// Source: RFC 5961 §7.
package struct ChallengeACK: Sendable {
    private var bucket = TokenBucket(rate: ratePerSecond, burst: ratePerSecond)

    package init() {}

    package mutating func mayAnswer(now: Instant) -> Bool { bucket.take(now: now) }

    package static let ratePerSecond = 5
}
