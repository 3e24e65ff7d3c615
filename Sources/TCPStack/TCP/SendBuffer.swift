import Inet

/// The bytes from SND.UNA on: sent and unacknowledged first, then unsent. Bounded by `limit`. They lie in pieces: shared ones that
/// are only kept, and memory of our own into which small writes are copied.
package struct SendBuffer: ~Copyable {
    enum Memory {
        case shared(SharedBytes)
        case own(HeapMemory)
    }

    struct Piece {
        let memory: Memory
        /// Where its first byte stands, counted as `origin` is.
        var start: UInt64
        var count: Int
    }

    /// In order; those before `first` are gone.
    private var pieces: [Piece?] = []
    /// Bytes acknowledged so far.
    private var origin: UInt64 = 0
    /// Memory of our own that has become free, within the limit: so a stream allocates nothing.
    private var spares: [HeapMemory] = []
    private var memoryBytes = 0
    private var first: UInt32 = 0
    /// The piece that was copied from last.
    private var cursor: UInt32 = 0
    private var heldBytes: UInt32 = 0
    private var mostBytes: UInt32

    package init(limit: Int) { mostBytes = UInt32(clamping: min(limit, Self.largestLimit)) }

    /// Bytes held.
    package var count: Int { Int(heldBytes) }
    /// The most bytes held at once.
    package var limit: Int {
        get { Int(mostBytes) }
        set { mostBytes = UInt32(clamping: min(newValue, Self.largestLimit)) }
    }
    package var room: Int { max(0, limit - count) }
    /// Bytes of memory held.
    package var allocatedBytes: Int { memoryBytes }

    /// Copies as much of `bytes` as there is room for.
    /// - Returns: the bytes taken.
    package mutating func append(_ bytes: RawSpan) -> Int {
        let accepted = min(bytes.byteCount, room)
        var done = 0
        while done < accepted {
            if roomInLast == 0 { addMemory(for: accepted - done) }
            let last = pieces.count - 1
            let taken = min(accepted - done, roomInLast)
            pieces[last]?.append(bytes.extracting(done..<done + taken))
            done += taken
            heldBytes += UInt32(taken)
        }
        return accepted
    }

    /// Keeps as much of `bytes` as there is room for.
    /// - Returns: the bytes taken.
    package mutating func append(_ bytes: SharedBytes) -> Int {
        let accepted = min(bytes.count, room)
        guard accepted > 0 else { return 0 }
        // The rest of what was offered before is no piece of its own: it may come byte by byte, as the peer makes room.
        if !pieces.isEmpty, pieces[pieces.count - 1]?.extend(by: accepted, of: bytes) == true {
            memoryBytes += accepted
        } else {
            add(Piece(memory: .shared(bytes), start: end, count: accepted))
        }
        heldBytes += UInt32(accepted)
        return accepted
    }

    /// Copies bytes for a segment straight into the outgoing packet.
    package mutating func copy(from offset: Int, count length: Int, into packet: inout MutableRawSpan, at packetOffset: Int) {
        precondition(offset >= 0 && length >= 0 && offset + length <= count, "segment outside the send buffer")
        guard length > 0 else { return }
        var position = origin + UInt64(offset)
        var index = find(position)
        var done = 0
        while true {
            let part = pieces[index]?.copy(at: position, atMost: length - done, into: &packet, at: packetOffset + done) ?? 0
            done += part
            position += UInt64(part)
            guard done < length else { break }
            precondition(part > 0, "a gap in the send buffer")
            index += 1
        }
        cursor = UInt32(index)
    }

    /// Forgets acknowledged bytes.
    package mutating func dropFirst(_ length: Int) {
        precondition(length >= 0 && length <= count, "more bytes acknowledged than held")
        origin += UInt64(length)
        heldBytes -= UInt32(length)
        while Int(first) < pieces.count, let end = pieces[Int(first)]?.end, end <= origin {
            // The last memory of our own goes on to be filled.
            if Int(first) == pieces.count - 1, pieces[Int(first)]?.reuse(from: origin) == true { break }
            removeFirst()
        }
        if Int(first) > 16, Int(first) * 2 > pieces.count {
            pieces.removeFirst(Int(first))
            cursor = cursor > first ? cursor - first : 0
            first = 0
        }
    }

    /// Gives memory back that is much more than what is held needs.
    package mutating func trim() {
        while let memory = spares.popLast() { memoryBytes -= memory.count }
        guard count > 0 else { return removeAll() }
        guard count <= allocatedBytes / 4 else { return }
        var capacity = Self.smallestMemory
        while capacity < count { capacity *= 2 }
        guard capacity < allocatedBytes else { return }
        let memory = HeapMemory(count: capacity)
        memory.fill { self.copy(from: 0, count: self.count, into: &$0, at: 0) }
        let count = count
        removeAll()
        origin -= UInt64(count)
        add(Piece(memory: .own(memory), start: origin, count: count))
        heldBytes = UInt32(count)
    }

    package mutating func removeAll() {
        origin = end
        pieces = []
        spares = []
        (heldBytes, first, cursor, memoryBytes) = (0, 0, 0, 0)
    }

    private var end: UInt64 { origin + UInt64(heldBytes) }

    private var roomInLast: Int { pieces.isEmpty ? 0 : pieces[pieces.count - 1]?.room ?? 0 }

    private mutating func add(_ piece: Piece) {
        pieces.append(piece)
        memoryBytes += piece.memoryBytes
    }

    /// Twice as much as what has become full, so that small requests take little and large ones few pieces. Behind shared bytes just
    /// enough: more of them may follow at once.
    private mutating func addMemory(for needed: Int) {
        var full = 0
        if let last = pieces.last, case .own(let memory)? = last?.memory { full = memory.count }
        var capacity = Self.smallestMemory
        while capacity < Self.largestMemory, capacity < max(needed, 2 * full) { capacity *= 2 }
        if let memory = spares.last, memory.count <= capacity {
            spares.removeLast()
            memoryBytes -= memory.count
            return add(Piece(memory: .own(memory), start: end, count: 0))
        }
        add(Piece(memory: .own(HeapMemory(count: capacity)), start: end, count: 0))
    }

    private mutating func removeFirst() {
        guard let piece = pieces[Int(first)].take() else { return }
        memoryBytes -= piece.memoryBytes
        first += 1
        guard case .own(let memory) = piece.memory, memory.count <= Self.largestMemory,
            memoryBytes + memory.count <= limit + 2 * Self.largestMemory
        else { return }
        memoryBytes += memory.count
        spares.append(memory)
    }

    /// The piece that holds `position`: most often the one of the last copy, or the next.
    private func find(_ position: UInt64) -> Int {
        let near = Int(max(cursor, first))
        for index in near..<min(near + 2, pieces.count) where pieces[index]?.holds(position) == true { return index }
        var (low, high) = (Int(first), pieces.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if let start = pieces[middle]?.start, start <= position { low = middle } else { high = middle }
        }
        return low
    }

    /// Enough for a request.
    private static let smallestMemory = 1024
    private static let largestMemory = 128 * 1024
    /// No window is larger (RFC 7323 §2.3).
    private static let largestLimit = 1 << 30
}

extension SendBuffer.Piece {
    fileprivate var end: UInt64 { start + UInt64(count) }

    fileprivate var memoryBytes: Int {
        switch memory {
        case .shared: count
        case .own(let memory): memory.count
        }
    }

    fileprivate var room: Int {
        switch memory {
        case .shared: 0
        case .own(let memory): memory.count - count
        }
    }

    /// Takes the next bytes of memory that it shares already, if that is what these are.
    fileprivate mutating func extend(by more: Int, of bytes: SharedBytes) -> Bool {
        guard case .shared(let mine) = memory, mine.goesOn(at: count, with: bytes), count + more <= mine.count else { return false }
        count += more
        return true
    }

    fileprivate func holds(_ position: UInt64) -> Bool { start <= position && position < end }

    fileprivate mutating func append(_ bytes: RawSpan) {
        guard case .own(let memory) = memory else { return }
        memory.write(bytes, at: count)
        count += bytes.byteCount
    }

    @inline(__always)
    fileprivate func copy(at position: UInt64, atMost limit: Int, into packet: inout MutableRawSpan, at offset: Int) -> Int {
        let from = Int(position - start)
        let part = min(limit, count - from)
        switch memory {
        case .shared(let bytes): bytes.copy(from..<from + part, into: &packet, at: offset)
        case .own(let memory): memory.copy(from..<from + part, into: &packet, at: offset)
        }
        return part
    }

    /// Begins anew at `position` if the memory is our own.
    fileprivate mutating func reuse(from position: UInt64) -> Bool {
        guard case .own = memory else { return false }
        (start, count) = (position, 0)
        return true
    }
}
