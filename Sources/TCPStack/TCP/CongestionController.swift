import Inet

/// Which algorithm grows and cuts the congestion window.
public enum CongestionAlgorithm: Sendable, Hashable {
    /// RFC 9438.
    case cubic
    /// RFC 5681, RFC 6582.
    case newReno
}

/// cwnd and ssthresh, in bytes. Slow start is common; congestion avoidance is the algorithm's.
/// Source: RFC 5681 §3.1, RFC 6928 (initial window).
package struct CongestionController: Sendable {
    package private(set) var cwnd: Int
    package private(set) var ssthresh = Int.max / 4
    private var mss: Int
    private var algorithm: Algorithm

    private enum Algorithm: Sendable {
        case newReno(NewReno)
        case cubic(Cubic)
    }

    package init(_ algorithm: CongestionAlgorithm, mss: Int) {
        self.mss = mss
        cwnd = Self.initialWindow(mss: mss)
        switch algorithm {
        case .newReno: self.algorithm = .newReno(NewReno())
        case .cubic: self.algorithm = .cubic(Cubic())
        }
    }

    /// The handshake or the path has told another segment size.
    package mutating func setMSS(_ mss: Int, isFresh: Bool) {
        self.mss = mss
        cwnd = isFresh ? Self.initialWindow(mss: mss) : max(cwnd, mss)
    }

    package var isInSlowStart: Bool { cwnd < ssthresh }

    /// New data has been acknowledged while the window was in use.
    package mutating func acknowledged(_ bytes: Int, afterTimeout: Bool, now: Instant, srtt: Duration) {
        guard bytes > 0, cwnd < Self.maximumWindow else { return }
        var bytes = bytes
        if isInSlowStart {
            // After a timeout an ACK may cover what had been delivered long before (RFC 3465 §2.3).
            let growth = min(bytes, afterTimeout ? 2 * mss : bytes, ssthresh - cwnd)
            cwnd += growth
            if isInSlowStart { return }
            bytes -= growth
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

    /// Fast recovery begins: one reduction for a window of data.
    package mutating func lossDetected(flightSize: Int) {
        reduce(flightSize: flightSize)
        cwnd = ssthresh
    }

    /// The retransmission timer has fired.
    /// - Parameter isRepeated: the same data timed out before; ssthresh stays (RFC 5681 §3.1).
    package mutating func timedOut(flightSize: Int, isRepeated: Bool) {
        if !isRepeated { reduce(flightSize: flightSize) }
        cwnd = mss
    }

    /// Nothing has been sent for `periods` retransmission timeouts: halve for each, but keep the restart window (RFC 2861).
    package mutating func idled(periods: Int) {
        guard periods > 0 else { return }
        let restart = min(cwnd, Self.initialWindow(mss: mss))
        ssthresh = max(ssthresh, cwnd / 4 * 3)
        cwnd = max(restart, periods >= 32 ? restart : cwnd >> periods)
        if case .cubic(var cubic) = algorithm {
            cubic.restart()
            algorithm = .cubic(cubic)
        }
    }

    private mutating func reduce(flightSize: Int) {
        switch algorithm {
        case .newReno(var reno):
            ssthresh = reno.reduce(flightSize: flightSize, mss: mss)
            algorithm = .newReno(reno)
        case .cubic(var cubic):
            ssthresh = cubic.reduce(flightSize: flightSize, cwnd: cwnd, mss: mss)
            algorithm = .cubic(cubic)
        }
    }

    /// Ten segments (RFC 6928 §2).
    package static func initialWindow(mss: Int) -> Int { min(10 * mss, max(2 * mss, 14_600)) }

    /// 1 GiB: the largest window that RFC 7323 can express.
    private static let maximumWindow = 1 << 30
}
