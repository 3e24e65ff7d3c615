import Inet

/// Initial sequence numbers and timestamp offsets that an outsider cannot guess and that rise with time for one tuple.
/// Source: RFC 9293 §3.4.1, RFC 7323 §7.1 (offset for each tuple).
package struct InitialSequence: Sendable {
    private let secret: SipHash

    package init(random: RandomSource) { secret = SipHash(random: random) }

    package func generate(local: SocketEndpoint, remote: SocketEndpoint, now: Instant) -> (iss: SequenceNumber, timestampOffset: UInt32) {
        let hash = secret.hash(local: local, remote: remote)
        let clock = UInt32(truncatingIfNeeded: now.nanoseconds / 4000)
        return (SequenceNumber(UInt32(truncatingIfNeeded: hash) &+ clock), UInt32(truncatingIfNeeded: hash >> 32))
    }
}
