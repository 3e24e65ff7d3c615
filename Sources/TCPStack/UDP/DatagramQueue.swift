import Inet

/// Datagrams that wait, one way of one socket: their payloads in one ring, so that nothing is allocated for each. The newest is
/// refused beyond the bounds.
struct DatagramQueue: ~Copyable {
    struct Record {
        var local: IPAddress
        var remote: SocketEndpoint
        /// Bytes of the payload.
        var length: Int
    }

    private var ring = RingBuffer()
    private var records = Fifo<Record>()
    /// Bytes of all payloads.
    private(set) var byteCount = 0
    /// Whether anything was queued since the last `releaseIfIdle`.
    private var wasUsed = false
    private let maximumBytes: Int
    private let maximumDatagrams: Int

    init(maximumBytes: Int, maximumDatagrams: Int) {
        self.maximumBytes = max(maximumBytes, Self.largestPayload)
        self.maximumDatagrams = max(maximumDatagrams, 1)
    }

    var count: Int { records.count }
    var isEmpty: Bool { records.isEmpty }
    var first: Record? { records.first }
    /// Whether a sender that was refused may try again.
    var isHalfFree: Bool { byteCount <= maximumBytes / 2 && records.count <= maximumDatagrams / 2 }
    /// Bytes of memory.
    var allocatedBytes: Int { ring.capacity + records.capacity * MemoryLayout<Record>.stride }

    /// - Returns: `false` if the queue is full.
    mutating func append(_ payload: RawSpan, local: IPAddress, remote: SocketEndpoint) -> Bool {
        guard records.count < maximumDatagrams, byteCount + payload.byteCount <= maximumBytes else { return false }
        wasUsed = true
        ring.reserve(byteCount + payload.byteCount, keeping: byteCount)
        ring.write(payload, at: byteCount)
        byteCount += payload.byteCount
        records.append(Record(local: local, remote: remote, length: payload.byteCount))
        return true
    }

    /// Takes the oldest datagram out. What `target` has no room for behind `offset` is lost.
    mutating func popFirst(into target: inout MutableRawSpan, at offset: Int) -> (record: Record, copied: Int)? {
        guard let record = records.popFirst() else { return nil }
        let copied = min(record.length, target.byteCount - offset)
        ring.copy(from: 0, count: copied, into: &target, at: offset)
        ring.dropFirst(record.length)
        byteCount -= record.length
        return (record, copied)
    }

    /// Takes out what `isGone` says, the others stay in order.
    /// - Returns: how many.
    mutating func removeAll(where isGone: (Record) -> Bool) -> Int {
        var removed = 0
        var payload: [UInt8] = []
        for _ in 0..<records.count {
            guard let record = records.popFirst() else { break }
            payload = [UInt8](repeating: 0, count: record.length)
            var span = payload.mutableSpan
            var bytes = unsafe span.mutableBytes
            ring.copy(from: 0, count: record.length, into: &bytes, at: 0)
            ring.dropFirst(record.length)
            byteCount -= record.length
            if isGone(record) {
                removed += 1
            } else {
                ring.write(bytes.bytes, at: byteCount)
                byteCount += record.length
                records.append(record)
            }
        }
        return removed
    }

    func forEachRemote(_ body: (IPAddress) -> Void) { records.forEach { body($0.remote.address) } }

    mutating func releaseAll() {
        ring.release()
        records = Fifo()
        byteCount = 0
    }

    /// Gives the memory back if nothing was queued since the last call.
    mutating func releaseIfIdle() {
        if isEmpty, !wasUsed { releaseAll() }
        wasUsed = false
    }

    /// Every queue has room for one datagram of any size.
    private static let largestPayload = 65_535
}
