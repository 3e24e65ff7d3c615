import Inet

/// Whether the device is under load, so that handshakes cost it more than it has: an eighth of the queue is taken, or more than a
/// fifth of the last second went into handshakes. It stays so for a second.
///
/// The time is measured by the caller, who has a clock that moves while handshakes are worked on.
///
/// Source: WG §5.3 ("under load" is left to the implementation).
struct LoadSignal {
    /// Load lasts until then; the past if there was none.
    private(set) var until = Instant(nanoseconds: 0)
    /// Nanoseconds spent in each of the last `bucketCount` spans of time; the number of the latest span is `latest`.
    private var spent = InlineArray<8, UInt64>(repeating: 0)
    private var latest: UInt64 = 0

    func isUnderLoad(now: Instant) -> Bool { now < until }

    /// The queue has this many messages.
    mutating func noteQueue(_ count: Int, now: Instant) {
        if count >= HandshakeQueue.capacity / 8 { until = now + Constants.underLoadTime }
    }

    /// A handshake had to be dropped for want of room.
    mutating func noteRefusal(now: Instant) { until = now + Constants.underLoadTime }

    /// Handshakes took so long just now.
    mutating func noteWork(_ time: Interval, now: Instant) {
        let bucket = now.nanoseconds / Self.bucketWidth
        if bucket > latest {
            var step: UInt64 = 0
            while step < min(bucket - latest, Self.bucketCount) {
                step += 1
                spent[Int((latest &+ step) % Self.bucketCount)] = 0
            }
            latest = bucket
        }
        let slot = Int(latest % Self.bucketCount)
        spent[slot] = spent[slot] &+ time.nanoseconds
        var sum: UInt64 = 0
        for index in spent.indices { sum = sum &+ spent[index] }
        if sum > Self.limit { until = now + Constants.underLoadTime }
    }

    private static let bucketCount: UInt64 = 8
    /// Eight of them are one second.
    private static let bucketWidth: UInt64 = 125_000_000
    /// A fifth of a second.
    private static let limit: UInt64 = 200_000_000
}
