import Inet

/// The retransmission timeout.
/// Source: RFC 6298 §2, with a floor of 200 ms on the variance term instead of one second on the result, as kernels have it.
package struct RTTEstimator: Sendable {
    /// How often the timeout has been doubled since the last progress.
    package private(set) var backoff: UInt8 = 0
    /// How often progress was made since the last clear measurement.
    private var unclearProgress: UInt8 = 0
    // All in nanoseconds: a `Duration` takes twice the room. -1 before the first measurement.
    private var smoothed: Int64 = -1
    private var variance: Int64 = 0
    private var least: Int64 = -1
    private var base: Int64

    package init(initial: Interval = RTTEstimator.initialRTO) { base = initial.nanoseconds }

    /// SRTT; `nil` before the first measurement.
    package var srtt: Interval? { smoothed < 0 ? nil : .nanoseconds(smoothed) }
    /// RTTVAR
    package var rttvar: Interval { .nanoseconds(variance) }
    /// The least that has been measured.
    package var minimum: Interval? { least < 0 ? nil : .nanoseconds(least) }

    /// The timeout in force, with back-off: 200 ms to 60 s.
    package var rto: Interval {
        let (nanoseconds, overflow) = base.multipliedReportingOverflow(by: Int64(1) << Int64(min(backoff, 20)))
        return .nanoseconds(min(overflow ? .max : nanoseconds, Self.maximumNanoseconds))
    }

    /// Takes a measurement of a segment that was sent once (Karn), or one by the timestamp option.
    package mutating func sample(_ rtt: Interval) {
        let rtt = min(max(rtt.nanoseconds, 0), Self.longestSample)
        least = least < 0 ? rtt : min(least, rtt)
        if smoothed >= 0 {
            variance = (variance * 3 + abs(smoothed - rtt)) / 4
            smoothed = (smoothed * 7 + rtt) / 8
        } else {
            smoothed = rtt
            variance = rtt / 2
        }
        let floor = Self.minimumRTO.nanoseconds
        base = min(max(smoothed + max(floor, variance * 4), floor), Self.maximumNanoseconds)
        backoff = 0
        unclearProgress = 0
    }

    /// Progress that measures nothing: what was acknowledged had been sent more than once. Where ACKs are lost, the back-off must
    /// not pile up; where the round trip has become longer than the timeout, it has to (Karn). So it is forgiven a few times.
    package mutating func progressedUnclearly() {
        guard smoothed >= 0, unclearProgress < Self.forgivenProgress else { return }
        unclearProgress += 1
        backoff = 0
    }

    /// RFC 6298 §5.5.
    package mutating func timedOut() { backoff = min(backoff + 1, 30) }

    /// The timeout was in vain (RFC 4015 §3.2): the back-off is taken back.
    package mutating func tookBackTimeout() { backoff = 0 }

    /// RFC 6298 §5.7: the SYN was repeated and gave no measurement.
    package mutating func useFallback() {
        if smoothed < 0 { base = Self.fallbackRTO.nanoseconds }
        backoff = 0
    }

    private static let forgivenProgress = 3
    package static let initialRTO: Interval = .seconds(1)
    package static let minimumRTO: Interval = .milliseconds(200)
    package static let maximumRTO: Interval = .seconds(60)
    private static let fallbackRTO: Interval = .seconds(3)
    private static let maximumNanoseconds: Int64 = 60_000_000_000
    /// An hour: nothing that is measured takes longer.
    private static let longestSample: Int64 = 3_600_000_000_000
}
