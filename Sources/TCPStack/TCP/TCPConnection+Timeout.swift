import Inet

/// Timeouts: RFC 9293 §3.10.8, RFC 6298 §5.
extension TCPConnection {
    mutating func handleTimeout(now: Instant) {
        guard !state.isTerminal else {
            timers = Timers()
            return
        }
        if timers.state <= now {
            guard state.isSynchronized else { return giveUp() }
            // The peer may send for ever into a closed application: tell it.
            return abort(.finished)
        }
        if timers.retransmit <= now { retransmitTimerFired(now: now) }
        if state.isTerminal { return }
        if timers.persist <= now { persistTimedOut(now: now) }
        if timers.keepalive <= now { keepaliveTimedOut(now: now) }
        if state.isTerminal { return }
        if timers.delayedAcknowledgment <= now {
            timers.delayedAcknowledgment = .distantFuture
            pending.insert(.acknowledgment)
            flags.insert(.needsPoll)
            if flags.contains(.hasSmallSegment) {
                flags.insert(flags.contains(.acknowledgesEarly) ? .hasAcknowledgedEarly : .acknowledgesEarly)
            }
        }
        if timers.pacing <= now {
            timers.pacing = .distantFuture
            flags.insert(.needsPoll)
        }
        if timers.trim <= now { trim(now: now) }
    }

    private mutating func retransmitTimerFired(now: Instant) {
        switch timers.purpose {
        case .timeout: retransmissionTimedOut(now: now)
        case .lossProbe:
            // RFC 8985 §7.3; the timeout proper follows if the probe is not answered either.
            recovery.probe = .newData(end: snd.nxt)
            pending.insert(.lossProbe)
            flags.insert(.needsPoll)
            armRetransmit(now: now)
        case .reordering:
            timers.retransmit = .distantFuture
            timers.purpose = .timeout
            let flightBefore = flightSize
            if judgeLosses(now: now), recovery.isOpen { enterFastRecovery(flightSize: flightBefore) }
            if timers.retransmit == .distantFuture, !scoreboard.isEmpty { armRetransmit(now: now) }
        }
    }

    /// Memory that is not used goes back once the connection has been silent.
    private mutating func trim(now: Instant) {
        timers.trim = .distantFuture
        let due = max(lastHeard, lastDataSent).after(limits.bufferIdleTime)
        guard due <= now else {
            timers.trim = due
            return
        }
        sendBuffer.trim()
        rcv.trim()
        scoreboard.trim()
    }

    private mutating func retransmissionTimedOut(now: Instant) {
        timers.retransmit = .distantFuture
        switch state {
        case .synSent, .synReceived:
            guard !isPassive || rtt.backoff < Self.synAckTransmissions - 1 else { return giveUp() }
            // What drops a SYN for its ECN bits shall not cut us off (RFC 3168 §6.1.1.1).
            if !isPassive { flags.remove(.wantsECN) }
            rtt.timedOut()
            counters.timeouts &+= 1
            pending.insert(.syn)
            flags.insert(.needsPoll)
            return
        case .established, .finWait1, .finWait2, .closing, .closeWait, .lastAck, .timeWait, .closed: break
        }
        guard !scoreboard.isEmpty else { return }
        // A peer that has shut its window on what is in flight and says so is alive (RFC 9293 §3.8.6.1).
        let isAnswered = snd.wnd == 0 && now.since(lastHeard) < limits.userTimeout && !isForsaken(now: now)
        if !isAnswered, recovery.timeouts >= Self.maximumTimeouts || now.since(unackedSince) >= limits.userTimeout { return giveUp() }
        rtt.timedOut()
        counters.timeouts &+= 1
        congestion.timedOut(flightSize: flightSize, isRepeated: recovery.timeouts > 0)
        congestionMark = snd.nxt
        // A peer that answers with a shut window can make this go on for ever.
        if recovery.timeouts < .max { recovery.timeouts += 1 }
        recovery.duplicateACKs = 0
        recovery.creditedBytes = 0
        recovery.begin(.timeout(until: snd.nxt), una: snd.una)
        // RFC 8985 §6.3: what has been sent just now is not lost because the oldest is.
        let patience = max(recovery.rack.rtt, rtt.srtt ?? .zero) + (rtt.minimum ?? .zero) / 4
        let isTimed = isSACKPermitted && rtt.srtt != nil
        scoreboard.markTimedOut { !isTimed || $0.sentAt.after(patience) <= now }
        _ = mtuProbeLost()
        suspectBlackHole(now: now)
        pending.insert(.forcedRetransmission)
        pending.remove(.lossProbe)
        flags.insert(.needsPoll)
        armRetransmit(now: now)
    }

    /// The application has closed, and the peer has taken nothing for longer than anybody waits: a shut window that is held open for
    /// ever would hold memory and a place in the tables.
    private func isForsaken(now: Instant) -> Bool {
        flags.contains(.applicationClosed) && now.since(unackedSince) >= max(limits.userTimeout, Self.patienceWhenClosed)
    }

    private static let patienceWhenClosed: Interval = .seconds(600)

    /// RFC 9293 §3.8.6.1: a window that stays shut is probed for ever, as long as the peer answers.
    private mutating func persistTimedOut(now: Instant) {
        timers.persist = .distantFuture
        guard flightSize == 0, unsentText > 0 || (flags.contains(.finQueued) && !flags.contains(.finSent)) else { return }
        if unansweredProbes >= 3, now.since(lastHeard) >= limits.userTimeout { return giveUp() }
        if isForsaken(now: now) { return giveUp() }
        if snd.wnd > 0 {
            pending.insert(.smallSegment)
        } else {
            pending.insert(.windowProbe)
        }
        flags.insert(.needsPoll)
    }

    private mutating func keepaliveTimedOut(now: Instant) {
        timers.keepalive = .distantFuture
        guard let interval = limits.keepalive, state.isSynchronized else { return }
        let spacing = keepaliveSpacing(interval)
        let due = lastHeard.after(interval + spacing * Int(keepaliveProbesSent))
        if due > now {
            timers.keepalive = due
            return
        }
        if keepaliveProbesSent >= limits.keepaliveProbes { return giveUp() }
        keepaliveProbesSent += 1
        pending.insert(.keepaliveProbe)
        flags.insert(.needsPoll)
        timers.keepalive = now.after(spacing)
    }

    /// Between probes that are not answered: so that silence ends the connection with the user timeout, if that is longer than the
    /// interval (RFC 5482 §3 lets it govern keepalives too), else 75 s as in kernels.
    private func keepaliveSpacing(_ interval: Interval) -> Interval {
        guard interval < limits.userTimeout else { return min(interval, .seconds(75)) }
        let rest = Interval(nanoseconds: limits.userTimeout.nanoseconds - interval.nanoseconds)
        return max(.seconds(1), min(min(interval, .seconds(75)), rest / Int64(max(1, limits.keepaliveProbes))))
    }

    private mutating func giveUp() {
        let reason: CloseReason = flags.contains(.hasSoftError) && !state.isSynchronized ? .unreachable : .timedOut
        // RFC 9293 §3.10.8, user timeout: the peer may live and not know.
        if state.isSynchronized { flags.insert(.needsReset) }
        finish(reason)
    }

    /// Starts the retransmission timer, or in its place that of a tail loss probe. The user timeout cuts the back-off short.
    mutating func armRetransmit(now: Instant) {
        timers.purpose = .timeout
        // Far apart, tries would miss that the path is back until the user timeout strikes.
        var delay = state.isSynchronized ? min(rtt.rto, max(limits.userTimeout / 8, .seconds(1))) : rtt.rto
        if let probe = lossProbeDelay, probe < delay {
            delay = probe
            timers.purpose = .lossProbe
        }
        let due = now.after(delay)
        let limit = unackedSince.after(limits.userTimeout)
        timers.retransmit = state.isSynchronized && limit < due && limit > now ? limit : due
        if timers.retransmit < due { timers.purpose = .timeout }
    }

    /// PTO; `nil` if no probe may be sent: without SACK, in a recovery, with reported segments, or once a probe is under way.
    /// Source: RFC 8985 §7.2.
    private var lossProbeDelay: Interval? {
        guard isSACKPermitted, state.isSynchronized, recovery.isOpen, recovery.probe == .none, scoreboard.sackedCount == 0,
            recovery.timeouts == 0,
            snd.wnd > 0, let srtt = rtt.srtt
        else { return nil }
        return max(srtt * 2, Self.shortestProbeDelay) + (scoreboard.count == 1 ? Self.longestPeerDelay : .zero)
    }

    /// R2 of RFC 9293 §3.8.3: 15 retransmissions.
    static let maximumTimeouts = 15
    /// A SYN and ACK is sent six times: at 0, 1, 3, 7, 15, 31 s.
    static let synAckTransmissions = 6
    /// Shorter than timers are exact.
    private static let shortestProbeDelay: Interval = .milliseconds(2)
    /// TLP.max_ack_delay: how long a peer may hold an ACK of a single segment back. Kernels and we do so for 40 ms.
    private static let longestPeerDelay: Interval = .milliseconds(50)
}
