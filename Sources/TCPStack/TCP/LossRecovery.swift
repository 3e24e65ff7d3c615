/// Which recovery a sender is in.
///
/// ```
///  open ──three reports──► fast(until:) ──ACK at or behind `until`──► open
///    └──────RTO──────► timeout(until:) ──────────────┘
/// ```
/// Source: RFC 6675 §5, RFC 6582 §3.2, RFC 5681 §3.1. RACK-TLP (RFC 8985) is not done here.
package struct LossRecovery: Sendable {
    package enum Phase: Sendable, Equatable {
        case open
        /// Fast recovery, until RecoveryPoint is acknowledged.
        case fast(until: SequenceNumber)
        /// After a retransmission timeout.
        case timeout(until: SequenceNumber)
    }

    package var phase = Phase.open
    /// Duplicate ACKs in a row.
    package var duplicateACKs = 0
    /// Without SACK: bytes that duplicate ACKs say have left the network.
    package var creditedBytes = 0
    /// Timeouts in a row without progress.
    package var timeouts = 0

    package init() {}

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
}
