import Inet

/// What is known of each segment in flight: sent when, reported, lost, sent again.
///
/// A segment is in one of three states: in the network, reported by SACK, or lost and waiting to be sent again. Those in the
/// network are linked in the order in which they were sent last, which is RACK's order, so that an ACK costs what it changes.
/// A ring in sequence order that grows by doubling up to `maximumSegments`. Only this file touches the memory.
/// Source: RFC 6675 §2 to §4 (scoreboard, pipe), RFC 8985 §6.2 (losses by time).
@safe
package struct SACKScoreboard: ~Copyable {
    package struct Segment: Sendable {
        package var start: SequenceNumber
        /// Sequence numbers taken, a FIN included.
        package var length: UInt32
        /// When the last copy was sent.
        package var sentAt: Instant
        /// The serial number sent before this one. Meaningless outside of the network.
        fileprivate var previous: UInt32 = 0
        /// The serial number sent behind this one; of a reported segment, one up to which all others are reported too.
        fileprivate var next: UInt32 = 0
        package var flags: Flags
        package var end: SequenceNumber { start + Int(length) }
        fileprivate var isInNetwork: Bool { flags.isDisjoint(with: [.sacked, .lost]) }
    }

    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        package static let sacked = Flags(rawValue: 1)
        /// Judged lost; no copy is in the network.
        package static let lost = Flags(rawValue: 2)
        /// Sent more than once: no RTT sample (Karn).
        package static let ambiguous = Flags(rawValue: 4)
        package static let fin = Flags(rawValue: 8)
        /// Larger than the path is known to take (RFC 4821 §7).
        package static let mtuProbe = Flags(rawValue: 16)
    }

    private var slots: UnsafeMutablePointer<Segment>
    private var capacity = 0
    /// The serial number of the first segment. Serial numbers wrap; a segment's slot is its number modulo the capacity.
    private var head: UInt32 = 0
    package private(set) var count = 0
    package private(set) var sackedBytes = 0
    package private(set) var sackedCount = 0
    package private(set) var lostBytes = 0
    /// Bytes that are thought to be in the network (RFC 6675 §4, SetPipe).
    package private(set) var pipe = 0
    private var inNetwork = 0
    /// Serial numbers of the segments sent longest ago and last, of those in the network.
    private var oldest: UInt32 = 0
    private var newest: UInt32 = 0
    /// Every segment that waits to be sent again starts here or behind.
    private var resendHint = SequenceNumber(0)

    package init() { unsafe slots = UnsafeMutablePointer<Segment>.allocate(capacity: 0) }

    // Segments are trivial: freeing the memory is enough.
    deinit { unsafe slots.deallocate() }

    package var isEmpty: Bool { count == 0 }
    package var isFull: Bool { count >= Self.maximumSegments }
    package var allocatedBytes: Int { capacity * MemoryLayout<Segment>.stride }

    package private(set) subscript(index: Int) -> Segment {
        get {
            precondition(index >= 0 && index < count, "no such segment")
            return unsafe slots[slot(head &+ UInt32(truncatingIfNeeded: index))]
        }
        set {
            precondition(index >= 0 && index < count, "no such segment")
            unsafe slots[slot(head &+ UInt32(truncatingIfNeeded: index))] = newValue
        }
    }

    package mutating func append(start: SequenceNumber, length: Int, sentAt: Instant, flags: Flags = []) {
        if count == capacity { grow() }
        if count == 0 { resendHint = start }
        count += 1
        let serial = head &+ UInt32(count - 1)
        self[count - 1] = Segment(start: start, length: UInt32(truncatingIfNeeded: length), sentAt: sentAt, flags: flags)
        pipe += length
        link(serial)
    }

    /// Removes what `ack` covers; a segment that it covers in part is shortened.
    package mutating func acknowledge(upTo ack: SequenceNumber, delivery: inout Delivery) {
        while count > 0 {
            let segment = self[0]
            guard segment.start.isBefore(ack) else { break }
            if segment.end.isAtOrBefore(ack) {
                if !segment.flags.contains(.sacked) { delivery.note(segment, length: Int(segment.length)) }
                leaveState(head)
                head &+= 1
                count -= 1
            } else {
                let part = segment.start.distance(to: ack)
                if !segment.flags.contains(.sacked) { delivery.note(segment, length: part) }
                shorten(by: part)
            }
        }
    }

    /// Marks the segments that lie wholly inside `block`.
    package mutating func mark(_ block: SequenceRange, delivery: inout Delivery) {
        guard count > 0, !block.isEmpty else { return }
        // RFC 2018 §3 blocks that do not lie in flight are bogus or D-SACKs.
        guard self[0].start.isAtOrBefore(block.start), block.end.isAtOrBefore(self[count - 1].end) else { return }
        let first = firstIndex(startingAtOrAfter: block.start)
        var index = first
        while index < count {
            let segment = self[index]
            guard segment.end.isAtOrBefore(block.end) else { break }
            if segment.flags.contains(.sacked) {
                // What was reported before is passed over in one step.
                index = max(index + 1, Int(segment.next &- head))
                continue
            }
            delivery.note(segment, length: Int(segment.length))
            let serial = head &+ UInt32(truncatingIfNeeded: index)
            leaveState(serial)
            self[index].flags.remove(.lost)
            self[index].flags.insert(.sacked)
            self[index].next = serial &+ 1
            sackedBytes += Int(segment.length)
            sackedCount += 1
            index += 1
        }
        if index > first, self[first].flags.contains(.sacked) { self[first].next = head &+ UInt32(truncatingIfNeeded: index) }
    }

    /// Judges the segments lost that were sent before what `rack` knows to be delivered, and have had their time since.
    /// - Parameter window: how long a segment may be overtaken (RACK.reo_wnd).
    /// - Returns: how many bytes; and whether others are about to follow at `rack.deadline(window)`.
    /// Source: RFC 8985 §6.2, step 5.
    package mutating func judgeLosses(_ rack: RACK, window: Interval, now: Instant) -> (lost: Int, hasMore: Bool) {
        var lost = 0
        while inNetwork > 0 {
            let segment = unsafe slots[slot(oldest)]
            guard rack.wasSent(behind: segment) else { break }
            guard segment.sentAt.after(rack.rtt + window) <= now else { return (lost, true) }
            lost += Int(segment.length)
            markLost(oldest)
        }
        return (lost, false)
    }

    /// Judges the oldest segment lost: three duplicate ACKs without SACK, or a partial ACK (RFC 6582 §3.2).
    package mutating func markFirstLost() -> Bool {
        guard count > 0, self[0].isInNetwork else { return false }
        markLost(head)
        return true
    }

    /// The retransmission timer has fired: the first segment counts as lost, and the others that have had their time.
    /// - Parameter isOverdue: whether a segment has had its time (RFC 8985 §6.3).
    package mutating func markTimedOut(isOverdue: (Segment) -> Bool) {
        // A first segment that is reported but not acknowledged means that the peer has reneged (RFC 2018 §8).
        if count > 0, self[0].flags.contains(.sacked) { forgetReports() }
        for index in 0..<count where self[index].isInNetwork && (index == 0 || isOverdue(self[index])) {
            markLost(head &+ UInt32(truncatingIfNeeded: index))
        }
    }

    package mutating func markAllLost() { markTimedOut { _ in true } }

    /// What was judged lost has only been late: it is in the network again.
    package mutating func takeBackLosses() {
        guard lostBytes > 0 else { return }
        for index in 0..<count where self[index].flags.contains(.lost) {
            self[index].flags.remove(.lost)
            let length = Int(self[index].length)
            lostBytes -= length
            pipe += length
        }
        linkAll()
    }

    /// The bytes of the probe for a larger path MTU if it has been judged lost. Walks all.
    package var lostProbeBytes: Int? {
        (0..<count).first { self[$0].flags.isSuperset(of: [.lost, .mtuProbe]) }.map { Int(self[$0].length) }
    }

    /// The lowest segment that waits to be sent again.
    package mutating func nextLost() -> Int? {
        guard lostBytes > 0 else { return nil }
        // The hint may be from so long ago that it has wrapped.
        var index = firstIndex(startingAtOrAfter: SequenceNumber.later(resendHint, self[0].start))
        while index < count {
            if self[index].flags.contains(.lost) {
                resendHint = self[index].start
                return index
            }
            index += 1
        }
        return nil
    }

    /// A new copy of a segment has been sent.
    package mutating func resent(_ index: Int, now: Instant) {
        let serial = head &+ UInt32(truncatingIfNeeded: index)
        leaveState(serial)
        precondition(!self[index].flags.contains(.sacked), "what has arrived is sent again")
        self[index].flags.remove(.lost)
        self[index].flags.insert(.ambiguous)
        self[index].sentAt = now
        pipe += Int(self[index].length)
        link(serial)
    }

    /// What was sent last measures no round trip: it was held back on its way out.
    package mutating func spoilSample() {
        if count > 0 { self[count - 1].flags.insert(.ambiguous) }
    }

    /// Cuts every segment of more than `mss` bytes into smaller ones. Those that were too large for the path count as lost.
    package mutating func resegment(mss: Int) {
        guard count > 0, mss > 0 else { return }
        let old = (0..<count).map { self[$0] }
        removeAll()
        for segment in old {
            let text = Int(segment.length) - (segment.flags.contains(.fin) ? 1 : 0)
            let isTooLarge = text > mss
            var (cursor, left) = (segment.start, Int(segment.length))
            repeat {
                let isLast = left - (segment.flags.contains(.fin) ? 1 : 0) <= mss
                let length = isLast ? left : mss
                var piece = segment
                piece.start = cursor
                piece.length = UInt32(length)
                piece.flags.remove(.mtuProbe)
                if !isLast { piece.flags.remove(.fin) }
                if isTooLarge {
                    piece.flags.insert(.ambiguous)
                    if !piece.flags.contains(.sacked) { piece.flags.insert(.lost) }
                }
                insertLast(piece)
                cursor += length
                left -= length
            } while left > 0
        }
        resendHint = old[0].start
        linkAll()
    }

    package mutating func removeAll() {
        unsafe slots.deallocate()
        unsafe slots = UnsafeMutablePointer<Segment>.allocate(capacity: 0)
        (capacity, head, count, inNetwork) = (0, 0, 0, 0)
        (sackedBytes, sackedCount, lostBytes, pipe) = (0, 0, 0, 0)
    }

    /// Gives the memory back if nothing is in flight.
    package mutating func trim() {
        if count == 0 { removeAll() }
    }

    // MARK: States

    private mutating func markLost(_ serial: UInt32) {
        leaveState(serial)
        let place = slot(serial)
        unsafe slots[place].flags.insert(.lost)
        lostBytes += unsafe Int(slots[place].length)
        let first = self[0].start
        resendHint = unsafe SequenceNumber.earlier(SequenceNumber.later(resendHint, first), slots[place].start)
    }

    /// Takes a segment out of the sums and the order of its state.
    private mutating func leaveState(_ serial: UInt32) {
        let segment = unsafe slots[slot(serial)]
        let length = Int(segment.length)
        if segment.flags.contains(.sacked) {
            sackedBytes -= length
            sackedCount -= 1
        } else if segment.flags.contains(.lost) {
            lostBytes -= length
        } else {
            pipe -= length
            unlink(serial)
        }
    }

    private mutating func shorten(by part: Int) {
        let flags = self[0].flags
        if flags.contains(.sacked) { sackedBytes -= part } else if flags.contains(.lost) { lostBytes -= part } else { pipe -= part }
        self[0].start += part
        self[0].length -= UInt32(part)
    }

    private mutating func forgetReports() {
        for index in 0..<count where self[index].flags.contains(.sacked) {
            self[index].flags.remove(.sacked)
            self[index].flags.insert(.lost)
            let length = Int(self[index].length)
            sackedBytes -= length
            lostBytes += length
        }
        sackedCount = 0
        resendHint = self[0].start
    }

    // MARK: The order of sending

    private mutating func link(_ serial: UInt32) {
        let place = slot(serial)
        if inNetwork == 0 {
            oldest = serial
        } else {
            unsafe slots[slot(newest)].next = serial
            unsafe slots[place].previous = newest
        }
        newest = serial
        inNetwork += 1
    }

    private mutating func unlink(_ serial: UInt32) {
        let segment = unsafe slots[slot(serial)]
        inNetwork -= 1
        guard inNetwork > 0 else { return }
        if serial == oldest {
            oldest = segment.next
        } else if serial == newest {
            newest = segment.previous
        } else {
            unsafe slots[slot(segment.previous)].next = segment.next
            unsafe slots[slot(segment.next)].previous = segment.previous
        }
    }

    /// Makes the order anew.
    private mutating func linkAll() {
        inNetwork = 0
        let order = (0..<count).filter { self[$0].isInNetwork }.sorted { (self[$0].sentAt, $0) < (self[$1].sentAt, $1) }
        for index in order { link(head &+ UInt32(truncatingIfNeeded: index)) }
    }

    // MARK: The ring

    @inline(__always) private func slot(_ serial: UInt32) -> Int { Int(serial) & (capacity &- 1) }

    private mutating func insertLast(_ segment: Segment) {
        if count == capacity { grow() }
        count += 1
        self[count - 1] = segment
        let length = Int(segment.length)
        if segment.flags.contains(.sacked) {
            sackedBytes += length
            sackedCount += 1
            self[count - 1].next = head &+ UInt32(count)
        } else if segment.flags.contains(.lost) {
            lostBytes += length
        } else {
            pipe += length
        }
    }

    private func firstIndex(startingAtOrAfter number: SequenceNumber) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if self[middle].start.isBefore(number) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Serial numbers stay, so that the links do.
    private mutating func grow() {
        let larger = max(8, capacity * 2)
        let memory = UnsafeMutablePointer<Segment>.allocate(capacity: larger)
        for index in 0..<count {
            unsafe (memory + (Int(head &+ UInt32(index)) & (larger - 1))).initialize(to: self[index])
        }
        unsafe slots.deallocate()
        unsafe slots = memory
        capacity = larger
    }

    /// 32,768 segments: 44 MB in flight at 1,368 bytes each, more than the largest window.
    package static let maximumSegments = 32_768
}
