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
    var expires: Instant

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
struct TimeWaitTable: ~Copyable {
    private var records = Slab<TimeWaitRecord>()
    private var order = Fifo<Entry>()
    let limit: Int

    init(limit: Int) { self.limit = max(1, limit) }

    var count: Int { records.count }

    subscript(index: Int) -> TimeWaitRecord { records[index] }

    var isFull: Bool { records.count >= limit }

    mutating func insert(_ record: TimeWaitRecord) -> Int {
        let handle = records.insert(record)
        append(Entry(handle: handle, expires: record.expires))
        return Int(handle.index)
    }

    mutating func remove(_ index: Int) { records.remove(index) }

    /// The peer's FIN came again: the record lives another full time and moves to the end of the order. Not for the sake of
    /// less than `step`, so that a flood of FINs cannot fill the order.
    mutating func restart(_ index: Int, expires: Instant, step: Duration) {
        guard records[index].expires + step <= expires else { return }
        records[index].expires = expires
        append(Entry(handle: records.handle(at: index), expires: expires))
    }

    /// When the oldest record may expire; too early if that record has been restarted or removed.
    var next: Instant? {
        guard let entry = order.first else { return nil }
        return entry.expires
    }

    /// The oldest record if it has expired by `now`; the caller removes it.
    mutating func oldest(expiredBy now: Instant) -> Int? {
        while let entry = order.first, entry.expires <= now {
            // An entry with another moment is what a restart has left behind.
            if let index = records.index(of: entry.handle), records[index].expires == entry.expires { return index }
            order.popFirst()
        }
        return nil
    }

    /// The oldest record, to make room.
    mutating func oldest() -> Int? { oldest(expiredBy: .distantFuture) }

    /// All slots that hold a record whose remote end `matches`.
    func indices(where matches: (IPAddress) -> Bool) -> [Int] {
        (0..<records.slotCount).filter { records.isOccupied($0) && matches(records[$0].remote.address) }
    }

    /// Entries that restarts and reuse have left behind are swept out before they outnumber the records.
    private mutating func append(_ entry: Entry) {
        if order.count >= 2 * records.count + 64 {
            for _ in 0..<order.count {
                guard let old = order.popFirst() else { break }
                if let index = records.index(of: old.handle), records[index].expires == old.expires { order.append(old) }
            }
        }
        order.append(entry)
    }

    private struct Entry: Sendable {
        let handle: Slab<TimeWaitRecord>.Handle
        let expires: Instant
    }
}
