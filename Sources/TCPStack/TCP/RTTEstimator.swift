import Inet

/// The retransmission timeout.
/// Source: RFC 6298 §2, with a floor of 200 ms on the variance term instead of one second on the result, as kernels have it.
package struct RTTEstimator: Sendable {
    package private(set) var srtt: Duration?
    package private(set) var rttvar: Duration = .zero
    package private(set) var minimum: Duration?
    /// How often the timeout has been doubled since the last progress.
    package private(set) var backoff = 0
    private var base: Duration
    /// How often progress was made since the last clear measurement.
    private var unclearProgress = 0

    package init(initial: Duration = RTTEstimator.initialRTO) { base = initial }

    /// The timeout in force, with back-off: 200 ms to 60 s.
    package var rto: Duration {
        let nanoseconds = base.inNanoseconds.multipliedReportingOverflow(by: Int64(1) << Int64(min(backoff, 20)))
        return min(nanoseconds.overflow ? Self.maximumRTO : .nanoseconds(nanoseconds.partialValue), Self.maximumRTO)
    }

    /// Takes a measurement of a segment that was sent once (Karn), or one by the timestamp option.
    package mutating func sample(_ rtt: Duration) {
        let rtt = max(rtt, .zero)
        minimum = min(minimum ?? rtt, rtt)
        if let srtt {
            let error = srtt > rtt ? srtt - rtt : rtt - srtt
            rttvar = .nanoseconds((rttvar.inNanoseconds &* 3 &+ error.inNanoseconds) / 4)
            self.srtt = .nanoseconds((srtt.inNanoseconds &* 7 &+ rtt.inNanoseconds) / 8)
        } else {
            srtt = rtt
            rttvar = rtt / 2
        }
        let bounded = (srtt ?? rtt) + max(Self.minimumRTO, rttvar * 4)
        base = min(max(bounded, Self.minimumRTO), Self.maximumRTO)
        backoff = 0
        unclearProgress = 0
    }

    /// Progress that measures nothing: what was acknowledged had been sent more than once. Where ACKs are lost, the back-off must
    /// not pile up; where the round trip has become longer than the timeout, it has to (Karn). So it is forgiven a few times.
    package mutating func progressedUnclearly() {
        guard srtt != nil, unclearProgress < Self.forgivenProgress else { return }
        unclearProgress += 1
        backoff = 0
    }

    /// RFC 6298 §5.5.
    package mutating func timedOut() { backoff = min(backoff + 1, 30) }

    /// RFC 6298 §5.7: the SYN was repeated and gave no measurement.
    package mutating func useFallback() {
        if srtt == nil { base = .seconds(3) }
        backoff = 0
    }

    private static let forgivenProgress = 3
    package static let initialRTO: Duration = .seconds(1)
    package static let minimumRTO: Duration = .milliseconds(200)
    package static let maximumRTO: Duration = .seconds(60)
}
