import Inet

/// Which peers have something to send of the device's own; each at most once, in turn.
struct Outbox {
    private var queue = Queue<PeerID>()

    /// Bounded by the number of peers: a peer's `isInOutbox` guards its one entry.
    mutating func enqueue(_ peer: inout Peer) {
        guard !peer.isInOutbox else { return }
        peer.isInOutbox = true
        queue.append(peer.id)
    }

    var first: PeerID? { queue.first }

    mutating func removeFirst() { _ = queue.popFirst() }
}

/// A peer's packets that wait for a session, oldest first. Bounded by packets and bytes; the oldest gives way.
///
/// Source: WG §6.2 ("queued"), Linux `send.c` MAX_STAGED_PACKETS.
struct StagedPackets {
    private var packets = Queue<[UInt8]>()
    private(set) var byteCount = 0

    var isEmpty: Bool { packets.isEmpty }
    var count: Int { packets.count }

    /// Copies `packet`. The caller has looked after the bounds.
    mutating func append(_ packet: RawSpan) {
        byteCount += packet.byteCount
        // The closure fills all of the uninitialised capacity that it counts.
        packets.append(
            unsafe [UInt8](unsafeUninitializedCapacity: packet.byteCount) { buffer, count in
                unsafe packet.withUnsafeBytes { bytes in unsafe UnsafeMutableRawBufferPointer(buffer).copyMemory(from: bytes) }
                count = packet.byteCount
            })
    }

    mutating func popFirst() -> [UInt8]? {
        guard let packet = packets.popFirst() else { return nil }
        byteCount -= packet.count
        return packet
    }

    mutating func removeAll() {
        packets.removeAll()
        byteCount = 0
    }
}
