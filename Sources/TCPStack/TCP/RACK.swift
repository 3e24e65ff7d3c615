import Inet

/// Recent acknowledgment: losses judged by time instead of by counting duplicate ACKs.
///
/// A segment is lost if one that was sent behind it has been delivered, and a round trip and `window` have passed since it was
/// sent. This finds lost copies and lost tails of a window too, and is not deceived by packets that overtake each other.
/// Source: RFC 8985 §5, §6.
package struct RACK: Sendable {
    /// RACK.xmit_ts: when the most recently sent of the delivered segments was sent.
    package private(set) var sentAt = Instant(nanoseconds: 0)
    /// RACK.end_seq
    package private(set) var end = SequenceNumber(0)
    /// RACK.fack: the highest sequence number delivered.
    private var highest = SequenceNumber(0)
    private var rttNanoseconds: Int64 = 0
    private var dsackRound = SequenceNumber(0)
    private var multiplier: UInt8 = 1
    /// Recoveries without a D-SACK until `multiplier` is one again.
    private var persistence: UInt8 = 0
    private var hasDSACKRound = false
    /// RACK.reordering_seen
    package private(set) var hasSeenReordering = false
    private var hasDelivery = false

    package init() {}

    /// RACK.rtt: how long that segment took.
    package var rtt: Interval { .nanoseconds(rttNanoseconds) }

    /// Takes what an ACK tells: steps 1 to 3.
    package mutating func update(_ delivery: Delivery, now: Instant) {
        if let end = delivery.highestEnd {
            if hasDelivery, let first = delivery.lowestFirstSent, first.isBefore(highest) { hasSeenReordering = true }
            if !hasDelivery || highest.isBefore(end) { highest = end }
        }
        guard let sentAt = delivery.rackSentAt else { return }
        if !hasDelivery || self.sentAt < sentAt || (self.sentAt == sentAt && end.isBefore(delivery.rackEnd)) {
            self.sentAt = sentAt
            end = delivery.rackEnd
            rttNanoseconds = now.since(sentAt).nanoseconds
        }
        hasDelivery = true
    }

    /// A D-SACK says that we sent something in vain: give packets more time, once for a round trip.
    package mutating func receiveDSACK(una: SequenceNumber, nxt: SequenceNumber) {
        if hasDSACKRound, dsackRound.isAtOrBefore(una) { hasDSACKRound = false }
        guard !hasDSACKRound else { return }
        hasDSACKRound = true
        dsackRound = nxt
        multiplier = multiplier == .max ? .max : multiplier + 1
        persistence = Self.reorderingPersistence
    }

    /// A recovery has ended.
    package mutating func recovered() {
        guard persistence > 0 else { return }
        persistence -= 1
        if persistence == 0 { multiplier = 1 }
    }

    /// RACK.reo_wnd: step 4.
    package func window(isRecovering: Bool, sackedSegments: Int, minimumRTT: Interval, srtt: Interval) -> Interval {
        if !hasSeenReordering, isRecovering || sackedSegments >= Self.duplicateThreshold { return .zero }
        return min(minimumRTT / 4 * Int(multiplier), srtt)
    }

    /// RACK_sent_after: whether what is delivered was sent behind `segment`.
    package func wasSent(behind segment: SACKScoreboard.Segment) -> Bool {
        sentAt > segment.sentAt || (sentAt == segment.sentAt && segment.end.isBefore(end))
    }

    /// When the last of the segments that were sent before the delivered one has had its time.
    package func deadline(window: Interval) -> Instant { sentAt.after(rtt + window) }

    /// DupThresh of RFC 5681 and RFC 6675.
    package static let duplicateThreshold = 3
    private static let reorderingPersistence: UInt8 = 16
}
