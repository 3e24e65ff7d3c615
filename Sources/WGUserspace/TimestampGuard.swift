import Inet
import Noise

/// Which of a peer's initiations are new: the timestamp has to be greater than the last accepted one.
///
/// A timestamp more than a day ahead of our clock is accepted too, because either clock may be the wrong one, but it must not become
/// the last one: a peer whose clock is set right would be shut out until then. Such timestamps are kept apart, for this run of the
/// program only: among themselves they have to grow, and whatever lies between the smallest and the greatest of them is refused, so
/// that none of them can be replayed, not even when our clock has caught up. Lost is only this: after a restart of ours, and as long
/// as the peer has not used a later timestamp, an initiation from the future may be replayed.
///
/// Source: WG §5.1, §5.4.2.
package struct TimestampGuard {
    package enum Verdict: Equatable {
        case new
        /// New, but more than a day ahead of our clock: not to be stored.
        case newAndFarAhead
        case refused
    }

    /// The greatest accepted one that is not far ahead; to be kept across a restart.
    package private(set) var last: TAI64N?
    /// Those refused since one was accepted, and the last of them.
    package private(set) var refusedCount: UInt64 = 0
    package private(set) var lastRefused: TAI64N?
    private var leastFarAhead: TAI64N?
    private var greatestFarAhead: TAI64N?

    /// By how much the last refused one was behind the one that it should have been later than; `nil` if none was refused since.
    package var refusedBehind: Duration? {
        guard let lastRefused, let reference = greatestFarAhead.map({ max($0, last ?? $0) }) ?? last else { return nil }
        return reference.elapsed(since: lastRefused)
    }

    /// Whether one was accepted that was far ahead.
    var hasFarAhead: Bool { greatestFarAhead != nil }

    package init(last: TAI64N? = nil) { self.last = last }

    package func judge(_ timestamp: TAI64N, wallTime: WallTime) -> Verdict {
        if let last, timestamp <= last { return .refused }
        let isFarAhead = timestamp.wallTime.seconds > wallTime.seconds.addingSaturated(Constants.farAheadSeconds)
        if let least = leastFarAhead, let greatest = greatestFarAhead, timestamp <= greatest, isFarAhead || timestamp >= least {
            return .refused
        }
        return isFarAhead ? .newAndFarAhead : .new
    }

    package mutating func accept(_ timestamp: TAI64N, as verdict: Verdict) {
        switch verdict {
        case .new: last = timestamp
        case .newAndFarAhead:
            leastFarAhead = min(leastFarAhead ?? timestamp, timestamp)
            greatestFarAhead = timestamp
        case .refused: return
        }
        refusedCount = 0
        lastRefused = nil
    }

    /// - Returns: whether it is the first since one was accepted.
    package mutating func refuse(_ timestamp: TAI64N) -> Bool {
        lastRefused = timestamp
        refusedCount &+= 1
        return refusedCount == 1
    }
}

extension UInt64 {
    fileprivate func addingSaturated(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
