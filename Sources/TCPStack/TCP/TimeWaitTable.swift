import Inet

/// What is left of a connection in TIME-WAIT: enough to acknowledge the peer's FIN again and to judge a new SYN.
struct TimeWaitRecord {
    let local: SocketEndpoint
    let remote: SocketEndpoint
    let sndNxt: SequenceNumber
    let rcvNxt: SequenceNumber
    let tsRecent: UInt32
    let tsOffset: UInt32
    let hasTimestamps: Bool
    let expires: Instant

    /// RFC 9293 §3.10.7.4, RFC 6191: whether a SYN may open a new incarnation.
    func admits(_ header: TCPHeader, options: TCPOptions) -> Bool {
        guard header.flags.contains(.syn), header.flags.isDisjoint(with: [.ack, .rst, .fin]) else { return false }
        if hasTimestamps, let timestamps = options.timestamps {
            let age = Int32(bitPattern: timestamps.value &- tsRecent)
            return age > 0 || (age == 0 && rcvNxt.isBefore(header.sequence))
        }
        return rcvNxt.isBefore(header.sequence)
    }
}

/// All connections in TIME-WAIT, in the order in which they expire. Bounded: the oldest gives way.
///
/// 52 bytes each, since a busy proxy has many: local addresses, of which there are few, by number, and expiry in a coarse unit.
struct TimeWaitTable: ~Copyable {
    private struct Entry {
        var remote: (UInt32, UInt32, UInt32, UInt32)
        var sndNxt: UInt32
        var rcvNxt: UInt32
        var tsRecent: UInt32
        var tsOffset: UInt32
        /// In ticks, of which the lower 32 bits.
        var expires: UInt32
        var previous: UInt32
        /// The next to expire; in a free entry the next free one.
        var next: UInt32
        var localAddress: UInt16
        var localPort: UInt16
        var remotePort: UInt16
        var flags: UInt16
    }

    private var entries: [Entry] = []
    private var firstFree = TimeWaitTable.none
    private(set) var count = 0
    private var first = TimeWaitTable.none
    private var last = TimeWaitTable.none
    /// The latest expiry so far, in ticks: what the entries' lower bits count from.
    private var latest: UInt64 = 0
    private var locals: [(address: IPAddress, uses: Int)] = []
    let limit: Int

    init(limit: Int) { self.limit = max(1, limit) }

    var isFull: Bool { count >= limit }
    /// Bytes that the records take.
    var allocatedBytes: Int { entries.capacity * MemoryLayout<Entry>.stride }

    subscript(index: Int) -> TimeWaitRecord {
        let entry = entries[index]
        precondition(entry.flags & Self.occupied != 0, "no record in this slot")
        let local = locals[Int(entry.localAddress)].address
        let (high, low) = (UInt64(entry.remote.0) << 32 | UInt64(entry.remote.1), UInt64(entry.remote.2) << 32 | UInt64(entry.remote.3))
        let remote = local.family == .v4 ? IPAddress(v4: entry.remote.3) : IPAddress(v6High: high, low: low)
        return TimeWaitRecord(
            local: SocketEndpoint(local, port: entry.localPort), remote: SocketEndpoint(remote, port: entry.remotePort),
            sndNxt: SequenceNumber(entry.sndNxt), rcvNxt: SequenceNumber(entry.rcvNxt), tsRecent: entry.tsRecent, tsOffset: entry.tsOffset,
            hasTimestamps: entry.flags & Self.timestamps != 0, expires: expiry(of: entry))
    }

    mutating func insert(_ record: TimeWaitRecord) -> Int {
        let (high, low) = (record.remote.address.high, record.remote.address.low)
        let entry = Entry(
            remote: (Self.upper(high), Self.lower(high), Self.upper(low), Self.lower(low)), sndNxt: record.sndNxt.rawValue,
            rcvNxt: record.rcvNxt.rawValue, tsRecent: record.tsRecent, tsOffset: record.tsOffset, expires: 0, previous: Self.none,
            next: Self.none, localAddress: numberOf(record.local.address), localPort: record.local.port, remotePort: record.remote.port,
            flags: Self.occupied | (record.hasTimestamps ? Self.timestamps : 0))
        let index: Int
        if firstFree == Self.none {
            index = entries.count
            entries.append(entry)
        } else {
            index = Int(firstFree)
            firstFree = entries[index].next
            entries[index] = entry
        }
        count += 1
        append(index, expires: record.expires)
        return index
    }

    mutating func remove(_ index: Int) {
        precondition(entries[index].flags & Self.occupied != 0, "no record in this slot")
        unlink(index)
        locals[Int(entries[index].localAddress)].uses -= 1
        entries[index].flags = 0
        entries[index].next = firstFree
        firstFree = UInt32(index)
        count -= 1
        if count == 0 {
            // What a busy hour took goes back.
            entries = []
            firstFree = Self.none
        }
    }

    /// The peer's FIN came again: the record lives another full time and moves to the end of the order. Not for the sake of
    /// less than `step`: a flood of FINs costs nothing.
    mutating func restart(_ index: Int, expires: Instant, step: Duration) {
        guard expiry(of: entries[index]) + step <= expires else { return }
        unlink(index)
        append(index, expires: expires)
    }

    /// When the oldest record expires.
    var next: Instant? { first == Self.none ? nil : expiry(of: entries[Int(first)]) }

    /// The oldest record if it has expired by `now`; the caller removes it.
    func oldest(expiredBy now: Instant) -> Int? {
        guard let next, next <= now else { return nil }
        return Int(first)
    }

    /// The oldest record, to make room.
    func oldest() -> Int? { first == Self.none ? nil : Int(first) }

    /// All slots that hold a record whose remote end `matches`.
    func indices(where matches: (IPAddress) -> Bool) -> [Int] {
        entries.indices.filter { entries[$0].flags & Self.occupied != 0 && matches(self[$0].remote.address) }
    }

    private mutating func append(_ index: Int, expires: Instant) {
        // The order is that of insertion: nothing expires before what came before it.
        latest = max(latest, expires.nanoseconds >> Self.tickShift)
        entries[index].expires = UInt32(truncatingIfNeeded: latest)
        entries[index].previous = last
        entries[index].next = Self.none
        if last == Self.none { first = UInt32(index) } else { entries[Int(last)].next = UInt32(index) }
        last = UInt32(index)
    }

    private mutating func unlink(_ index: Int) {
        let (previous, next) = (entries[index].previous, entries[index].next)
        if previous == Self.none { first = next } else { entries[Int(previous)].next = next }
        if next == Self.none { last = previous } else { entries[Int(next)].previous = previous }
    }

    private func expiry(of entry: Entry) -> Instant {
        Instant(nanoseconds: (latest - UInt64(UInt32(truncatingIfNeeded: latest) &- entry.expires)) << Self.tickShift)
    }

    private mutating func numberOf(_ address: IPAddress) -> UInt16 {
        let place =
            locals.firstIndex { $0.address == address } ?? locals.firstIndex { $0.uses == 0 }
            ?? {
                locals.append((address, 0))
                return locals.count - 1
            }()
        locals[place] = (address, locals[place].uses + 1)
        return UInt16(place)
    }

    private static func upper(_ word: UInt64) -> UInt32 { UInt32(word >> 32) }
    private static func lower(_ word: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: word) }

    private static let none = UInt32.max
    private static let occupied: UInt16 = 1
    private static let timestamps: UInt16 = 2
    /// A tick is 1.05 ms.
    private static let tickShift: UInt64 = 20
}
