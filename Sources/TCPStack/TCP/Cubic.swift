import Inet

/// The window as a cubic function of the time since the last reduction.
/// Source: RFC 9438 §4. Windows in the formulas are counted in segments.
package struct Cubic: Sendable {
    // Single precision: seven digits are enough for windows, and a connection holds them for good.
    package private(set) var wMax: Float = 0
    private var k: Float = 0
    private var cwndPrior: Float = 0
    /// What a window of whole bytes cannot show yet.
    private var fraction: Float = 0
    /// W_est grows by small parts of a segment.
    private var wEst = 0.0
    /// `.distantFuture` outside of an epoch.
    private var epochStart = Instant.distantFuture

    package init() {}

    package mutating func congestionAvoidance(acknowledged: Int, cwnd: Int, mss: Int, now: Instant, srtt: Interval) -> Int {
        let segment = Double(mss)
        let window = Double(cwnd) / segment
        if epochStart == .distantFuture {
            epochStart = now
            wEst = window
            if Double(wMax) <= window {
                wMax = Float(window)
                k = 0
            } else {
                k = Float(Self.cubeRoot((Double(wMax) - window) / Self.c))
            }
        }
        let (wMax, k) = (Double(wMax), Double(k))
        let acked = Double(acknowledged) / segment
        let time = Self.seconds(now.since(epochStart))
        // §4.3: at least what Reno would have reached.
        let alpha = wEst >= Double(cwndPrior) ? 1 : 3 * (1 - Self.beta) / (1 + Self.beta)
        wEst += alpha * acked / window
        let atNow = Self.c * Self.cube(time - k) + wMax
        if atNow < wEst { return max(cwnd, Int(wEst * segment)) }
        // §4.4, §4.5: approach W_cubic(t + RTT), at most half a window a round trip.
        let target = min(max(Self.c * Self.cube(time + Self.seconds(srtt) - k) + wMax, window), 1.5 * window)
        fraction += Float((target - window) / window * acked * segment)
        let whole = fraction.rounded(.down)
        fraction -= whole
        return cwnd + Int(whole)
    }

    /// - Returns: the new ssthresh.
    package mutating func reduce(flightSize: Int, cwnd: Int, mss: Int) -> Int {
        let window = Double(cwnd) / Double(mss)
        cwndPrior = Float(window)
        // §4.7, fast convergence: leave room for new flows when the window did not come back to where it was.
        wMax = Float(window < Double(wMax) ? window * (1 + Self.beta) / 2 : window)
        epochStart = .distantFuture
        fraction = 0
        return max(Int(Double(min(cwnd, max(flightSize, 2 * mss))) * Self.beta), 2 * mss)
    }

    /// The application was silent: time spent silent is no time to grow (§5.8).
    package mutating func restart() { epochStart = .distantFuture }

    /// A reduction was in vain.
    package mutating func takeBack(wMax: Float) {
        self.wMax = wMax
        epochStart = .distantFuture
    }

    private static func seconds(_ duration: Interval) -> Double { Double(duration.nanoseconds) * 1e-9 }

    @inline(__always) private static func cube(_ value: Double) -> Double { value * value * value }

    /// The cube root of a positive number: Halley's iteration from a power of two.
    package static func cubeRoot(_ value: Double) -> Double {
        guard value > 0, value.isFinite else { return 0 }
        var root = Double(sign: .plus, exponent: value.exponent / 3, significand: 1)
        for _ in 0..<6 {
            let cubed = root * root * root
            root *= (cubed + 2 * value) / (2 * cubed + value)
        }
        return root
    }

    private static let c = 0.4
    private static let beta = 0.7
}
