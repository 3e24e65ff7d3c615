import Inet

/// What is known of each segment in flight, in sequence order: sent when, reported, lost, sent again.
/// A ring that grows by doubling up to `maximumSegments`. `pipe` is kept by counters, so an ACK costs what it changes.
/// Source: RFC 6675 §2 to §4, counted in segments. Only this file touches the memory.
@safe
package struct SACKScoreboard: ~Copyable {
    package struct Segment: Sendable {
        package var start: SequenceNumber
        /// Sequence numbers taken, a FIN included.
        package var length: UInt32
        package var sentAt: Instant
        package var flags: Flags
        package var end: SequenceNumber { start + Int(length) }
    }

    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        package static let sacked = Flags(rawValue: 1)
        package static let lost = Flags(rawValue: 2)
        /// Lost, and a new copy is in flight.
        package static let resent = Flags(rawValue: 4)
        /// Sent more than once: no RTT sample (Karn).
        package static let ambiguous = Flags(rawValue: 8)
        package static let fin = Flags(rawValue: 16)
    }

    /// What an ACK has told.
    package struct Delivery: Equatable, Sendable {
        /// Bytes that were not known to be delivered before.
        package var newlyDelivered = 0
        /// When the newest unambiguous segment among them was sent.
        package var sampleSentAt: Instant?
        /// Something that was sent more than once has been acknowledged. What lies behind it may have waited for it at the
        /// peer, so that nothing here measures a round trip.
        package var isAmbiguous = false
        /// When the last copy of any of it was sent.
        package var newestSentAt: Instant?
        package init() {}
    }

    private var slots: UnsafeMutablePointer<Segment>
    private var capacity = 0
    private var head = 0
    package private(set) var count = 0
    package private(set) var sackedBytes = 0
    package private(set) var lostBytes = 0
    package private(set) var resentBytes = 0
    private var totalBytes = 0
    private var highestSacked: SequenceNumber?
    /// Below this every segment has been judged lost or delivered.
    private var judgedUpTo = SequenceNumber(0)
    private var resendHint = SequenceNumber(0)

    package init() { unsafe slots = UnsafeMutablePointer<Segment>.allocate(capacity: 0) }

    // Segments are trivial: freeing the memory is enough.
    deinit { unsafe slots.deallocate() }

    package var isEmpty: Bool { count == 0 }
    package var isFull: Bool { count >= Self.maximumSegments }
    package var hasSACKs: Bool { sackedBytes > 0 }
    package var allocatedBytes: Int { capacity * MemoryLayout<Segment>.stride }

    /// Bytes that are thought to be in the network (RFC 6675 §4, SetPipe).
    package var pipe: Int { totalBytes &- sackedBytes &- lostBytes &+ resentBytes }

    package subscript(index: Int) -> Segment {
        get {
            precondition(index >= 0 && index < count, "no such segment")
            return unsafe slots[(head &+ index) & (capacity &- 1)]
        }
        set {
            precondition(index >= 0 && index < count, "no such segment")
            unsafe slots[(head &+ index) & (capacity &- 1)] = newValue
        }
    }

    package mutating func append(start: SequenceNumber, length: Int, sentAt: Instant, flags: Flags = []) {
        if count == capacity { grow() }
        if count == 0 {
            judgedUpTo = start
            resendHint = start
            highestSacked = nil
        }
        count += 1
        self[count - 1] = Segment(start: start, length: UInt32(truncatingIfNeeded: length), sentAt: sentAt, flags: flags)
        totalBytes += length
    }

    /// Removes what `ack` covers; a segment that it covers in part is shortened.
    package mutating func acknowledge(upTo ack: SequenceNumber) -> Delivery {
        var delivery = Delivery()
        while count > 0 {
            var segment = self[0]
            guard segment.start.isBefore(ack) else { break }
            if segment.end.isAtOrBefore(ack) {
                note(segment, length: Int(segment.length), in: &delivery)
                forget(Int(segment.length), flags: segment.flags)
                head = (head &+ 1) & (capacity &- 1)
                count -= 1
            } else {
                let part = segment.start.distance(to: ack)
                note(segment, length: part, in: &delivery)
                forget(part, flags: segment.flags)
                segment.start = ack
                segment.length -= UInt32(part)
                self[0] = segment
            }
        }
        return delivery
    }

    /// Marks the segments that lie wholly inside `block`.
    package mutating func mark(_ block: SequenceRange, delivery: inout Delivery) {
        guard count > 0, !block.isEmpty else { return }
        // RFC 2018 §3 blocks that do not lie in flight are bogus or D-SACKs.
        guard self[0].start.isAtOrBefore(block.start), block.end.isAtOrBefore(self[count - 1].end) else { return }
        var index = firstIndex(startingAtOrAfter: block.start)
        while index < count {
            var segment = self[index]
            guard segment.end.isAtOrBefore(block.end) else { break }
            if !segment.flags.contains(.sacked) {
                note(segment, length: Int(segment.length), in: &delivery)
                let length = Int(segment.length)
                if segment.flags.contains(.lost) { lostBytes -= length }
                if segment.flags.contains(.resent) { resentBytes -= length }
                segment.flags.subtract([.lost, .resent])
                segment.flags.insert(.sacked)
                sackedBytes += length
                self[index] = segment
                highestSacked = SequenceNumber.later(highestSacked ?? segment.end, segment.end)
            }
            index += 1
        }
    }

    /// Judges every segment with `DupThresh` reported segments above it as lost (RFC 6675 §4, IsLost).
    /// - Returns: whether a segment has newly been judged lost.
    package mutating func judgeLosses() -> Bool {
        guard let highestSacked, count > 0 else { return false }
        var cut = firstIndex(startingAtOrAfter: highestSacked)
        var above = 0
        while cut > 0, above < Self.duplicateThreshold {
            cut -= 1
            if self[cut].flags.contains(.sacked) { above += 1 }
        }
        guard above >= Self.duplicateThreshold else { return false }
        let boundary = self[cut].start
        var found = false
        while cut > 0, judgedUpTo.isAtOrBefore(self[cut - 1].start) {
            cut -= 1
            if markLost(cut) { found = true }
        }
        judgedUpTo = SequenceNumber.later(judgedUpTo, boundary)
        return found
    }

    /// Judges the oldest segment lost: three duplicate ACKs without SACK, or a partial ACK (RFC 6582 §3.2).
    package mutating func markFirstLost() -> Bool { count > 0 && markLost(0) }

    /// The retransmission timer has fired: all that is not reported counts as lost, copies in flight included.
    package mutating func markAllLost() {
        // A first segment that is reported but not acknowledged means that the peer has reneged (RFC 2018 §8).
        let isReneging = count > 0 && self[0].flags.contains(.sacked)
        for index in 0..<count {
            var segment = self[index]
            let length = Int(segment.length)
            if isReneging, segment.flags.contains(.sacked) {
                segment.flags.remove(.sacked)
                sackedBytes -= length
            }
            guard !segment.flags.contains(.sacked) else { continue }
            if segment.flags.contains(.resent) {
                segment.flags.remove(.resent)
                resentBytes -= length
            }
            if !segment.flags.contains(.lost) {
                segment.flags.insert(.lost)
                lostBytes += length
            }
            self[index] = segment
        }
        if isReneging { highestSacked = nil }
        if count > 0 { resendHint = self[0].start }
    }

    /// The lowest lost segment of which no copy is in flight.
    package mutating func nextLost() -> Int? {
        guard lostBytes > resentBytes else { return nil }
        var index = firstIndex(startingAtOrAfter: resendHint)
        while index < count {
            let flags = self[index].flags
            if flags.contains(.lost), !flags.contains(.resent) {
                resendHint = self[index].start
                return index
            }
            index += 1
        }
        return nil
    }

    package mutating func resent(_ index: Int, now: Instant) {
        var segment = self[index]
        if segment.flags.contains(.lost), !segment.flags.contains(.resent) { resentBytes += Int(segment.length) }
        segment.flags.formUnion([.resent, .ambiguous])
        segment.sentAt = now
        self[index] = segment
    }

    /// Cuts everything in flight anew for a smaller segment size; all of it counts as lost.
    package mutating func resegment(mss: Int) {
        guard count > 0, mss > 0 else { return }
        let start = self[0].start
        let last = self[count - 1]
        let end = last.end
        let hasFIN = last.flags.contains(.fin)
        let sentAt = self[0].sentAt
        removeAll()
        var cursor = start
        while cursor.isBefore(end) {
            let remaining = cursor.distance(to: end)
            let isLast = remaining <= mss + (hasFIN ? 1 : 0)
            let length = isLast ? remaining : mss
            append(start: cursor, length: length, sentAt: sentAt, flags: isLast && hasFIN ? [.fin, .ambiguous] : .ambiguous)
            cursor += length
        }
        markAllLost()
    }

    package mutating func removeAll() {
        unsafe slots.deallocate()
        unsafe slots = UnsafeMutablePointer<Segment>.allocate(capacity: 0)
        (capacity, head, count) = (0, 0, 0)
        (sackedBytes, lostBytes, resentBytes, totalBytes) = (0, 0, 0, 0)
        highestSacked = nil
    }

    private mutating func markLost(_ index: Int) -> Bool {
        var segment = self[index]
        guard segment.flags.isDisjoint(with: [.sacked, .lost]) else { return false }
        segment.flags.insert(.lost)
        lostBytes += Int(segment.length)
        self[index] = segment
        resendHint = SequenceNumber.earlier(resendHint, segment.start)
        return true
    }

    private func note(_ segment: Segment, length: Int, in delivery: inout Delivery) {
        guard !segment.flags.contains(.sacked) else { return }
        delivery.newlyDelivered += length
        delivery.newestSentAt = max(delivery.newestSentAt ?? segment.sentAt, segment.sentAt)
        guard !segment.flags.contains(.ambiguous) else {
            delivery.isAmbiguous = true
            return
        }
        delivery.sampleSentAt = max(delivery.sampleSentAt ?? segment.sentAt, segment.sentAt)
    }

    private mutating func forget(_ length: Int, flags: Flags) {
        totalBytes -= length
        if flags.contains(.sacked) { sackedBytes -= length }
        if flags.contains(.lost) { lostBytes -= length }
        if flags.contains(.resent) { resentBytes -= length }
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

    private mutating func grow() {
        let larger = max(8, capacity * 2)
        let memory = UnsafeMutablePointer<Segment>.allocate(capacity: larger)
        for index in 0..<count { unsafe (memory + index).initialize(to: self[index]) }
        unsafe slots.deallocate()
        unsafe slots = memory
        capacity = larger
        head = 0
    }

    /// Gives the memory back if nothing is in flight.
    package mutating func trim() {
        if count == 0 { removeAll() }
    }

    /// DupThresh of RFC 6675.
    package static let duplicateThreshold = 3
    /// 16,384 segments: 22 MB in flight at 1,368 bytes each.
    package static let maximumSegments = 16_384
}
