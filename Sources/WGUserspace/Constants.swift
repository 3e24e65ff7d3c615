import Inet

/// The protocol's numbers, by the words of the standard.
///
/// Source: WG §6.1 unless a line names another; Linux `drivers/net/wireguard/messages.h`.
package enum Constants {
    /// WG §6.1 REKEY-AFTER-MESSAGES: the sender asks for new keys.
    package static let rekeyAfterMessages: UInt64 = 1 << 60
    /// WG §6.1 REJECT-AFTER-MESSAGES: no counter from here on is sent or accepted.
    package static let rejectAfterMessages = UInt64.max - (1 << 13)
    /// WG §6.1 REKEY-AFTER-TIME: the initiator asks for new keys when it sends.
    package static let rekeyAfterTime = Interval.seconds(120)
    /// WG §6.1 REJECT-AFTER-TIME: a key is neither sealed nor opened with any more.
    package static let rejectAfterTime = Interval.seconds(180)
    /// WG §6.1 REKEY-ATTEMPT-TIME: a handshake that nobody answered for so long is given up.
    package static let rekeyAttemptTime = Interval.seconds(90)
    /// WG §6.1 REKEY-TIMEOUT: an initiation is repeated no sooner.
    package static let rekeyTimeout = Interval.seconds(5)
    /// Linux MAX_JITTER: half a third of a second at most is added to `rekeyTimeout`, so that two sides do not stay in step.
    package static let maximumJitter = Interval.milliseconds(333)
    /// WG §6.1 KEEPALIVE-TIMEOUT: received data is answered by something after so long.
    package static let keepaliveTimeout = Interval.seconds(10)
    /// WG §6.2: the initiator asks for new keys when it receives so shortly before the end.
    package static let rekeyOnReceiveAfterTime = Interval.seconds(180 - 10 - 5)
    /// WG §6.5: data that nobody answered for so long means that the session is gone.
    package static let newHandshakeTimeout = Interval.seconds(10 + 5)
    /// WG §6.3: all keys are wiped three REJECT-AFTER-TIME after the last new one.
    package static let zeroingTime = Interval.seconds(3 * 180)
    /// Linux INITIATIONS_PER_SECOND (50): a peer's initiations are accepted no closer together.
    package static let initiationInterval = Interval.milliseconds(20)
    /// WG §6.6 (cookies are made from a secret of two minutes): a received cookie is used for so long.
    package static let cookieLifetime = Interval.seconds(120)
    /// WG §5.4.7: the responder's cookie secret changes every two minutes.
    package static let cookieSecretLifetime = Interval.seconds(120)
    /// How long a sign of load counts.
    package static let underLoadTime = Interval.seconds(1)
    /// A timestamp that is farther ahead of our clock is a wrong clock's; it is warned of.
    package static let farAheadSeconds: UInt64 = 24 * 3600
    /// Cookie replies that wait to be sent; a sender that gets none asks again in 5 s.
    package static let maximumCookieReplies = 512
    /// Initiations between two loops of an interface that wait to be given to the other one, or to be answered there.
    package static let maximumHandedInitiations = 512
    /// WG §5.4.6: the inner packet is padded to a multiple of this.
    package static let paddingMultiple = 16
    /// Events that wait to be polled; what comes then is lost and counted.
    package static let maximumEvents = 4096
}

/// A span of time in whole nanoseconds. Adding a `Duration` to an `Instant` divides 128-bit numbers, which the packet path need not.
package struct Interval: Hashable, Comparable, Sendable {
    package var nanoseconds: UInt64

    package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// Negative durations are zero.
    package init(_ duration: Duration) { nanoseconds = UInt64(clamping: duration.inNanoseconds) }

    package static func seconds(_ count: UInt64) -> Interval { Interval(nanoseconds: count &* 1_000_000_000) }
    package static func milliseconds(_ count: UInt64) -> Interval { Interval(nanoseconds: count &* 1_000_000) }

    package var duration: Duration { .nanoseconds(Int64(clamping: nanoseconds)) }

    package static func < (left: Interval, right: Interval) -> Bool { left.nanoseconds < right.nanoseconds }
}

extension Instant {
    /// `interval` later; saturates.
    package static func + (instant: Instant, interval: Interval) -> Instant {
        let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(interval.nanoseconds)
        return Instant(nanoseconds: overflow ? .max : sum)
    }
}

extension RandomSource {
    /// A span drawn uniformly from zero to ``Constants/maximumJitter``.
    func jitter() -> Interval { Interval(nanoseconds: next(below: Constants.maximumJitter.nanoseconds + 1)) }
}
