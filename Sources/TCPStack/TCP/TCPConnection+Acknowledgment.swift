import Inet

/// The ACK field: RFC 9293 §3.10.7.4, fifth; RFC 5961 §5.2; loss detection by RFC 6675 and RFC 6582.
extension TCPConnection {
    mutating func receiveAcknowledgment(
        _ header: TCPHeader, options: TCPOptions, textCount: Int, now: Instant
    ) -> SegmentOutcome {
        let ack = header.acknowledgment
        if snd.nxt.isBefore(ack) {
            answerSuspicious(hasText: textCount > 0, now: now)
            return .dropped(.badAcknowledgment)
        }
        if ack.isBefore(snd.una - snd.largestWnd) {
            answerSuspicious(hasText: false, now: now)
            return .dropped(.badAcknowledgment)
        }
        unansweredProbes = 0
        let window = Int(header.window) << Int(snd.scale)
        let windowBefore = snd.wnd
        updateSendWindow(window, sequence: header.sequence, acknowledgment: ack, now: now)
        guard snd.una.isAtOrBefore(ack) else { return .taken }

        let flightBefore = flightSize
        let acknowledged = snd.una.distance(to: ack)
        var delivery = scoreboard.acknowledge(upTo: ack)
        if isSACKPermitted {
            for index in 0..<options.sack.count { scoreboard.mark(options.sack[index], delivery: &delivery) }
        }
        if acknowledged > 0 { progress(to: ack, acknowledged: acknowledged, options: options, delivery: delivery, now: now) }
        let isDuplicate =
            acknowledged == 0 && flightBefore > 0
            && (isSACKPermitted && options.sack.count > 0
                ? delivery.newlyDelivered > 0
                : textCount == 0 && !header.flags.contains(.fin) && window == windowBefore)
        detectLoss(
            isDuplicate: isDuplicate, acknowledged: acknowledged, delivered: delivery.newlyDelivered, flightBefore: flightBefore, now: now)
        if delivery.newlyDelivered > 0 || isDuplicate { flags.insert(.needsPoll) }
        return receiveFINAcknowledgment(now: now)
    }

    private mutating func updateSendWindow(_ window: Int, sequence: SequenceNumber, acknowledgment: SequenceNumber, now: Instant) {
        guard snd.una.isAtOrBefore(acknowledgment) else { return }
        // Beyond the rule of WL1 and WL2: an ACK that advances SND.UNA always brings its window along. Text that was sent again
        // has an old sequence number and a new ACK; with the old window, counted from the new SND.UNA, we would overrun the peer.
        guard
            snd.una.isBefore(acknowledgment) || snd.wl1.isBefore(sequence)
                || (snd.wl1 == sequence && snd.wl2.isAtOrBefore(acknowledgment))
        else { return }
        if window != snd.wnd { flags.insert(.needsPoll) }
        if window > 0 {
            persistBackoff = 0
            if window != snd.wnd { timers.persist = .distantFuture }
        }
        if snd.wnd == 0, window > 0, flightSize > 0, acknowledgment == snd.una {
            // The window was shut on what is in flight: it has been dropped, and the time it took is no silence.
            unackedSince = now
            recovery.timeouts = 0
            rtt.progressedUnclearly()
            scoreboard.markAllLost()
            pending.insert(.forcedRetransmission)
            armRetransmit(now: now)
        }
        snd.wnd = window
        snd.largestWnd = max(snd.largestWnd, window)
        snd.wl1 = sequence
        snd.wl2 = acknowledgment
    }

    /// SND.UNA moves.
    private mutating func progress(
        to ack: SequenceNumber, acknowledged: Int, options: TCPOptions, delivery: SACKScoreboard.Delivery, now: Instant
    ) {
        snd.una = ack
        let text = acknowledged - (isFINAcknowledged ? 1 : 0)
        sendBuffer.dropFirst(max(0, min(text, sendBuffer.count)))
        if let sentAt = delivery.sampleSentAt, !delivery.isAmbiguous {
            rtt.sample(now - sentAt)
        } else if hasTimestamps, let roundTrip = timestampRoundTrip(options, now: now), let newest = delivery.newestSentAt,
            roundTrip <= now - newest + .milliseconds(2)
        {
            // An older echo may tell of a copy whose ACK was lost.
            rtt.sample(roundTrip)
        } else {
            rtt.progressedUnclearly()
        }
        recovery.progressed()
        unackedSince = now
        if snd.una == snd.nxt {
            timers.retransmit = .distantFuture
            if sendBuffer.count == 0 { armTrim(now: now) }
        } else {
            armRetransmit(now: now)
        }
        if flags.contains(.wantsWritable), sendBuffer.room >= sendBuffer.limit / 2 {
            flags.remove(.wantsWritable)
            events.insert(.writable)
        }
        flags.insert(.needsPoll)
    }

    private mutating func detectLoss(isDuplicate: Bool, acknowledged: Int, delivered: Int, flightBefore: Int, now: Instant) {
        let mss = effectiveMSS
        if isDuplicate {
            recovery.duplicateACKs += 1
            // After a timeout duplicates answer the copies, which are counted already.
            if !isSACKPermitted, !recovery.isAfterTimeout {
                recovery.creditedBytes = min(recovery.creditedBytes + mss, max(0, flightSize - mss))
            }
        }
        let hasNewLoss = isSACKPermitted && scoreboard.judgeLosses()
        switch recovery.phase {
        case .open:
            if hasNewLoss || recovery.duplicateACKs >= SACKScoreboard.duplicateThreshold {
                if !hasNewLoss { _ = scoreboard.markFirstLost() }
                recovery.phase = .fast(until: snd.nxt)
                congestion.lossDetected(flightSize: flightBefore)
                pending.insert(.forcedRetransmission)
            } else {
                if acknowledged > 0 { recovery.creditedBytes = 0 }
                grow(by: acknowledged, afterTimeout: false, flightBefore: flightBefore, now: now)
            }
        case .fast(let until):
            if until.isAtOrBefore(snd.una) {
                recovery.phase = .open
                recovery.creditedBytes = 0
            } else if acknowledged > 0 {
                // A partial ACK: the next hole begins here (RFC 6582 §3.2; with SACK it spares the timeout of RFC 6675's last holes).
                recovery.creditedBytes = max(0, recovery.creditedBytes - acknowledged + mss)
                if scoreboard.markFirstLost() { pending.insert(.forcedRetransmission) }
            }
        case .timeout(let until):
            if until.isAtOrBefore(snd.una) {
                recovery.phase = .open
                recovery.creditedBytes = 0
            }
            grow(by: acknowledged, afterTimeout: true, flightBefore: max(flightBefore, congestion.cwnd), now: now)
        }
    }

    /// The window grows only while it is what holds us back.
    private mutating func grow(by acknowledged: Int, afterTimeout: Bool, flightBefore: Int, now: Instant) {
        guard acknowledged > 0 else { return }
        let isUsed = flags.contains(.isCwndLimited) || (congestion.isInSlowStart && flightBefore * 2 >= congestion.cwnd)
        guard isUsed || afterTimeout else { return }
        congestion.acknowledged(acknowledged, afterTimeout: afterTimeout, now: now, srtt: rtt.srtt ?? .milliseconds(100))
    }

    private mutating func receiveFINAcknowledgment(now: Instant) -> SegmentOutcome {
        guard isFINAcknowledged else { return .taken }
        switch state {
        case .finWait1:
            state = .finWait2
            if flags.contains(.applicationClosed) { timers.finWait2 = now + limits.finWait2 }
        case .closing: enterTimeWait()
        case .lastAck: finish(.finished)
        case .synSent, .synReceived, .established, .finWait2, .closeWait, .timeWait, .closed: break
        }
        return .taken
    }

    // MARK: ICMP

    /// An ICMP error that quotes `sequence` of ours.
    /// - Returns: whether the quoted segment is in flight; if not, nothing has been believed (RFC 5927 §4).
    mutating func receiveICMPError(_ error: ICMPMessage.TransportError, sequence: SequenceNumber, now: Instant) -> Bool {
        guard sequence.lies(from: snd.una, count: flightSize) else { return false }
        switch error {
        case .unreachable:
            // RFC 1122 §4.2.3.9, RFC 5461: fatal before, a hint after the connection is established.
            if state == .synSent { finish(.unreachable) } else { flags.insert(.hasSoftError) }
        case .soft: flags.insert(.hasSoftError)
        case .packetTooBig(let mtu):
            let floor = local.address.family == .v4 ? Self.smallestPathMTUv4 : Self.smallestPathMTUv6
            let believed = max(mtu, floor)
            guard believed < pathMTU else { return true }
            let mssBefore = effectiveMSS
            pathMTU = believed
            guard effectiveMSS < mssBefore else { return true }
            congestion.setMSS(effectiveMSS, isFresh: false)
            guard state.isSynchronized else { return true }
            scoreboard.resegment(mss: effectiveMSS)
            pending.insert(.forcedRetransmission)
            flags.insert(.needsPoll)
        }
        return true
    }

    /// 552: what Linux takes as the least path MTU; anything lower only serves attackers.
    static let smallestPathMTUv4 = 552
    static let smallestPathMTUv6 = 1280
}
