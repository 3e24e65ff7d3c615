/// A queue in a ring that keeps its memory: no allocation in steady state.
package struct Fifo<Element: Sendable>: Sendable {
    private var storage: [Element] = []
    private var head = 0
    package private(set) var count = 0

    package init() {}

    package var isEmpty: Bool { count == 0 }
    package var first: Element? { count == 0 ? nil : storage[head] }
    /// Elements that fit without an allocation.
    package var capacity: Int { storage.count }

    package func forEach(_ body: (Element) -> Void) {
        for offset in 0..<count { body(storage[(head + offset) % storage.count]) }
    }

    package mutating func append(_ element: Element) {
        if count == storage.count {
            // Unrolled, so that the ring's wrap falls on the array's end again.
            var larger: [Element] = []
            larger.reserveCapacity(max(16, count * 2))
            for offset in 0..<count { larger.append(storage[(head + offset) % storage.count]) }
            while larger.count < max(16, count * 2) { larger.append(element) }
            storage = larger
            head = 0
        }
        let position = head + count
        storage[position >= storage.count ? position - storage.count : position] = element
        count += 1
    }

    @discardableResult
    package mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = storage[head]
        head = head + 1 == storage.count ? 0 : head + 1
        count -= 1
        return element
    }
}
