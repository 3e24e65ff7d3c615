import Inet

/// Which recovery a sender is in, and what it takes to find that it was in vain.
///
/// ```
///  open ──RACK, three duplicates──► fast(until:) ──ACK at or behind `until`──► open
///    └──────────────RTO───────────► timeout(until:) ────────────┘
///              either ──the original has arrived after all──► open, as it was before
/// ```
/// Source: RFC 6675 §5, RFC 6582 §3.2, RFC 5681 §3.1, RFC 8985 §7 (tail loss probe), RFC 3522 and RFC 3708 (spurious).
package struct LossRecovery: Sendable {
    package enum Phase: Sendable, Equatable {
        case open
        /// Fast recovery, until RecoveryPoint is acknowledged.
        case fast(until: SequenceNumber)
        /// After a retransmission timeout.
        case timeout(until: SequenceNumber)
    }

    /// TLP.end_seq and TLP.is_retrans.
    package enum LossProbe: Sendable, Equatable {
        case none
        case newData(end: SequenceNumber)
        case retransmission(end: SequenceNumber)
    }

    package private(set) var phase = Phase.open
    package var rack = RACK()
    package var probe = LossProbe.none
    /// Duplicate ACKs in a row.
    package var duplicateACKs = 0
    /// Without SACK: bytes that duplicate ACKs say have left the network.
    package var creditedBytes = 0
    /// Timeouts in a row without progress.
    package var timeouts: UInt8 = 0

    // What it takes to find that a recovery was in vain. It may turn out after its end.
    private var undoMark = SequenceNumber(0)
    /// Copies sent, less the D-SACKs that came for them.
    private var unclaimedCopies: UInt16 = 0
    /// The timestamp of the first copy, in milliseconds of our clock.
    private var firstCopy: UInt32 = 0
    private var canUndo = false
    private var awaitsEcho = false

    package init() {}

    package var isOpen: Bool { phase == .open }

    package var isAfterTimeout: Bool {
        switch phase {
        case .open, .fast: false
        case .timeout: true
        }
    }

    package mutating func progressed() {
        duplicateACKs = 0
        timeouts = 0
    }

    package mutating func begin(_ phase: Phase, una: SequenceNumber) {
        if isOpen {
            undoMark = una
            unclaimedCopies = 0
            canUndo = true
            awaitsEcho = false
        }
        self.phase = phase
        probe = .none
    }

    package mutating func end() {
        phase = .open
        creditedBytes = 0
        awaitsEcho = false
        rack.recovered()
    }

    /// A lost segment is sent again.
    package mutating func resent(now: Instant) {
        guard canUndo, !isOpen else { return }
        if unclaimedCopies == 0 {
            firstCopy = UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000)
            awaitsEcho = true
        }
        if unclaimedCopies == .max { canUndo = false } else { unclaimedCopies += 1 }
    }

    /// SND.UNA has moved in a recovery: the first such ACK tells by its echo which copy it answers.
    /// - Parameter echo: in milliseconds of our clock.
    /// - Returns: whether the recovery was in vain, since the original had not been lost (RFC 3522 §3.2).
    package mutating func isDisproved(byEcho echo: UInt32?) -> Bool {
        guard awaitsEcho else { return false }
        awaitsEcho = false
        guard let echo, Int32(bitPattern: echo &- firstCopy) < 0 else { return false }
        return true
    }

    /// A D-SACK: a copy has arrived in vain.
    /// - Returns: whether that holds for all that were sent in the last recovery (RFC 3708 §3).
    package mutating func isDisproved(byDSACK block: SequenceRange) -> Bool {
        guard canUndo, unclaimedCopies > 0, undoMark.isAtOrBefore(block.start) else { return false }
        unclaimedCopies -= 1
        return unclaimedCopies == 0
    }

    /// The window has been reduced for another reason: what was before it is no longer to be had back.
    package mutating func settle() { canUndo = false }

    /// The recovery was in vain and has been taken back.
    package mutating func takeBack() {
        if !isOpen { end() }
        canUndo = false
        duplicateACKs = 0
        timeouts = 0
    }
}
