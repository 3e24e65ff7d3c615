import Inet

/// Bytes in a ring that grows by doubling and is allocated with the first byte. Offsets count from the ring's first byte.
/// Every access is checked against the capacity; only this file touches the memory.
@safe
package struct RingBuffer: ~Copyable {
    private var storage: UnsafeMutableRawPointer?
    package private(set) var capacity = 0
    private var head = 0

    package init() { unsafe storage = nil }

    deinit { unsafe storage?.deallocate() }

    /// Makes room for `needed` bytes; the first `used` bytes keep their offsets.
    package mutating func reserve(_ needed: Int, keeping used: Int) {
        guard needed > capacity else { return }
        precondition(used >= 0 && used <= capacity, "more bytes used than there are")
        var newCapacity = max(capacity, Self.smallestCapacity)
        while newCapacity < needed, newCapacity < Self.doublingEnds { newCapacity *= 2 }
        // Large rings grow by half: twice the bound of a window would be too much memory.
        while newCapacity < needed { newCapacity += newCapacity / 2 }
        reallocate(newCapacity, keeping: used)
    }

    /// Gives memory back that is much more than the first `used` bytes need.
    package mutating func shrink(keeping used: Int) {
        guard used > 0 else { return release() }
        var enough = Self.smallestCapacity
        while enough < used { enough *= 2 }
        if enough * 4 <= capacity { reallocate(enough, keeping: used) }
    }

    private mutating func reallocate(_ newCapacity: Int, keeping used: Int) {
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: newCapacity, alignment: 16)
        if used > 0, let storage = unsafe storage {
            let first = min(used, capacity - head)
            unsafe bytes.copyMemory(from: storage + head, byteCount: first)
            unsafe (bytes + first).copyMemory(from: storage, byteCount: used - first)
        }
        unsafe storage?.deallocate()
        unsafe storage = bytes
        capacity = newCapacity
        head = 0
    }

    /// Copies `bytes` to `offset`. The room must have been reserved.
    package mutating func write(_ bytes: RawSpan, at offset: Int) {
        let count = bytes.byteCount
        guard count > 0 else { return }
        precondition(offset >= 0 && offset <= capacity && count <= capacity - offset, "write behind the ring's end")
        guard let storage = unsafe storage else { preconditionFailure("a ring with capacity has storage") }
        let start = position(offset)
        let first = min(count, capacity - start)
        unsafe bytes.withUnsafeBytes { source in
            guard let base = source.baseAddress else { return }
            unsafe (storage + start).copyMemory(from: base, byteCount: first)
            if first < count { unsafe storage.copyMemory(from: base + first, byteCount: count - first) }
        }
    }

    /// Copies `count` bytes from `offset` into `target`.
    package func copy(from offset: Int, count: Int, into target: inout MutableRawSpan, at targetOffset: Int) {
        guard count > 0 else { return }
        precondition(offset >= 0 && offset <= capacity && count <= capacity - offset, "read behind the ring's end")
        guard let storage = unsafe storage else { preconditionFailure("a ring with capacity has storage") }
        let start = position(offset)
        let first = min(count, capacity - start)
        target.copy(unsafe RawSpan(_unsafeStart: storage + start, byteCount: first), at: targetOffset)
        if first < count {
            target.copy(unsafe RawSpan(_unsafeStart: storage, byteCount: count - first), at: targetOffset + first)
        }
    }

    /// Copies the first bytes into `block`, at most `limit` and as many as it has room for.
    /// - Returns: the bytes copied.
    package func copyFirst(atMost limit: Int, into block: inout TextBlock) -> Int {
        precondition(limit >= 0 && limit <= capacity, "read behind the ring's end")
        guard let storage = unsafe storage else { return 0 }
        let first = min(limit, capacity - head)
        let copied = block.append(unsafe RawSpan(_unsafeStart: storage + head, byteCount: first))
        guard copied == first, first < limit else { return copied }
        return copied + block.append(unsafe RawSpan(_unsafeStart: storage, byteCount: limit - first))
    }

    /// Moves the ring's first byte on by `count`.
    package mutating func dropFirst(_ count: Int) {
        precondition(count >= 0 && count <= capacity, "more bytes dropped than there are")
        head = position(count)
    }

    /// Says that no byte is held: what comes next is written where the last bytes are still in the processor's cache.
    package mutating func rewind() { head = 0 }

    /// Gives the memory back. All bytes are gone.
    package mutating func release() {
        unsafe storage?.deallocate()
        unsafe storage = nil
        capacity = 0
        head = 0
    }

    @inline(__always) private func position(_ offset: Int) -> Int {
        let position = head &+ offset
        return position >= capacity ? position &- capacity : position
    }

    /// 4,096 bytes: enough for a request; a bulk transfer doubles a few times.
    private static let smallestCapacity = 4096
    private static let doublingEnds = 1 << 20
}
