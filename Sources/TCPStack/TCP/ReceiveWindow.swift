import Inet

/// The receive side: the blocks of unread bytes, the ring of early ones, RCV.NXT, the window we offer, and how it grows.
///
/// The right edge never moves left. Window scaling makes edges multiples of its unit, so an edge is rounded up while the
/// buffer has slack for it (RFC 7323 §2.4 would let it move back by less than one unit).
package struct ReceiveWindow: ~Copyable {
    /// RCV.NXT
    package private(set) var nxt: SequenceNumber
    /// The highest right edge ever offered: RCV.NXT + RCV.WND.
    package private(set) var rightEdge: SequenceNumber
    /// In-order bytes that the application has not read.
    package private(set) var readable = 0
    package private(set) var reassembler = Reassembler()
    /// How far the window may open now. Grows up to `maximum` with what the application consumes.
    package private(set) var limit: Int
    private let initial: Int
    package let maximum: Int
    /// Our window scale shift; 0 until it is negotiated.
    package var scale: UInt8 = 0
    /// Early bytes, from RCV.NXT on.
    private var ring = RingBuffer()
    /// In-order bytes in the blocks up to `filling`; behind it free ones, within the limit: so a stream that is read
    /// allocates nothing.
    private var inbox: [TextBlock] = []
    private let source: TextBlockSource
    private var filling: UInt32 = 0
    private var inboxCapacity: UInt32 = 0
    /// What the next block shall hold: grows when one is not enough for a turn, falls when it is too much.
    private var blockSize: UInt32 = Self.smallestBlock
    private var epochStart = Instant(nanoseconds: 0)
    private var epochConsumed = 0

    package init(initial: Int, maximum: Int, source: TextBlockSource = TextBlockSource()) {
        self.source = source
        nxt = SequenceNumber(0)
        rightEdge = SequenceNumber(0)
        self.maximum = min(max(0, maximum), Self.largestWindow)
        limit = min(max(0, initial), self.maximum)
        self.initial = limit
    }

    package enum Acceptance: Equatable {
        /// RCV.NXT has moved.
        case inOrder
        /// Stored behind a hole.
        case early
        /// All of it was here already.
        case duplicate
        /// Too many holes.
        case refused
    }

    /// The peer's SYN has been accepted: the first byte will be `next`.
    /// - Parameter isOffered: our own SYN has told a window already.
    package mutating func start(at next: SequenceNumber, isOffered: Bool) {
        nxt = next
        rightEdge = isOffered ? next + min(limit, 65_535) : next
    }

    /// RCV.WND as the peer knows it.
    package var offered: Int { max(0, nxt.distance(to: rightEdge)) }

    package var allocatedBytes: Int { ring.capacity + Int(inboxCapacity) }
    package var heldBytes: Int { readable + reassembler.byteCount }
    package var hasHoles: Bool { !reassembler.isEmpty }

    /// Takes `text`, which lies in the window and starts at or behind RCV.NXT.
    package mutating func accept(_ text: RawSpan, at sequence: SequenceNumber) -> Acceptance {
        let count = text.byteCount
        let offset = nxt.distance(to: sequence)
        precondition(offset >= 0, "text in front of RCV.NXT")
        if sequence == nxt, reassembler.isEmpty {
            store(text)
            nxt += count
            return .inOrder
        }
        let range = SequenceRange(sequence, sequence + count)
        guard var gap = reassembler.firstGap(in: range) else { return .duplicate }
        guard reassembler.hasRoom(for: range) else { return .refused }
        let held = reassembler.end.map { nxt.distance(to: $0) } ?? 0
        ring.reserve(max(held, offset + count), keeping: held)
        // Only the gaps are written: the first copy of a byte wins.
        while true {
            let start = sequence.distance(to: gap.start)
            ring.write(text.extracting(start..<(start + gap.count)), at: nxt.distance(to: gap.start))
            guard let next = reassembler.firstGap(in: SequenceRange(gap.end, range.end)) else { break }
            gap = next
        }
        guard reassembler.insert(range) else { return .refused }
        guard sequence == nxt else { return .early }
        let next = reassembler.advance(from: nxt)
        moveFromRing(nxt.distance(to: next))
        nxt = next
        return .inOrder
    }

    private mutating func store(_ text: RawSpan) {
        var done = 0
        while done < text.byteCount {
            if inbox.isEmpty || inbox[Int(filling)].room == 0 { nextBlock(for: text.byteCount - done) }
            done += inbox[Int(filling)].append(text.extracting(done..<text.byteCount))
        }
        readable += done
    }

    private mutating func moveFromRing(_ count: Int) {
        var left = count
        while left > 0 {
            if inbox.isEmpty || inbox[Int(filling)].room == 0 { nextBlock(for: left) }
            let copied = ring.copyFirst(atMost: left, into: &inbox[Int(filling)])
            left -= copied
            ring.dropFirst(copied)
        }
        readable += count
        if reassembler.isEmpty { ring.rewind() }
    }

    private mutating func nextBlock(for needed: Int) {
        if !inbox.isEmpty {
            filling += 1
            if Int(filling) < inbox.count { return }
            blockSize = min(blockSize * 4, Self.largestBlock)
        }
        addBlock(atLeast: min(needed, Int(Self.largestBlock)))
    }

    private mutating func addBlock(atLeast needed: Int) {
        var capacity = Int(blockSize)
        while capacity < needed { capacity *= 2 }
        let block = source.make(capacity: capacity)
        inboxCapacity += UInt32(block.capacity)
        inbox.append(block)
    }

    /// The peer's FIN takes one sequence number.
    package mutating func acceptFIN() {
        nxt += 1
        if rightEdge.isBefore(nxt) { rightEdge = nxt }
    }

    /// Moves in-order bytes to the application.
    /// - Parameter mayGrow: whether there is memory for a larger window.
    /// - Returns: the bytes moved.
    package mutating func read(into target: inout MutableRawSpan, now: Instant, rtt: Interval, mayGrow: Bool = true) -> Int {
        let count = min(readable, target.byteCount)
        guard count > 0 else { return 0 }
        var done = 0
        while done < count {
            done += inbox[0].read(into: &target, at: done)
            guard inbox[0].filled.isEmpty else { break }
            recycleFirst()
        }
        consumed(count, now: now, rtt: rtt, mayGrow: mayGrow)
        return count
    }

    /// Hands the oldest block over, as `read` does its bytes.
    package mutating func take(now: Instant, rtt: Interval, mayGrow: Bool = true) -> TextBlock? {
        guard readable > 0 else { return nil }
        let block = removeFirst()
        if block.filled.upperBound * 2 < block.capacity { blockSize = max(blockSize / 2, Self.smallestBlock) }
        consumed(block.filled.count, now: now, rtt: rtt, mayGrow: mayGrow)
        return block
    }

    private mutating func removeFirst() -> TextBlock {
        let block = inbox.removeFirst()
        inboxCapacity -= UInt32(block.capacity)
        filling = filling > 0 ? filling - 1 : 0
        return block
    }

    /// All of the oldest block has been read: it is filled again, unless there are enough.
    private mutating func recycleFirst() {
        inbox[0].clear()
        guard filling > 0 else { return }
        var block = removeFirst()
        block.clear()
        guard Int(inboxCapacity) + block.capacity <= limit + 2 * Int(Self.largestBlock) else { return }
        inboxCapacity += UInt32(block.capacity)
        inbox.append(block)
    }

    private mutating func consumed(_ count: Int, now: Instant, rtt: Interval, mayGrow: Bool) {
        readable -= count
        if mayGrow { tune(consumed: count, now: now, rtt: rtt) } else { limit = max(initial, limit / 2) }
    }

    /// The value of the Window field for a segment that leaves now; moves the right edge.
    package mutating func windowField(isSYN: Bool) -> UInt16 {
        if isSYN {
            // The window in a SYN is never scaled (RFC 7323 §2.2).
            let window = min(limit, 65_535)
            rightEdge = SequenceNumber.later(rightEdge, nxt + window)
            return UInt16(window)
        }
        let unit = 1 << Int(scale)
        let free = max(0, limit - readable)
        let candidate = nxt + (free / unit) * unit
        let target = SequenceNumber.later(candidate, rightEdge)
        let wanted = nxt.distance(to: target)
        var units = (wanted + unit - 1) / unit
        // The ring must not creep past its slack however small the segments are.
        if units * unit > wanted, readable + units * unit > limit + limit / 8 + unit { units = wanted / unit }
        units = min(units, 65_535)
        rightEdge = SequenceNumber.later(rightEdge, nxt + units * unit)
        return UInt16(units)
    }

    /// Whether the window has opened enough to be worth a segment of its own (RFC 9293 §3.8.6.2.2).
    package func wantsUpdate(mss: Int) -> Bool {
        // Without window scaling the field ends at 65,535.
        let most = min(limit, 65_535 << Int(scale))
        let gain = min(limit - readable, most) - offered
        return gain >= min(mss, most / 2) && (offered < most / 2 || gain >= most / 4)
    }

    /// Gives memory back that is not needed for what is held.
    package mutating func trim() {
        ring.shrink(keeping: reassembler.end.map { nxt.distance(to: $0) } ?? 0)
        guard readable > 0 else { return removeBlocks() }
        guard readable <= Int(inboxCapacity) / 4, Int(inboxCapacity) > Int(Self.smallestBlock) else { return }
        var old = inbox
        let full = Int(filling)
        removeBlocks()
        addBlock(atLeast: readable)
        for index in 0...full { old[index].move(to: &inbox[0]) }
    }

    private mutating func removeBlocks() {
        inbox = []
        (filling, inboxCapacity, blockSize) = (0, 0, Self.smallestBlock)
    }

    /// What lies behind a hole.
    package mutating func discardEarly() {
        reassembler.removeAll()
        ring.release()
    }

    package mutating func discard() {
        readable = 0
        reassembler.removeAll()
        ring.release()
        removeBlocks()
    }

    /// Doubles the window when the application consumed more than half of it within one round trip.
    private mutating func tune(consumed: Int, now: Instant, rtt: Interval) {
        guard limit < maximum else { return }
        epochConsumed += consumed
        guard now.since(epochStart) >= max(rtt, .milliseconds(1)) else {
            if epochConsumed > limit / 2 { limit = min(maximum, limit * 2) }
            return
        }
        epochStart = now
        epochConsumed = 0
    }

    /// RFC 7323 §2.3.
    private static let largestWindow = 1 << 30
    private static let smallestBlock: UInt32 = 1024
    private static let largestBlock: UInt32 = 128 * 1024
}
