import Inet

/// Which algorithm grows and cuts the congestion window.
public enum CongestionAlgorithm: Sendable, Hashable {
    /// RFC 9438, with HyStart++ (RFC 9406) to leave slow start.
    case cubic
    /// RFC 5681, RFC 6582.
    case newReno
}

/// cwnd and ssthresh, in bytes. Slow start is common; congestion avoidance is the algorithm's.
/// Source: RFC 5681 §3.1, RFC 6928 (initial window), RFC 4015 (taking a reduction back).
package struct CongestionController: Sendable {
    package private(set) var cwnd: Int
    package private(set) var ssthresh = Self.noThreshold
    private var mss: Int
    private var algorithm: Algorithm
    private var hyStart = HyStart()
    /// As it was before the last reduction.
    private var previous: Previous?

    private enum Algorithm: Sendable {
        case newReno(NewReno)
        case cubic(Cubic)
    }

    private struct Previous: Sendable {
        var cwnd: Int
        var ssthresh: Int
        var wMax: Float
    }

    package init(_ algorithm: CongestionAlgorithm, mss: Int) {
        self.mss = mss
        cwnd = Self.initialWindow(mss: mss)
        switch algorithm {
        case .newReno: self.algorithm = .newReno(NewReno())
        case .cubic: self.algorithm = .cubic(Cubic())
        }
    }

    package var kind: CongestionAlgorithm {
        switch algorithm {
        case .newReno: .newReno
        case .cubic: .cubic
        }
    }

    /// The handshake or the path has told another segment size.
    package mutating func setMSS(_ mss: Int, isFresh: Bool) {
        self.mss = mss
        cwnd = isFresh ? Self.initialWindow(mss: mss) : max(cwnd, mss)
    }

    package var isInSlowStart: Bool { cwnd < ssthresh }

    /// New data has been acknowledged while the window was in use.
    /// - Parameters:
    ///   - rtt: measured by this ACK.
    package mutating func acknowledged(
        _ bytes: Int, afterTimeout: Bool, una: SequenceNumber, nxt: SequenceNumber, rtt: Interval?, now: Instant, srtt: Interval
    ) {
        guard bytes > 0, cwnd < Self.maximumWindow else { return }
        var bytes = bytes
        if isInSlowStart {
            if case .cubic = algorithm, !afterTimeout, hyStart.acknowledged(una: una, nxt: nxt, rtt: rtt) {
                ssthresh = cwnd
            } else {
                // After a timeout an ACK may cover what had been delivered long before (RFC 3465 §2.3).
                let growth = min(bytes, afterTimeout ? 2 * mss : bytes, ssthresh - cwnd)
                cwnd += hyStart.isConservative && !afterTimeout ? max(1, growth / HyStart.conservativeDivisor) : growth
                if isInSlowStart { return }
                bytes -= growth
            }
            guard bytes > 0 else { return }
        }
        switch algorithm {
        case .newReno(var reno):
            cwnd = reno.congestionAvoidance(acknowledged: bytes, cwnd: cwnd, mss: mss)
            algorithm = .newReno(reno)
        case .cubic(var cubic):
            cwnd = cubic.congestionAvoidance(acknowledged: bytes, cwnd: cwnd, mss: mss, now: now, srtt: srtt)
            algorithm = .cubic(cubic)
        }
        cwnd = min(cwnd, Self.maximumWindow)
    }

    /// Fast recovery begins, or the network has marked a packet (RFC 3168 §6.1.2): one reduction for a window of data.
    package mutating func reduce(flightSize: Int) {
        cut(flightSize: flightSize)
        cwnd = ssthresh
    }

    /// The retransmission timer has fired.
    /// - Parameter isRepeated: the same data timed out before; ssthresh stays (RFC 5681 §3.1).
    package mutating func timedOut(flightSize: Int, isRepeated: Bool) {
        if !isRepeated { cut(flightSize: flightSize) }
        cwnd = mss
        hyStart.restart()
    }

    /// The last reduction was in vain (RFC 4015 §3.1).
    package mutating func takeBack() {
        guard let previous else { return }
        cwnd = max(cwnd, previous.cwnd)
        ssthresh = previous.ssthresh
        if case .cubic(var cubic) = algorithm {
            cubic.takeBack(wMax: previous.wMax)
            algorithm = .cubic(cubic)
        }
        self.previous = nil
    }

    /// The application was silent for longer than a timeout: the window stays, since what follows is paced, but silence is no time to
    /// grow (RFC 9438 §5.8).
    package mutating func idled() {
        if case .cubic(var cubic) = algorithm {
            cubic.restart()
            algorithm = .cubic(cubic)
        }
    }

    private mutating func cut(flightSize: Int) {
        switch algorithm {
        case .newReno(var reno):
            previous = Previous(cwnd: cwnd, ssthresh: ssthresh, wMax: 0)
            ssthresh = reno.reduce(flightSize: flightSize, mss: mss)
            algorithm = .newReno(reno)
        case .cubic(var cubic):
            previous = Previous(cwnd: cwnd, ssthresh: ssthresh, wMax: cubic.wMax)
            ssthresh = cubic.reduce(flightSize: flightSize, cwnd: cwnd, mss: mss)
            algorithm = .cubic(cubic)
        }
    }

    /// Ten segments (RFC 6928 §2).
    package static func initialWindow(mss: Int) -> Int { min(10 * mss, max(2 * mss, 14_600)) }

    /// ssthresh before the first loss.
    package static let noThreshold = Int.max / 4
    /// 1 GiB: the largest window that RFC 7323 can express.
    private static let maximumWindow = 1 << 30
}
