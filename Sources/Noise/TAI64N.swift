import Inet

/// A label of civil time, 12 bytes, by which a responder recognises replayed initiations: it only ever grows.
///
///     0   seconds since 1970 TAI + 2^62, big endian
///     8   nanoseconds, big endian
///
/// Source: WG §5.1, §5.4.2; https://cr.yp.to/libtai/tai64.html.
public struct TAI64N: Comparable, Hashable, Sendable {
    public static let byteCount = 12

    /// The whole first field, base included. From a remote it may be anything.
    public let seconds: UInt64
    /// The second field. From a remote it may be anything.
    public let nanoseconds: UInt32

    /// The label of `wallTime`, nanoseconds rounded down to whole 2^24 (about 17 ms): an observer shall not measure our
    /// clock, nor how long a handshake took, any closer.
    public init(_ wallTime: WallTime) {
        self.init(exactly: WallTime(seconds: wallTime.seconds, nanoseconds: wallTime.nanoseconds & ~(Self.granularity - 1)))
    }

    /// The label of `wallTime` to the nanosecond, which is what the encoding itself can say. Not for the wire.
    package init(exactly wallTime: WallTime) {
        seconds = wallTime.seconds &+ Self.base
        nanoseconds = wallTime.nanoseconds
    }

    /// Takes the 12 bytes at `offset`, whatever they are; `nil` if they are not all there.
    public init?(_ bytes: RawSpan, at offset: Int = 0) {
        guard offset >= 0, Self.byteCount <= bytes.byteCount - offset else { return nil }
        seconds = bytes.bigEndian64(at: offset)
        nanoseconds = bytes.bigEndian32(at: offset + 8)
    }

    /// Writes the 12 bytes to `output`, which must have the room.
    public func write(into output: inout MutableRawSpan, at offset: Int) {
        output.storeBigEndian(seconds, at: offset)
        output.storeBigEndian(nanoseconds, at: offset + 8)
    }

    /// The smallest label that is one 2^24 ns unit later: for a clock that has not moved.
    public func next() -> TAI64N {
        if nanoseconds < 1_000_000_000 - Self.granularity {
            return TAI64N(seconds: seconds, nanoseconds: nanoseconds + Self.granularity)
        }
        // At the end of time there is no later one.
        return seconds == .max ? self : TAI64N(seconds: seconds + 1, nanoseconds: 0)
    }

    /// The civil time of the label, cut to 1970 and to a whole second: to show it, or to compare it with a clock.
    public var wallTime: WallTime {
        WallTime(seconds: seconds < Self.base ? 0 : seconds - Self.base, nanoseconds: min(nanoseconds, 999_999_999))
    }

    /// The civil time from `earlier` to this label, to the millisecond; zero if this one is not later. Saturates after 30,000 years.
    public func elapsed(since earlier: TAI64N) -> Duration {
        guard earlier < self else { return .zero }
        let (own, before) = (wallTime, earlier.wallTime)
        let seconds = Int64(min(own.seconds - before.seconds, 1 << 40))
        // Labels of before 1970 have no seconds left.
        return max(.zero, .milliseconds(seconds * 1000 + (Int64(own.nanoseconds) - Int64(before.nanoseconds)) / 1_000_000))
    }

    public static func < (left: TAI64N, right: TAI64N) -> Bool {
        (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
    }

    private init(seconds: UInt64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    /// 2^62 for 1970, and the 10 seconds that TAI was ahead of UTC then. Leap seconds since are not counted, as in wg.
    private static let base: UInt64 = (1 << 62) + 10
    private static let granularity: UInt32 = 1 << 24
}
