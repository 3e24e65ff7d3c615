import Inet

/// The largest packet that this connection's path takes, as far as is known, and the search for a larger one.
///
/// ```
///  whole ──too big, or timeouts of large segments──► reduced ──a probe arrives──► larger
///    ▲                                                  │  a probe is lost twice: the ceiling comes down
///    └───────────── a probe of full size arrives ───────┘  no room between: wait for `searchInterval`
/// ```
/// Probes are ordinary data in a larger segment (RFC 4821 §7); one is in flight at most, and its loss is no sign of congestion.
/// Source: RFC 4821 §7, RFC 8899 §5, RFC 8201 §4.
package struct PathMTUSearch: Sendable {
    /// Bytes of the largest IP packet that is sent.
    package private(set) var mtu: Int
    /// What the interface takes.
    private let whole: Int
    /// What the path may take.
    private var ceiling: Int
    private var probe = 0
    private var lostProbes: UInt8 = 0
    private var searchAgainAt = Instant(nanoseconds: 0)

    /// - Parameter known: what other connections have found of this path.
    package init(whole: Int, known: Int?) {
        self.whole = whole
        mtu = min(known ?? whole, whole)
        ceiling = whole
    }

    package var isReduced: Bool { mtu < whole }
    package var isProbing: Bool { probe != 0 }

    /// The size of the packet to try next; `nil` if there is nothing to find now.
    package mutating func nextProbe(now: Instant) -> Int? {
        guard isReduced, probe == 0, searchAgainAt <= now else { return nil }
        if ceiling < mtu + Self.resolution {
            ceiling = whole
            searchAgainAt = now.after(Self.searchInterval)
            return nil
        }
        // The whole size first: what looked like a smaller path may have been an outage.
        return ceiling == whole ? whole : (mtu + ceiling + 1) / 2
    }

    package mutating func probeSent(_ size: Int) { probe = size }

    package mutating func probeArrived() {
        guard probe != 0 else { return }
        mtu = max(mtu, probe)
        (probe, lostProbes) = (0, 0)
    }

    package mutating func probeLost() {
        guard probe != 0 else { return }
        lostProbes += 1
        if lostProbes >= Self.probesOfOneSize {
            ceiling = max(mtu, probe - 1)
            lostProbes = 0
        }
        probe = 0
    }

    /// The probe is neither known to have arrived nor to be lost.
    package mutating func forgetProbe() { probe = 0 }

    /// A router says what its next link takes.
    /// - Returns: whether packets have to become smaller.
    package mutating func receiveTooBig(_ size: Int, floor: Int, now: Instant) -> Bool {
        let believed = max(size, floor)
        guard believed < mtu else { return false }
        mtu = believed
        ceiling = believed
        probe = 0
        searchAgainAt = now.after(Self.searchInterval)
        return true
    }

    /// Large segments time out again and again.
    /// - Returns: whether packets have to become smaller.
    package mutating func suspectBlackHole(_ smaller: Int) -> Bool {
        guard smaller < mtu else { return false }
        mtu = smaller
        probe = 0
        return true
    }

    /// Sizes closer than this are not told apart.
    private static let resolution = 16
    private static let probesOfOneSize: UInt8 = 2
    /// RFC 8899 §5.1.1, PMTU_RAISE_TIMER.
    private static let searchInterval: Interval = .seconds(600)
}

/// What connections have found of paths, for those that come after them: by remote address, bounded.
/// Source: RFC 8201 §5.2.
struct PathMTUCache {
    private struct Entry {
        var mtu: Int
        var expires: Instant
    }

    private var entries: [IPAddress: Entry] = [:]

    var count: Int { entries.count }

    func mtu(to remote: IPAddress, now: Instant) -> Int? {
        guard !entries.isEmpty, let entry = entries[remote], entry.expires > now else { return nil }
        return entry.mtu
    }

    mutating func learn(_ mtu: Int, to remote: IPAddress, expires: Instant) {
        if entries.count >= Self.limit, entries[remote] == nil, let oldest = entries.min(by: { $0.value.expires < $1.value.expires }) {
            entries[oldest.key] = nil
        }
        entries[remote] = Entry(mtu: mtu, expires: expires)
    }

    mutating func forget(_ remote: IPAddress) { entries[remote] = nil }

    /// 256 remote addresses.
    static let limit = 256
}
