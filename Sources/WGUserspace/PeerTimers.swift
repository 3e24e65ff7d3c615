import Inet

/// When a peer needs attention, by the names of what happens then. `Instant.distantFuture` is "not armed".
///
/// Deadlines are stored, never durations left; whoever arms one tells the device's queue if it is the earliest.
///
/// Source: WG §6.2 to §6.5; Linux `timers.c`.
struct PeerTimers {
    /// The initiation goes out once more.
    var retransmitHandshake = off
    /// The handshake, or waiting for an endpoint to start one, is given up (REKEY-ATTEMPT-TIME).
    var giveUp = off
    /// Received data has not been answered by anything: a passive keepalive (WG §6.5).
    private(set) var passiveKeepalive = off
    /// Sent data has not been answered by anything: a new handshake (WG §6.5).
    private(set) var newHandshake = off
    var persistentKeepalive = off
    /// All keys are wiped (WG §6.3).
    var zeroing = off
    /// From the first unanswered packet to `newHandshake`; its jitter is drawn with each session, not with each packet.
    private var newHandshakeDelay = Constants.newHandshakeTimeout

    static let off = Instant.distantFuture

    /// The first of all deadlines.
    @inline(__always)
    var earliest: Instant {
        let first = min(retransmitHandshake.nanoseconds, giveUp.nanoseconds)
        let second = min(passiveKeepalive.nanoseconds, newHandshake.nanoseconds)
        let third = min(persistentKeepalive.nanoseconds, zeroing.nanoseconds)
        return Instant(nanoseconds: min(first, min(second, third)))
    }

    /// Anything authenticated left: the peer has its sign of life.
    @inline(__always)
    mutating func receiveAnsweredBySending() { passiveKeepalive = Self.off }

    /// Anything authenticated came: the session works.
    @inline(__always)
    mutating func sendAnsweredByReceiving() { newHandshake = Self.off }

    /// Data left. The wait counts from the *first* packet that is not answered.
    @inline(__always)
    mutating func dataSent(now: Instant) {
        if newHandshake == Self.off { newHandshake = now + newHandshakeDelay }
    }

    /// Data, not a keepalive, came.
    @inline(__always)
    mutating func dataReceived(now: Instant) {
        if passiveKeepalive == Self.off { passiveKeepalive = now + Constants.keepaliveTimeout }
    }

    /// New keys were derived (WG §6.3).
    mutating func sessionDerived(now: Instant, random: RandomSource) {
        zeroing = now + Constants.zeroingTime
        newHandshakeDelay.nanoseconds = Constants.newHandshakeTimeout.nanoseconds + random.jitter().nanoseconds
    }

    /// Whether `deadline` is due; it is disarmed then.
    static func fire(_ deadline: inout Instant, now: Instant) -> Bool {
        guard deadline <= now else { return false }
        deadline = off
        return true
    }

    mutating func firePassiveKeepalive(now: Instant) -> Bool { Self.fire(&passiveKeepalive, now: now) }

    mutating func fireNewHandshake(now: Instant) -> Bool { Self.fire(&newHandshake, now: now) }
}
