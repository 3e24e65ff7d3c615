import NIOCore

/// Whether a request's body comes fast enough, by the time for which the client alone was waited for.
struct BodyPace {
    private var count = 0
    private var waited = TimeAmount.zero
    private var since: NIODeadline?
    private var isPaused = false

    /// False if it does not.
    mutating func receive(_ bytes: Int, now: NIODeadline, limits: ProxyLimits) -> Bool {
        count += bytes
        advance(now)
        guard limits.minimumBodyRate > 0, waited > limits.bodyRateGrace else { return true }
        return count / limits.minimumBodyRate >= Int((waited - limits.bodyRateGrace).nanoseconds / 1_000_000_000)
    }

    /// The upstream takes no more, or does again.
    mutating func pause(_ paused: Bool, now: NIODeadline) {
        advance(now)
        isPaused = paused
    }

    private mutating func advance(_ now: NIODeadline) {
        if let since, !isPaused { waited = waited + (now - since) }
        since = now
    }
}
