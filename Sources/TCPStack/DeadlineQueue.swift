import Inet

/// When each slot wants to be woken: a binary heap with one entry for a slot at most.
///
/// A deadline that moves later leaves its entry where it is (the timer of a busy connection moves with every ACK); the slot is
/// then woken once too early and entered anew. So `next` may be earlier than needed, never later.
package struct DeadlineQueue: Sendable {
    private struct Entry {
        var moment: UInt64
        var slot: UInt32
    }

    private var heap: [Entry] = []
    /// The place of each slot's entry in the heap; -1 without one.
    private var places: [Int32] = []

    package init() {}

    package var count: Int { heap.count }

    package var next: Instant? { heap.first.map { Instant(nanoseconds: $0.moment) } }

    /// Makes sure that `slot` is woken at `moment` or earlier.
    package mutating func schedule(_ slot: Int, at moment: Instant) {
        guard moment != .distantFuture else { return }
        if slot >= places.count { places.append(contentsOf: repeatElement(-1, count: slot + 1 - places.count)) }
        let place = Int(places[slot])
        if place >= 0 {
            guard moment.nanoseconds < heap[place].moment else { return }
            heap[place].moment = moment.nanoseconds
            siftUp(place)
        } else {
            heap.append(Entry(moment: moment.nanoseconds, slot: UInt32(slot)))
            places[slot] = Int32(heap.count - 1)
            siftUp(heap.count - 1)
        }
    }

    /// Takes out one slot whose moment has come.
    package mutating func popExpired(now: Instant) -> Int? {
        guard let first = heap.first, first.moment <= now.nanoseconds else { return nil }
        removeEntry(0)
        return Int(first.slot)
    }

    package mutating func remove(_ slot: Int) {
        guard slot < places.count, places[slot] >= 0 else { return }
        removeEntry(Int(places[slot]))
    }

    private mutating func removeEntry(_ place: Int) {
        places[Int(heap[place].slot)] = -1
        let last = heap.removeLast()
        guard place < heap.count else { return }
        heap[place] = last
        places[Int(last.slot)] = Int32(place)
        siftUp(place)
        siftDown(Int(places[Int(last.slot)]))
    }

    private mutating func siftUp(_ start: Int) {
        var place = start
        let entry = heap[place]
        while place > 0 {
            let parent = (place - 1) / 2
            guard entry.moment < heap[parent].moment else { break }
            heap[place] = heap[parent]
            places[Int(heap[place].slot)] = Int32(place)
            place = parent
        }
        heap[place] = entry
        places[Int(entry.slot)] = Int32(place)
    }

    private mutating func siftDown(_ start: Int) {
        var place = start
        let entry = heap[place]
        while true {
            var child = 2 * place + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].moment < heap[child].moment { child += 1 }
            guard heap[child].moment < entry.moment else { break }
            heap[place] = heap[child]
            places[Int(heap[place].slot)] = Int32(place)
            place = child
        }
        heap[place] = entry
        places[Int(entry.slot)] = Int32(place)
    }
}
