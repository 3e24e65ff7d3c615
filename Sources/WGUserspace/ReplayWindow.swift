/// Which counters of a session have been received: each is accepted once, and none that is too far behind the highest.
///
/// A ring of bits, moved a word at a time, so that advancing clears whole words instead of shifting; one word of the ring
/// is always partly used, which is why 8,128 of the 8,192 bits count.
///
/// Source: RFC 6479; WG §5.4.6.
@safe package struct ReplayWindow: ~Copyable, @unchecked Sendable {
    /// 8,192 bits.
    package static let bitCount = 8192
    /// 8,128: how far behind the highest a counter may be.
    package static let usableBitCount = UInt64(bitCount - UInt64.bitWidth)

    private var highest: UInt64 = 0
    /// `wordCount` words that the value owns alone: kilobytes that shall not move with the session.
    private let words: UnsafeMutablePointer<UInt64>

    package init() {
        unsafe words = .allocate(capacity: Self.wordCount)
        unsafe words.initialize(repeating: 0, count: Self.wordCount)
    }

    deinit { unsafe words.deallocate() }

    /// Marks `counter`, which must be authentic and below REJECT-AFTER-MESSAGES.
    ///
    /// - Returns: `false` if it was marked before or is too old.
    package mutating func accept(_ counter: UInt64) -> Bool {
        let word = counter >> 6
        if counter > highest {
            let current = highest >> 6
            let passed = min(word &- current, UInt64(Self.wordCount))
            var step: UInt64 = 0
            while step < passed {
                step &+= 1
                // The mask is the proof of the bounds, here and below.
                unsafe words[Int((current &+ step) & Self.wordMask)] = 0
            }
            highest = counter
        } else if highest &- counter > Self.usableBitCount {
            return false
        }
        let slot = Int(word & Self.wordMask)
        let bit: UInt64 = 1 << (counter & 63)
        guard unsafe words[slot] & bit == 0 else { return false }
        unsafe words[slot] |= bit
        return true
    }

    private static let wordCount = bitCount / UInt64.bitWidth
    private static let wordMask = UInt64(wordCount - 1)
}
