import Inet

/// What will happen, earliest first; at the same moment in the order of entry. A binary heap.
package struct EventQueue<Element> {
    private struct Entry {
        var at: UInt64
        var order: UInt64
        var element: Element

        func isBefore(_ other: Entry) -> Bool { at != other.at ? at < other.at : order < other.order }
    }

    private var heap: [Entry] = []
    private var order: UInt64 = 0

    package init() {}

    package var count: Int { heap.count }
    package var next: Instant? { heap.first.map { Instant(nanoseconds: $0.at) } }

    package mutating func push(_ element: Element, at moment: Instant) {
        order += 1
        let entry = Entry(at: moment.nanoseconds, order: order, element: element)
        heap.append(entry)
        var place = heap.count - 1
        while place > 0, entry.isBefore(heap[(place - 1) / 2]) {
            heap[place] = heap[(place - 1) / 2]
            place = (place - 1) / 2
        }
        heap[place] = entry
    }

    /// The first element whose moment has come.
    package mutating func pop(by now: Instant) -> Element? {
        guard let first = heap.first, first.at <= now.nanoseconds else { return nil }
        let last = heap.removeLast()
        if heap.isEmpty { return first.element }
        var place = 0
        while true {
            var child = 2 * place + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].isBefore(heap[child]) { child += 1 }
            guard heap[child].isBefore(last) else { break }
            heap[place] = heap[child]
            place = child
        }
        heap[place] = last
        return first.element
    }
}
