import Inet

/// Which peer a receiver index belongs to. Indices are random, unique in the device, and freed with what they name.
///
/// Open addressing with linear probing in one flat array that is never more than half full. The indices are drawn by us, so
/// a remote cannot make them collide.
///
/// Source: WG §5.4.2 ("sender index"), Linux `peerlookup.c`.
package struct IndexTable {
    private struct Entry {
        var index: UInt32
        /// The peer's place in the slab; `Entry.free` if the entry is free.
        var peer: UInt32
        static let free = UInt32.max
    }

    package private(set) var count = 0
    private var entries: [Entry]
    private var mask: Int

    /// What the upper bits of every index say.
    private let tag: IndexTag

    package init(tag: IndexTag = IndexTag()) {
        self.tag = tag
        entries = Array(repeating: Entry(index: 0, peer: Entry.free), count: 16)
        mask = 15
    }

    /// The peer that `index` was drawn for.
    @inline(__always)
    package func peer(of index: UInt32) -> Int? {
        var slot = Int(index) & mask
        while entries[slot].peer != Entry.free {
            if entries[slot].index == index { return Int(entries[slot].peer) }
            slot = (slot &+ 1) & mask
        }
        return nil
    }

    /// Draws an index for `peer` that is not in use.
    package mutating func draw(for peer: Int, random: RandomSource) -> UInt32 {
        if (count + 1) * 2 > entries.count { grow() }
        var index = tag.apply(to: random.nextUInt32())
        var attempts = 0
        while self.peer(of: index) != nil {
            // A broken source of randomness must not stop the loop that calls us.
            attempts += 1
            index = tag.apply(to: attempts < 64 ? random.nextUInt32() : index &+ 1)
        }
        insert(Entry(index: index, peer: UInt32(peer)))
        count += 1
        return index
    }

    /// Frees `index`. It does not matter if it is not there.
    package mutating func remove(_ index: UInt32) {
        var slot = Int(index) & mask
        while entries[slot].peer != Entry.free && entries[slot].index != index { slot = (slot &+ 1) & mask }
        guard entries[slot].peer != Entry.free else { return }
        count -= 1
        // Knuth 6.4 R: entries that probing passed over the free place move up, so that no tombstones pile up.
        var hole = slot
        var probe = (slot &+ 1) & mask
        while entries[probe].peer != Entry.free {
            let home = Int(entries[probe].index) & mask
            if (probe &- home) & mask >= (probe &- hole) & mask {
                entries[hole] = entries[probe]
                hole = probe
            }
            probe = (probe &+ 1) & mask
        }
        entries[hole].peer = Entry.free
    }

    private mutating func insert(_ entry: Entry) {
        var slot = Int(entry.index) & mask
        while entries[slot].peer != Entry.free { slot = (slot &+ 1) & mask }
        entries[slot] = entry
    }

    private mutating func grow() {
        let old = entries
        entries = Array(repeating: Entry(index: 0, peer: Entry.free), count: old.count * 2)
        mask = entries.count - 1
        for entry in old where entry.peer != Entry.free { insert(entry) }
    }
}

/// The upper bits of receiver indices that name the loop which a session belongs to, where several share one port. All others are
/// random, so that an index says nothing else.
public struct IndexTag: Hashable, Sendable {
    /// 0 to 6.
    public let bitCount: Int
    public let value: UInt32

    /// No bits.
    public init() { (bitCount, value) = (0, 0) }

    /// - Parameters:
    ///   - value: below `2^bitCount`.
    ///   - bitCount: 0 to 6.
    public init(_ value: UInt32, bitCount: Int) {
        precondition((0...6).contains(bitCount) && value < 1 << UInt32(bitCount), "an index tag has at most 6 bits")
        self.bitCount = bitCount
        self.value = value
    }

    func apply(to index: UInt32) -> UInt32 {
        bitCount == 0 ? index : index >> UInt32(bitCount) | value << UInt32(32 - bitCount)
    }
}
