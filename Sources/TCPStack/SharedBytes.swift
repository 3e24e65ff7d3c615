import Inet

/// Bytes of somebody else's that stay where and as they are while `owner` lives: a write that keeps them copies each byte once,
/// into its segment.
@safe public struct SharedBytes {
    private let base: UnsafeRawPointer
    public let count: Int
    private let owner: AnyObject

    /// - Parameter bytes: valid and unchanged as long as `owner` lives; not empty.
    @unsafe public init(_ bytes: UnsafeRawBufferPointer, owner: AnyObject) {
        guard let base = bytes.baseAddress else { preconditionFailure("no bytes") }
        unsafe self.base = base
        count = bytes.count
        self.owner = owner
    }

    /// Whether `other` begins `offset` bytes behind the first of these, in the same memory.
    func goesOn(at offset: Int, with other: SharedBytes) -> Bool { unsafe owner === other.owner && base + offset == other.base }

    /// Copies `range` into `target`.
    @inline(__always)
    func copy(_ range: Range<Int>, into target: inout MutableRawSpan, at offset: Int) {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "bytes out of bounds")
        target.copy(unsafe RawSpan(_unsafeStart: base + range.lowerBound, byteCount: range.count), at: offset)
    }
}

/// Memory that received bytes are put into and handed over with: filled from the front, read from the front.
@safe public struct TextBlock {
    private let base: UnsafeMutableRawPointer
    public let capacity: Int
    /// Keeps the memory alive.
    public let owner: AnyObject
    /// The unread bytes.
    public private(set) var filled = 0..<0

    /// - Parameter memory: valid, and touched by nobody else, as long as `owner` lives and the block is not handed over.
    @unsafe public init(_ memory: UnsafeMutableRawBufferPointer, owner: AnyObject) {
        guard let base = memory.baseAddress else { preconditionFailure("no memory") }
        unsafe self.base = base
        capacity = memory.count
        self.owner = owner
    }

    var room: Int { capacity - filled.upperBound }

    /// Takes as much of `bytes` as there is room for.
    @inline(__always)
    mutating func append(_ bytes: RawSpan) -> Int {
        let count = min(bytes.byteCount, room)
        guard count > 0 else { return 0 }
        unsafe bytes.withUnsafeBytes { source in
            // There are `count` bytes on both sides.
            unsafe (base + filled.upperBound).copyMemory(from: source.baseAddress.unsafelyUnwrapped, byteCount: count)
        }
        filled = filled.lowerBound..<filled.upperBound + count
        return count
    }

    /// Copies unread bytes to `offset` of `target` and forgets them.
    /// - Returns: the bytes copied.
    public mutating func read(into target: inout MutableRawSpan, at offset: Int = 0) -> Int {
        let count = min(filled.count, target.byteCount - offset)
        guard count > 0 else { return 0 }
        target.copy(unsafe RawSpan(_unsafeStart: base + filled.lowerBound, byteCount: count), at: offset)
        filled = filled.lowerBound + count..<filled.upperBound
        return count
    }

    /// Forgets all bytes, so that the block can be filled again.
    mutating func clear() { filled = 0..<0 }

    /// Moves its unread bytes to `other`, which has room for them.
    mutating func move(to other: inout TextBlock) {
        let moved = other.append(unsafe RawSpan(_unsafeStart: base + filled.lowerBound, byteCount: filled.count))
        precondition(moved == filled.count, "no room in the other block")
        clear()
    }
}

/// Where memory for received bytes comes from. A subclass can give memory that its own buffers adopt, so that nothing is copied when
/// the bytes are handed over.
open class TextBlockSource {
    public init() {}

    /// - Parameter capacity: bytes that are needed at least; a power of two.
    open func make(capacity: Int) -> TextBlock { HeapMemory(count: capacity).block }
}

/// Memory of the stack's own.
@safe final class HeapMemory {
    private let memory: UnsafeMutableRawBufferPointer

    let count: Int

    init(count: Int) {
        self.count = count
        unsafe memory = .allocate(byteCount: count, alignment: 16)
    }

    deinit { unsafe memory.deallocate() }

    var block: TextBlock { unsafe TextBlock(memory, owner: self) }

    /// Lets `body` write the memory.
    func fill(_ body: (inout MutableRawSpan) -> Void) {
        // Nobody else has the memory's address.
        var span = unsafe MutableRawSpan(_unsafeBytes: memory)
        body(&span)
    }

    @inline(__always)
    func write(_ bytes: RawSpan, at offset: Int) {
        precondition(offset >= 0 && bytes.byteCount <= count - offset, "write out of bounds")
        unsafe bytes.withUnsafeBytes { unsafe UnsafeMutableRawBufferPointer(rebasing: memory[offset...]).copyMemory(from: $0) }
    }

    /// Copies `range` into `target`.
    @inline(__always)
    func copy(_ range: Range<Int>, into target: inout MutableRawSpan, at offset: Int) {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "read out of bounds")
        target.copy(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(rebasing: memory[range])), at: offset)
    }
}
