import Inet

/// Cryptokey routing: which peer an inner address belongs to, by the longest prefix. One table for the whole device, so that
/// a prefix has one owner (the last writer) and a peer cannot speak for a more specific prefix of another's.
///
/// One hash table of all prefixes. A look-up tries the prefix lengths that are in use, the longest first, so that its cost depends on
/// how many lengths there are (a gateway has /32 and /128, and seldom more than three others), not on how many prefixes. It allocates
/// nothing and counts no references. Whoever sends packets chooses what is looked up, not what is in the table.
///
/// Source: WG §2.
package struct AllowedIPs {
    private struct Slot {
        var high: UInt64 = 0
        var low: UInt64 = 0
        /// Family and length; 0 is an empty slot.
        var kind: UInt32 = 0
        /// The owner's place in the slab.
        var peer: UInt32 = 0
    }

    /// The prefix lengths of one family.
    private struct Lengths {
        /// Those in use, the longest first.
        private(set) var used: [UInt8] = []
        /// How many prefixes have each.
        private var counts = [UInt32](repeating: 0, count: 129)

        mutating func add(_ length: Int) {
            counts[length] += 1
            if counts[length] == 1 { used.insert(UInt8(length), at: used.firstIndex { $0 < length } ?? used.count) }
        }

        mutating func remove(_ length: Int) {
            counts[length] -= 1
            if counts[length] == 0 { used.removeAll { $0 == length } }
        }
    }

    /// A power of two, at most half full; a prefix stands at its hash or in the next free slot behind it.
    private var slots = [Slot](repeating: Slot(), count: minimumSlots)
    private var lengthsV4 = Lengths()
    private var lengthsV6 = Lengths()
    /// Prefixes in the table.
    package private(set) var count = 0

    package init() {}

    /// The peer that owns the longest prefix with `address` in it.
    @inline(__always)
    package func lookup(_ address: IPAddress) -> Int? {
        if address.family == .v4 {
            for length in lengthsV4.used {
                let low = address.low & (0xFFFF_FFFF << UInt64(32 - length))
                if let slot = find(0, low, Self.kind(.v4, Int(length))) { return Int(slots[slot].peer) }
            }
        } else {
            for length in lengthsV6.used {
                let prefix = address.masked(to: Int(length))
                if let slot = find(prefix.high, prefix.low, Self.kind(.v6, Int(length))) { return Int(slots[slot].peer) }
            }
        }
        return nil
    }

    /// Who owns exactly `prefix`.
    package func owner(of prefix: IPPrefix) -> Int? { find(prefix).map { Int(slots[$0].peer) } }

    /// Gives `prefix` to `peer`.
    ///
    /// - Returns: the peer that had it.
    @discardableResult
    package mutating func insert(_ prefix: IPPrefix, peer: Int) -> Int? {
        if let slot = find(prefix) {
            let former = Int(slots[slot].peer)
            slots[slot].peer = UInt32(peer)
            return former
        }
        if 2 * (count + 1) > slots.count { grow() }
        count += 1
        put(
            Slot(
                high: prefix.address.high, low: prefix.address.low, kind: Self.kind(prefix.address.family, prefix.length),
                peer: UInt32(peer)))
        if prefix.address.family == .v4 { lengthsV4.add(prefix.length) } else { lengthsV6.add(prefix.length) }
        return nil
    }

    /// Takes `prefix` away from `peer`; nothing happens if another one owns it.
    package mutating func remove(_ prefix: IPPrefix, peer: Int) {
        guard var hole = find(prefix), slots[hole].peer == UInt32(peer) else { return }
        count -= 1
        if prefix.address.family == .v4 { lengthsV4.remove(prefix.length) } else { lengthsV6.remove(prefix.length) }
        // What stands behind moves up where its own hash allows, so that no look-up ends at the hole too early.
        var next = hole
        while true {
            next = (next + 1) & (slots.count - 1)
            guard slots[next].kind != 0 else { break }
            let home = place(slots[next].high, slots[next].low, slots[next].kind)
            if (next - home) & (slots.count - 1) >= (next - hole) & (slots.count - 1) {
                slots[hole] = slots[next]
                hole = next
            }
        }
        slots[hole] = Slot()
    }

    /// For tests: the most slots that a look-up of a prefix in the table has to see.
    package var longestProbe: Int {
        slots.indices.reduce(0) { longest, index in
            guard slots[index].kind != 0 else { return longest }
            return max(longest, ((index - place(slots[index].high, slots[index].low, slots[index].kind)) & (slots.count - 1)) + 1)
        }
    }

    // MARK: - Slots

    private func find(_ prefix: IPPrefix) -> Int? {
        find(prefix.address.high, prefix.address.low, Self.kind(prefix.address.family, prefix.length))
    }

    @inline(__always)
    private func find(_ high: UInt64, _ low: UInt64, _ kind: UInt32) -> Int? {
        var index = place(high, low, kind)
        while slots[index].kind != 0 {
            if slots[index].low == low, slots[index].high == high, slots[index].kind == kind { return index }
            index = (index + 1) & (slots.count - 1)
        }
        return nil
    }

    private mutating func put(_ slot: Slot) {
        var index = place(slot.high, slot.low, slot.kind)
        while slots[index].kind != 0 { index = (index + 1) & (slots.count - 1) }
        slots[index] = slot
    }

    private mutating func grow() {
        let former = slots
        slots = [Slot](repeating: Slot(), count: 2 * former.count)
        for slot in former where slot.kind != 0 { put(slot) }
    }

    /// Where a prefix would stand if nothing else were there: multiplicative hashing, of which the upper bits are the good ones.
    @inline(__always)
    private func place(_ high: UInt64, _ low: UInt64, _ kind: UInt32) -> Int {
        let mixed = (low ^ (high &* 0x9E37_79B9_7F4A_7C15) ^ (UInt64(kind) << 40)) &* 0xD6E8_FEB8_6659_FD93
        let hash = (mixed ^ (mixed >> 32)) &* 0x9E37_79B9_7F4A_7C15
        return Int(truncatingIfNeeded: hash >> 32) & (slots.count - 1)
    }

    @inline(__always)
    private static func kind(_ family: IPAddress.Family, _ length: Int) -> UInt32 {
        UInt32(family.rawValue) << 8 | UInt32(truncatingIfNeeded: length)
    }

    /// In place of a peer: the prefix belongs to a peer of another loop (``LoopShare``), and to none of this table.
    package static let elsewhere = Int(UInt32.max)
    private static let minimumSlots = 16
}
