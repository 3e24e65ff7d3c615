/// A moment on a monotonic clock, in nanoseconds since an arbitrary start. The clock counts time spent suspended.
public struct Instant: Comparable, Hashable, Sendable {
    /// Nanoseconds since the clock's start.
    public var nanoseconds: UInt64

    @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// Later than every moment that a clock gives.
    public static let distantFuture = Instant(nanoseconds: .max)

    @inlinable public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }

    /// `duration` later; saturates at both ends.
    @inlinable public static func + (instant: Instant, duration: Duration) -> Instant {
        let delta = duration.inNanoseconds
        if delta >= 0 {
            let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(UInt64(delta))
            return Instant(nanoseconds: overflow ? .max : sum)
        }
        let (difference, overflow) = instant.nanoseconds.subtractingReportingOverflow(delta.magnitude)
        return Instant(nanoseconds: overflow ? 0 : difference)
    }

    /// `duration` earlier; saturates at both ends.
    @inlinable public static func - (instant: Instant, duration: Duration) -> Instant {
        let delta = duration.inNanoseconds
        return instant + Duration.nanoseconds(delta == .min ? .max : -delta)
    }

    /// The time from `right` to `left`; negative if `left` is earlier. Saturates.
    @inlinable public static func - (left: Instant, right: Instant) -> Duration {
        if left >= right { return .nanoseconds(Int64(clamping: left.nanoseconds - right.nanoseconds)) }
        return .nanoseconds(-Int64(clamping: right.nanoseconds - left.nanoseconds))
    }

    @inlinable public static func += (instant: inout Instant, duration: Duration) { instant = instant + duration }
}

extension Duration {
    /// Whole nanoseconds, saturated to ±292 years.
    @inlinable public var inNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return seconds < 0 ? .min : .max }
        let (sum, overflowed) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
        return overflowed ? (seconds < 0 ? .min : .max) : sum
    }
}

/// A moment of civil time: what a TAI64N label and a certificate need.
public struct WallTime: Comparable, Hashable, Sendable {
    /// Seconds since 1970-01-01 00:00 UTC.
    public var seconds: UInt64
    /// 0 to 999,999,999.
    public var nanoseconds: UInt32

    public init(seconds: UInt64, nanoseconds: UInt32 = 0) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    public static func < (left: WallTime, right: WallTime) -> Bool {
        (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
    }
}
