import Inet

/// Which peer needs attention first: a binary heap that knows where each peer lies in it.
///
/// A peer's entry may be earlier than its true deadline, never later. Pushing a deadline back, which each packet does, costs
/// nothing; the early wake-up finds nothing due and enters the true one.
package struct DeadlineQueue {
    private struct Entry {
        var deadline: Instant
        var peer: UInt32
    }

    private var heap: [Entry] = []
    /// The place in `heap` of each peer; `absent` if it has none.
    private var positions: [UInt32] = []
    private static let absent = UInt32.max

    package init() {}

    /// The first deadline of all.
    package var earliest: Instant? { heap.first?.deadline }

    /// Makes sure that `peer` is looked at by `deadline`. Later deadlines than the entered one change nothing.
    @inline(__always)
    package mutating func schedule(_ peer: Int, by deadline: Instant) {
        if peer < positions.count {
            let position = positions[peer]
            if position != Self.absent && heap[Int(position)].deadline <= deadline { return }
        }
        insert(peer, deadline)
    }

    /// Takes out a peer whose entry is due.
    package mutating func popDue(now: Instant) -> Int? {
        guard let first = heap.first, first.deadline <= now else { return nil }
        remove(Int(first.peer))
        return Int(first.peer)
    }

    package mutating func remove(_ peer: Int) {
        guard peer < positions.count, positions[peer] != Self.absent else { return }
        let position = Int(positions[peer])
        positions[peer] = Self.absent
        let last = heap.removeLast()
        guard position < heap.count else { return }
        place(last, at: position)
        siftUp(position)
        siftDown(Int(positions[Int(last.peer)]))
    }

    private mutating func insert(_ peer: Int, _ deadline: Instant) {
        guard deadline != .distantFuture else { return }
        while positions.count <= peer { positions.append(Self.absent) }
        if positions[peer] == Self.absent {
            heap.append(Entry(deadline: deadline, peer: UInt32(peer)))
            positions[peer] = UInt32(heap.count - 1)
        } else {
            heap[Int(positions[peer])].deadline = deadline
        }
        siftUp(Int(positions[peer]))
    }

    private mutating func siftUp(_ start: Int) {
        var position = start
        let entry = heap[position]
        while position > 0 {
            let parent = (position - 1) / 2
            guard entry.deadline < heap[parent].deadline else { break }
            place(heap[parent], at: position)
            position = parent
        }
        place(entry, at: position)
    }

    private mutating func siftDown(_ start: Int) {
        var position = start
        let entry = heap[position]
        while true {
            var child = position * 2 + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count && heap[child + 1].deadline < heap[child].deadline { child += 1 }
            guard heap[child].deadline < entry.deadline else { break }
            place(heap[child], at: position)
            position = child
        }
        place(entry, at: position)
    }

    private mutating func place(_ entry: Entry, at position: Int) {
        heap[position] = entry
        positions[Int(entry.peer)] = UInt32(position)
    }
}
