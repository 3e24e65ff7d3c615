/// Which bytes behind RCV.NXT have arrived. The bytes themselves lie at their place in the receive ring.
/// Sorted, disjoint, never touching each other; bounded by `maximumRanges`. The first copy of a byte wins.
package struct Reassembler: Sendable {
    private var ranges: [SequenceRange] = []
    /// The newest arrivals, newest first: the order of SACK blocks (RFC 2018 §4).
    private var recent = InlineArray<4, SequenceNumber>(repeating: SequenceNumber(0))
    private var recentCount = 0

    package init() {}

    package var isEmpty: Bool { ranges.isEmpty }
    package var count: Int { ranges.count }

    /// All ranges, in sequence order.
    package var all: [SequenceRange] { ranges }

    /// Bytes held.
    package private(set) var byteCount = 0

    /// The end of the last range.
    package var end: SequenceNumber? { ranges.last?.end }

    /// The first stretch of `range` that has not arrived yet.
    package func firstGap(in range: SequenceRange) -> SequenceRange? {
        var cursor = range.start
        var index = firstIndex(endingAfter: cursor)
        while cursor.isBefore(range.end) {
            guard index < ranges.count else { return SequenceRange(cursor, range.end) }
            let held = ranges[index]
            if cursor.isBefore(held.start) {
                return SequenceRange(cursor, SequenceNumber.earlier(held.start, range.end))
            }
            cursor = held.end
            index += 1
        }
        return nil
    }

    /// Whether every byte of `range` is here already.
    package func covers(_ range: SequenceRange) -> Bool { firstGap(in: range) == nil }

    /// Records `range` as arrived.
    /// - Returns: `false`, with nothing changed, if that would take one range more than `maximumRanges`.
    package mutating func insert(_ range: SequenceRange) -> Bool {
        guard !range.isEmpty else { return true }
        var merged = range
        // Ranges that overlap or touch `range` are replaced by their union.
        var first = firstIndex(endingAfter: range.start)
        if first > 0, ranges[first - 1].end == range.start { first -= 1 }
        var last = first
        while last < ranges.count, ranges[last].start.isAtOrBefore(merged.end) {
            merged.start = SequenceNumber.earlier(merged.start, ranges[last].start)
            merged.end = SequenceNumber.later(merged.end, ranges[last].end)
            last += 1
        }
        if first == last {
            guard ranges.count < Self.maximumRanges else { return false }
            ranges.insert(merged, at: first)
            byteCount += merged.count
        } else {
            for index in first..<last { byteCount -= ranges[index].count }
            byteCount += merged.count
            ranges[first] = merged
            if last - first > 1 { ranges.removeSubrange((first + 1)..<last) }
        }
        remember(range.start)
        return true
    }

    /// Whether `insert` will not refuse: there is room for one more range, or `range` touches one that is here.
    package func hasRoom(for range: SequenceRange) -> Bool {
        if ranges.count < Self.maximumRanges { return true }
        let index = firstIndex(endingAfter: range.start - 1)
        return index < ranges.count && ranges[index].start.isAtOrBefore(range.end)
    }

    /// Takes away what has become contiguous with `next`.
    /// - Returns: the new RCV.NXT.
    package mutating func advance(from next: SequenceNumber) -> SequenceNumber {
        var next = next
        var consumed = 0
        while consumed < ranges.count, ranges[consumed].start.isAtOrBefore(next) {
            next = SequenceNumber.later(next, ranges[consumed].end)
            byteCount -= ranges[consumed].count
            consumed += 1
        }
        if consumed > 0 { ranges.removeFirst(consumed) }
        if ranges.isEmpty { recentCount = 0 }
        return next
    }

    package mutating func removeAll() {
        ranges = []
        recentCount = 0
        byteCount = 0
    }

    /// Adds the blocks to report to `blocks`, that of the newest arrival first, until it holds `limit` blocks.
    package func appendBlocks(to blocks: inout SACKBlocks, limit: Int) {
        for position in 0..<recentCount {
            guard blocks.count < limit else { return }
            let index = firstIndex(endingAfter: recent[position])
            guard index < ranges.count, ranges[index].contains(recent[position]), !blocks.contains(ranges[index]) else { continue }
            blocks.append(ranges[index])
        }
        for range in ranges where blocks.count < limit && !blocks.contains(range) { blocks.append(range) }
    }

    private mutating func remember(_ number: SequenceNumber) {
        // An entry of the same range gives way, so that four entries name four ranges.
        let home = firstIndex(endingAfter: number)
        var position = 0
        while position < recentCount {
            if home < ranges.count, ranges[home].contains(recent[position]) { break }
            position += 1
        }
        if position == recentCount, recentCount < 4 { recentCount += 1 }
        position = min(position, 3)
        while position > 0 {
            recent[position] = recent[position - 1]
            position -= 1
        }
        recent[0] = number
    }

    private func firstIndex(endingAfter number: SequenceNumber) -> Int {
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if number.isBefore(ranges[middle].end) { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// 256 holes: more come only from an attacker or a link that is beyond help.
    package static let maximumRanges = 256
}
