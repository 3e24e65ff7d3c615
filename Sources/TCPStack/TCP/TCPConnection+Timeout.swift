import Inet

/// Timeouts: RFC 9293 §3.10.8, RFC 6298 §5.
extension TCPConnection {
    mutating func handleTimeout(now: Instant) {
        guard !state.isTerminal else {
            timers = Timers()
            return
        }
        if timers.connect <= now { return giveUp() }
        if timers.finWait2 <= now {
            // The peer may send for ever into a closed application: tell it.
            return abort(.finished)
        }
        if timers.retransmit <= now { retransmissionTimedOut(now: now) }
        if state.isTerminal { return }
        if timers.persist <= now { persistTimedOut(now: now) }
        if timers.keepalive <= now { keepaliveTimedOut(now: now) }
        if state.isTerminal { return }
        if timers.delayedAcknowledgment <= now {
            timers.delayedAcknowledgment = .distantFuture
            pending.insert(.acknowledgment)
            flags.insert(.needsPoll)
        }
        if timers.trim <= now {
            timers.trim = .distantFuture
            sendBuffer.trim()
            rcv.trim()
            scoreboard.trim()
        }
    }

    private mutating func retransmissionTimedOut(now: Instant) {
        timers.retransmit = .distantFuture
        switch state {
        case .synSent, .synReceived:
            guard !isPassive || rtt.backoff < Self.synAckTransmissions - 1 else { return giveUp() }
            rtt.timedOut()
            counters.timeouts &+= 1
            pending.insert(.syn)
            flags.insert(.needsPoll)
            return
        case .established, .finWait1, .finWait2, .closing, .closeWait, .lastAck, .timeWait, .closed: break
        }
        guard !scoreboard.isEmpty else { return }
        // A peer that has shut its window on what is in flight and says so is alive (RFC 9293 §3.8.6.1).
        let isAnswered = snd.wnd == 0 && now - lastHeard < limits.userTimeout
        if !isAnswered, recovery.timeouts >= Self.maximumTimeouts || now - unackedSince >= limits.userTimeout { return giveUp() }
        rtt.timedOut()
        counters.timeouts &+= 1
        congestion.timedOut(flightSize: flightSize, isRepeated: recovery.timeouts > 0)
        recovery.timeouts += 1
        recovery.duplicateACKs = 0
        recovery.creditedBytes = 0
        recovery.phase = .timeout(until: snd.nxt)
        scoreboard.markAllLost()
        pending.insert(.forcedRetransmission)
        flags.insert(.needsPoll)
    }

    /// RFC 9293 §3.8.6.1: a window that stays shut is probed for ever, as long as the peer answers.
    private mutating func persistTimedOut(now: Instant) {
        timers.persist = .distantFuture
        guard flightSize == 0, unsentText > 0 || (flags.contains(.finQueued) && !flags.contains(.finSent)) else { return }
        if unansweredProbes >= 3, now - lastHeard >= limits.userTimeout { return giveUp() }
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
        let due = lastHeard + (keepaliveProbesSent == 0 ? interval : min(interval, .seconds(75)) * (keepaliveProbesSent + 1))
        if due > now {
            timers.keepalive = due
            return
        }
        if keepaliveProbesSent >= limits.keepaliveProbes { return giveUp() }
        keepaliveProbesSent += 1
        pending.insert(.keepaliveProbe)
        flags.insert(.needsPoll)
        timers.keepalive = now + min(interval, .seconds(75))
    }

    private mutating func giveUp() {
        let reason: CloseReason = flags.contains(.hasSoftError) && !state.isSynchronized ? .unreachable : .timedOut
        // RFC 9293 §3.10.8, user timeout: the peer may live and not know.
        if state.isSynchronized { flags.insert(.needsReset) }
        finish(reason)
    }

    /// When the retransmission timer fires: the user timeout cuts the back-off short.
    mutating func armRetransmit(now: Instant) {
        let due = now + rtt.rto
        let limit = unackedSince + limits.userTimeout
        timers.retransmit = state.isSynchronized && limit < due && limit > now ? limit : due
    }

    /// R2 of RFC 9293 §3.8.3: 15 retransmissions.
    static let maximumTimeouts = 15
    /// A SYN and ACK is sent six times: at 0, 1, 3, 7, 15, 31 s.
    static let synAckTransmissions = 6
}
