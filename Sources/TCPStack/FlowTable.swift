/// From a connection's two ends to its slot: open addressing with keyed hashes. The caller compares the ends, so that an entry
/// is eight bytes. Linear probing with backward shift: no tombstones.
package struct FlowTable: Sendable {
    /// A slot of the connections, of the TIME-WAIT records or of the SYN queue.
    package enum Flow: Hashable, Sendable {
        case connection(Int)
        case timeWait(Int)
        case halfOpen(Int)
    }

    package struct Cursor {
        fileprivate var position: Int
        fileprivate let hash: UInt32
    }

    private struct Entry {
        var hash: UInt32
        var value: UInt32
    }

    private var entries: [Entry]
    package private(set) var count = 0

    package init() { entries = [Entry](repeating: Self.empty, count: 64) }

    package func cursor(_ hash: UInt64) -> Cursor {
        let hash = UInt32(truncatingIfNeeded: hash)
        return Cursor(position: Int(hash) & (entries.count - 1), hash: hash)
    }

    /// The next flow with this hash; the caller has to compare its ends.
    package func next(_ cursor: inout Cursor) -> Flow? {
        while true {
            let entry = entries[cursor.position]
            if entry.value == Self.empty.value { return nil }
            cursor.position = (cursor.position + 1) & (entries.count - 1)
            if entry.hash == cursor.hash { return Self.flow(entry.value) }
        }
    }

    package mutating func insert(_ flow: Flow, hash: UInt64) {
        if (count + 1) * 4 > entries.count * 3 { resize(to: entries.count * 2) }
        place(Entry(hash: UInt32(truncatingIfNeeded: hash), value: Self.value(flow)))
        count += 1
    }

    package mutating func remove(_ flow: Flow, hash: UInt64) {
        let mask = entries.count - 1
        let value = Self.value(flow)
        var hole = Int(UInt32(truncatingIfNeeded: hash)) & mask
        while entries[hole].value != value {
            guard entries[hole].value != Self.empty.value else { return }
            hole = (hole + 1) & mask
        }
        // Entries behind the hole move up unless that would take them in front of their home.
        var next = (hole + 1) & mask
        while entries[next].value != Self.empty.value {
            let home = Int(entries[next].hash) & mask
            if (next - home) & mask >= (next - hole) & mask {
                entries[hole] = entries[next]
                hole = next
            }
            next = (next + 1) & mask
        }
        entries[hole] = Self.empty
        count -= 1
        if entries.count > 64, count * 8 < entries.count { resize(to: entries.count / 2) }
    }

    private mutating func place(_ entry: Entry) {
        var position = Int(entry.hash) & (entries.count - 1)
        while entries[position].value != Self.empty.value { position = (position + 1) & (entries.count - 1) }
        entries[position] = entry
    }

    private mutating func resize(to size: Int) {
        let old = entries
        entries = [Entry](repeating: Self.empty, count: size)
        for entry in old where entry.value != Self.empty.value { place(entry) }
    }

    private static func value(_ flow: Flow) -> UInt32 {
        switch flow {
        case .connection(let index): UInt32(index)
        case .timeWait(let index): UInt32(index) | timeWaitBit
        case .halfOpen(let index): UInt32(index) | halfOpenBit
        }
    }

    private static func flow(_ value: UInt32) -> Flow {
        if value & timeWaitBit != 0 { return .timeWait(Int(value & ~timeWaitBit)) }
        return value & halfOpenBit == 0 ? .connection(Int(value)) : .halfOpen(Int(value & ~halfOpenBit))
    }

    private static let empty = Entry(hash: 0, value: .max)
    private static let timeWaitBit: UInt32 = 1 << 31
    private static let halfOpenBit: UInt32 = 1 << 30
}
