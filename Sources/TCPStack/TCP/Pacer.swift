import Inet

/// Spreads what the congestion window allows over the round trip, so that a window does not arrive at a bottleneck as one burst.
///
/// A token bucket whose rate is the window for each round trip, with something on top; 64 KB, or what a millisecond brings, may
/// leave at once. Round trips below `shortestRoundTrip` are not paced: the timer would be coarser than they are.
package struct Pacer: Sendable {
    /// What has been sent is paid for at this moment.
    private var paidUntil = Instant(nanoseconds: 0)

    package init() {}

    /// - Returns: `nil` if more may leave now, else when to look again.
    package func delay(cwnd: Int, isInSlowStart: Bool, srtt: Interval?, mss: Int, now: Instant) -> Instant? {
        guard let srtt, srtt >= Self.shortestRoundTrip, paidUntil > now else { return nil }
        // Not for each segment: what leaves together makes one batch.
        let millisecond = Self.bytes(in: 1_000_000, cwnd: cwnd, isInSlowStart: isInSlowStart, srtt: srtt)
        let quantum = min(Self.burst, max(2 * mss, millisecond))
        return paidUntil.after(.nanoseconds(Self.cost(of: quantum, cwnd: cwnd, isInSlowStart: isInSlowStart, srtt: srtt)))
    }

    package mutating func sent(_ count: Int, cwnd: Int, isInSlowStart: Bool, srtt: Interval?, now: Instant) {
        guard let srtt, srtt >= Self.shortestRoundTrip else { return }
        let credit = max(1_000_000, Self.cost(of: Self.burst, cwnd: cwnd, isInSlowStart: isInSlowStart, srtt: srtt))
        let start = max(paidUntil, now.after(.nanoseconds(-credit)))
        paidUntil = start.after(.nanoseconds(Self.cost(of: count, cwnd: cwnd, isInSlowStart: isInSlowStart, srtt: srtt)))
    }

    /// Twice the window in slow start, so that it can double; a fifth more otherwise, so that it is used.
    private static func cost(of count: Int, cwnd: Int, isInSlowStart: Bool, srtt: Interval) -> Int64 {
        let share = Double(count) / Double(max(1, cwnd)) * Double(srtt.nanoseconds)
        return Int64(share / (isInSlowStart ? 2 : 1.2))
    }

    private static func bytes(in nanoseconds: Int64, cwnd: Int, isInSlowStart: Bool, srtt: Interval) -> Int {
        Int(Double(cwnd) * (isInSlowStart ? 2 : 1.2) * Double(nanoseconds) / Double(max(1, srtt.nanoseconds)))
    }

    private static let burst = 64 * 1024
    private static let shortestRoundTrip: Interval = .milliseconds(2)
}
