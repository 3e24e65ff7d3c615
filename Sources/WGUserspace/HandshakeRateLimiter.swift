import Inet

/// How many handshakes a source may ask for under load: 20 a second, 5 at once, for each IPv4 address and each IPv6 /64. It comes
/// after mac2, so that nobody can use up another's share.
///
/// A fixed table of sets of four. A source's place is a keyed hash of its address, which a remote cannot choose; in a full set the
/// entry that is closest to being forgotten anyway gives way, so that a flood from many addresses costs itself its memory, not others
/// their handshakes. The state of a source is one moment (the generic cell rate algorithm).
///
/// Source: WG §5.3; Linux `ratelimiter.c` (PACKETS_PER_SECOND, PACKETS_BURSTABLE).
package struct HandshakeRateLimiter {
    private struct Entry {
        var tag: UInt64
        /// When the source will have its whole burst again; past moments are a free entry.
        var fullAt: UInt64
    }

    private var entries: [Entry] = []
    private var keys: (UInt64, UInt64) = (0, 0)

    package init() {}

    /// Whether one more handshake of `source` may be worked on now; it counts if so.
    package mutating func allows(_ source: IPAddress, random: RandomSource, now: Instant) -> Bool {
        if entries.isEmpty {
            entries = Array(repeating: Entry(tag: 0, fullAt: 0), count: Self.setCount * Self.ways)
            keys = (random.nextUInt64(), random.nextUInt64() | 1)
        }
        let tag = hash(source)
        let set = Int(tag & UInt64(Self.setCount - 1)) * Self.ways
        var place = set
        for candidate in set..<set + Self.ways {
            if entries[candidate].tag == tag {
                place = candidate
                break
            }
            if entries[candidate].fullAt < entries[place].fullAt { place = candidate }
        }
        if entries[place].tag != tag { entries[place] = Entry(tag: tag, fullAt: 0) }
        let start = max(entries[place].fullAt, now.nanoseconds)
        guard start - now.nanoseconds <= Self.tolerance else { return false }
        entries[place].fullAt = start &+ Self.interval
        return true
    }

    private func hash(_ source: IPAddress) -> UInt64 {
        let (high, low) = source.rateLimitKey
        let first = (high ^ keys.0).multipliedFullWidth(by: keys.1)
        let second = (low ^ first.high ^ first.low ^ keys.1).multipliedFullWidth(by: keys.0 | 1)
        return second.high ^ second.low
    }

    /// For tests: how many sources the table has room for.
    package var placeCount: Int { entries.count }

    /// 64 KB in all, once there has been load.
    package static let setCount = 1024
    package static let ways = 4
    /// 20 a second.
    private static let interval: UInt64 = 50_000_000
    /// A burst of 5: four beyond the first.
    private static let tolerance: UInt64 = 4 * interval
}

extension IPAddress {
    /// What counts as one source: an IPv4 address, or the /64 of an IPv6 address, which one customer has.
    fileprivate var rateLimitKey: (UInt64, UInt64) {
        var work = InlineArray<2, UInt64>(repeating: 0)
        var words = work.mutableSpan
        var bytes = unsafe words.mutableBytes
        write(into: &bytes, at: 0)
        return family == .v4 ? (1, bytes.bytes.bigEndian64(at: 0)) : (bytes.bytes.bigEndian64(at: 0), 2)
    }
}
