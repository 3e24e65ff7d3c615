import Inet

/// What an ACK has told.
package struct Delivery: Sendable {
    /// Bytes that were not known to be delivered before.
    package private(set) var newlyDelivered = 0
    /// When the newest unambiguous segment among them was sent.
    package private(set) var sampleSentAt: Instant?
    /// Something that was sent more than once has been acknowledged. What lies behind it may have waited for it at the
    /// peer, so that nothing here measures a round trip.
    package private(set) var isAmbiguous = false
    /// When the last copy of any of it was sent.
    package private(set) var newestSentAt: Instant?
    /// The end of the last of them.
    package private(set) var highestEnd: SequenceNumber?
    /// The lowest that was sent once only.
    package private(set) var lowestFirstSent: SequenceNumber?
    /// RACK.xmit_ts and RACK.end_seq by this ACK: of those certain to be delivered, the one sent last.
    package private(set) var rackSentAt: Instant?
    package private(set) var rackEnd = SequenceNumber(0)
    /// A segment larger than the path was known to take has arrived.
    package private(set) var hasMTUProbe = false

    private let now: Instant
    private let minimumRTT: Interval
    private let echo: UInt32?

    /// - Parameters:
    ///   - echo: the ACK's timestamp echo in milliseconds of our clock; `nil` without timestamps.
    ///   - minimumRTT: the least that has been measured.
    package init(now: Instant, echo: UInt32? = nil, minimumRTT: Interval = .zero) {
        self.now = now
        self.minimumRTT = minimumRTT
        self.echo = echo
    }

    package mutating func note(_ segment: SACKScoreboard.Segment, length: Int) {
        newlyDelivered += length
        newestSentAt = max(newestSentAt ?? segment.sentAt, segment.sentAt)
        highestEnd = SequenceNumber.later(highestEnd ?? segment.end, segment.end)
        if segment.flags.contains(.mtuProbe) { hasMTUProbe = true }
        if segment.flags.contains(.ambiguous) {
            isAmbiguous = true
            // RFC 8985 §6.2, step 2: the ACK may be that of an earlier copy.
            if let echo {
                let sent = UInt32(truncatingIfNeeded: segment.sentAt.nanoseconds / 1_000_000)
                if Int32(bitPattern: echo &- sent) < 0 { return }
            }
            if now.since(segment.sentAt) < minimumRTT { return }
        } else {
            sampleSentAt = max(sampleSentAt ?? segment.sentAt, segment.sentAt)
            lowestFirstSent = SequenceNumber.earlier(lowestFirstSent ?? segment.start, segment.start)
        }
        guard let sentAt = rackSentAt else {
            (rackSentAt, rackEnd) = (segment.sentAt, segment.end)
            return
        }
        if sentAt < segment.sentAt || (sentAt == segment.sentAt && rackEnd.isBefore(segment.end)) {
            (rackSentAt, rackEnd) = (segment.sentAt, segment.end)
        }
    }
}
