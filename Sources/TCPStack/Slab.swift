/// Elements by index and generation. Removing an element makes its handle invalid for ever (2^31 reuses of a slot).
/// Only this file touches the memory; every access is checked.
@safe
package struct Slab<Element: ~Copyable>: ~Copyable {
    /// A slot and the life it had when the handle was given.
    package struct Handle: Hashable, Sendable {
        package var index: UInt32
        package var generation: UInt32
        package init(index: UInt32, generation: UInt32) {
            self.index = index
            self.generation = generation
        }
    }

    private var elements: UnsafeMutablePointer<Element>
    private var capacity = 0
    /// Odd while the slot is occupied.
    private var generations: [UInt32] = []
    private var free: [UInt32] = []
    package private(set) var count = 0

    package init() { unsafe elements = UnsafeMutablePointer<Element>.allocate(capacity: 0) }

    deinit {
        for index in generations.indices where generations[index] & 1 == 1 { unsafe (elements + index).deinitialize(count: 1) }
        unsafe elements.deallocate()
    }

    package mutating func insert(_ element: consuming Element) -> Handle {
        let index: Int
        if let reused = free.popLast() {
            index = Int(reused)
        } else {
            index = generations.count
            if index == capacity { grow() }
            generations.append(0)
        }
        unsafe (elements + index).initialize(to: element)
        generations[index] &+= 1
        count += 1
        return Handle(index: UInt32(index), generation: generations[index])
    }

    package mutating func remove(_ index: Int) {
        precondition(isOccupied(index), "no element in this slot")
        unsafe (elements + index).deinitialize(count: 1)
        generations[index] &+= 1
        free.append(UInt32(index))
        count -= 1
    }

    /// One behind the highest slot ever used.
    package var slotCount: Int { generations.count }

    package func isOccupied(_ index: Int) -> Bool {
        index >= 0 && index < generations.count && generations[index] & 1 == 1
    }

    /// The slot of `handle`, if it is still alive.
    package func index(of handle: Handle) -> Int? {
        let index = Int(handle.index)
        return index < generations.count && generations[index] == handle.generation && handle.generation & 1 == 1 ? index : nil
    }

    package func handle(at index: Int) -> Handle { Handle(index: UInt32(index), generation: generations[index]) }

    package subscript(index: Int) -> Element {
        _read {
            precondition(isOccupied(index), "no element in this slot")
            yield unsafe elements[index]
        }
        _modify {
            precondition(isOccupied(index), "no element in this slot")
            yield unsafe &elements[index]
        }
    }

    private mutating func grow() {
        let newCapacity = max(16, capacity * 2)
        let larger = UnsafeMutablePointer<Element>.allocate(capacity: newCapacity)
        // Called only when every slot up to the old capacity has been used once; empty ones are skipped.
        for index in generations.indices where generations[index] & 1 == 1 {
            unsafe (larger + index).moveInitialize(from: elements + index, count: 1)
        }
        unsafe elements.deallocate()
        unsafe elements = larger
        capacity = newCapacity
    }
}
