import Inet

/// Whole packets without a connection that wait to leave: resets, ICMP. Bounded by `limit` bytes.
struct ReplyQueue: ~Copyable {
    private var ring = RingBuffer()
    private var lengths = Fifo<Int>()
    private var used = 0
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    var isEmpty: Bool { lengths.isEmpty }
    var byteCount: Int { used }

    /// - Returns: `false` if the queue is full.
    mutating func append(_ packet: RawSpan) -> Bool {
        guard used + packet.byteCount <= limit else { return false }
        ring.reserve(used + packet.byteCount, keeping: used)
        ring.write(packet, at: used)
        used += packet.byteCount
        lengths.append(packet.byteCount)
        return true
    }

    mutating func popFirst(into buffer: inout MutableRawSpan, at offset: Int) -> Range<Int>? {
        guard let length = lengths.popFirst() else { return nil }
        ring.copy(from: 0, count: length, into: &buffer, at: offset)
        ring.dropFirst(length)
        used -= length
        if used == 0, ring.capacity > 16_384 { ring.release() }
        return offset..<(offset + length)
    }
}
