import Inet

/// The bytes from SND.UNA on: sent and unacknowledged first, then unsent. Bounded by `limit`.
package struct SendBuffer: ~Copyable {
    private var ring = RingBuffer()
    /// Bytes held.
    package private(set) var count = 0
    /// The most bytes held at once.
    package var limit: Int

    package init(limit: Int) { self.limit = limit }

    package var room: Int { max(0, limit - count) }
    package var allocatedBytes: Int { ring.capacity }

    /// Takes as much of `bytes` as there is room for.
    /// - Returns: the bytes taken.
    package mutating func append(_ bytes: RawSpan) -> Int {
        let accepted = min(bytes.byteCount, room)
        guard accepted > 0 else { return 0 }
        ring.reserve(count + accepted, keeping: count)
        ring.write(bytes.extracting(0..<accepted), at: count)
        count += accepted
        return accepted
    }

    /// Copies bytes for a segment straight into the outgoing packet.
    package func copy(from offset: Int, count length: Int, into packet: inout MutableRawSpan, at packetOffset: Int) {
        precondition(offset >= 0 && length >= 0 && offset + length <= count, "segment outside the send buffer")
        ring.copy(from: offset, count: length, into: &packet, at: packetOffset)
    }

    /// Forgets acknowledged bytes.
    package mutating func dropFirst(_ length: Int) {
        precondition(length >= 0 && length <= count, "more bytes acknowledged than held")
        ring.dropFirst(length)
        count -= length
        if count == 0 { ring.rewind() }
    }

    /// Gives memory back that is not needed for what is held.
    package mutating func trim() { ring.shrink(keeping: count) }

    package mutating func removeAll() {
        count = 0
        ring.release()
    }
}
