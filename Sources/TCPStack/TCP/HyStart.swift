import Inet

/// Leaves slow start when round trips become longer, before the queue on the way is full and loses packets.
///
/// ```
///  slow start ──round trip longer by an eighth──► conservative slow start ──five rounds──► congestion avoidance
///       └◄──────────── round trip short again ─────────┘
/// ```
/// Source: RFC 9406 §4.2, §4.3.
package struct HyStart: Sendable {
    /// SND.NXT when this round began.
    private var roundEnd = SequenceNumber(0)
    // Microseconds; 0 is none.
    private var lastRoundMinimum: UInt32 = 0
    private var currentRoundMinimum: UInt32 = 0
    /// cssBaselineMinRtt; 0 outside of conservative slow start.
    private var baseline: UInt32 = 0
    private var samples: UInt16 = 0
    private var conservativeRounds: UInt8 = 0
    private var hasRound = false

    package init() {}

    package var isConservative: Bool { baseline != 0 }

    /// An ACK has come in slow start.
    /// - Returns: whether slow start is over.
    package mutating func acknowledged(una: SequenceNumber, nxt: SequenceNumber, rtt: Interval?) -> Bool {
        if !hasRound || roundEnd.isBefore(una) {
            hasRound = true
            roundEnd = nxt
            lastRoundMinimum = currentRoundMinimum
            currentRoundMinimum = 0
            samples = 0
            if isConservative {
                conservativeRounds += 1
                if conservativeRounds >= Self.conservativeRounds { return true }
            }
        }
        guard let rtt else { return false }
        let sample = UInt32(clamping: max(1, rtt.nanoseconds / 1000))
        currentRoundMinimum = currentRoundMinimum == 0 ? sample : min(currentRoundMinimum, sample)
        if samples < .max { samples += 1 }
        guard samples >= Self.samplesNeeded else { return false }
        if isConservative {
            if currentRoundMinimum < baseline { baseline = 0 }
        } else if lastRoundMinimum != 0 {
            let threshold = min(max(lastRoundMinimum / 8, Self.minimumThreshold), Self.maximumThreshold)
            if currentRoundMinimum >= lastRoundMinimum.addingSaturated(threshold) {
                baseline = currentRoundMinimum
                conservativeRounds = 0
            }
        }
        return false
    }

    /// Slow start begins anew.
    package mutating func restart() { self = HyStart() }

    /// CSS_GROWTH_DIVISOR
    package static let conservativeDivisor = 4
    /// N_RTT_SAMPLE
    private static let samplesNeeded = 8
    /// CSS_ROUNDS
    private static let conservativeRounds = 5
    /// MIN_RTT_THRESH and MAX_RTT_THRESH, in microseconds.
    private static let minimumThreshold: UInt32 = 4000
    private static let maximumThreshold: UInt32 = 16_000
}

extension UInt32 {
    fileprivate func addingSaturated(_ other: UInt32) -> UInt32 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
