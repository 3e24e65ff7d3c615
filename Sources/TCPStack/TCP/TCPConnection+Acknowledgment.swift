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
        let echo = echoedMillisecond(options)
        var delivery = Delivery(now: now, echo: echo, minimumRTT: rtt.minimum ?? .zero)
        scoreboard.acknowledge(upTo: ack, delivery: &delivery)
        let dsack = isSACKPermitted ? duplicateReport(options.sack, ack: ack) : nil
        if isSACKPermitted {
            var index = dsack == nil ? 0 : 1
            while index < options.sack.count {
                scoreboard.mark(options.sack[index], delivery: &delivery)
                index += 1
            }
        }
        let sample = acknowledged > 0 ? progress(to: ack, acknowledged: acknowledged, options: options, delivery: delivery, now: now) : nil
        if delivery.hasMTUProbe { mtuProbeArrived() }
        if header.flags.contains(.ece) { receiveCongestionEcho(flightSize: flightBefore) }
        let isDuplicate =
            acknowledged == 0 && flightBefore > 0
            && (isSACKPermitted && options.sack.count > 0
                ? delivery.newlyDelivered > 0
                : textCount == 0 && !header.flags.contains(.fin) && window == windowBefore)
        endLossProbe(ack: ack, dsack: dsack, isPlainDuplicate: isDuplicate && options.sack.count == 0, flightBefore: flightBefore)
        if isSACKPermitted { recovery.rack.update(delivery, now: now) }
        let isTakenBack = takeBackInVain(echo: acknowledged > 0 ? echo : nil, hasProgress: acknowledged > 0, dsack: dsack, now: now)
        detectLoss(
            isDuplicate: isDuplicate, judges: !isTakenBack, acknowledged: acknowledged, flightBefore: flightBefore, sample: sample, now: now
        )
        if delivery.newlyDelivered > 0 || isDuplicate { flags.insert(.needsPoll) }
        let outcome = receiveFINAcknowledgment(now: now)
        if acknowledged > 0 { abortIfAcknowledged() }
        return outcome
    }

    /// The first block if it reports a duplicate: below the ACK, or inside the second block (RFC 2883 §4).
    private func duplicateReport(_ blocks: SACKBlocks, ack: SequenceNumber) -> SequenceRange? {
        guard blocks.count > 0 else { return nil }
        let first = blocks[0]
        if first.end.isAtOrBefore(ack) { return first }
        guard blocks.count > 1, blocks[1].start.isAtOrBefore(first.start), first.end.isAtOrBefore(blocks[1].end) else { return nil }
        return first
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
        if snd.wnd == 0, window > 0, flightSize > 0, acknowledgment == snd.una, recovery.timeouts > 0 {
            // The window was shut on what is in flight: it has been dropped, and the time it took is no silence.
            unackedSince = now
            recovery.timeouts = 0
            rtt.progressedUnclearly()
            scoreboard.markAllLost()
            _ = mtuProbeLost()
            pending.insert(.forcedRetransmission)
            armRetransmit(now: now)
        }
        snd.wnd = window
        snd.largestWnd = max(snd.largestWnd, window)
        snd.wl1 = sequence
        snd.wl2 = acknowledgment
    }

    /// SND.UNA moves.
    /// - Returns: the round trip, if one was measured.
    private mutating func progress(
        to ack: SequenceNumber, acknowledged: Int, options: TCPOptions, delivery: Delivery, now: Instant
    ) -> Interval? {
        snd.una = ack
        // It must not fall so far behind that it seems to lie ahead.
        if congestionMark.isBefore(ack) { congestionMark = ack }
        let text = acknowledged - (isFINAcknowledged ? 1 : 0)
        sendBuffer.dropFirst(max(0, min(text, sendBuffer.count)))
        var sample: Interval?
        if let sentAt = delivery.sampleSentAt, !delivery.isAmbiguous {
            sample = now.since(sentAt)
        } else if hasTimestamps, let roundTrip = timestampRoundTrip(options, now: now), let newest = delivery.newestSentAt,
            roundTrip <= now.since(newest) + Interval.milliseconds(2)
        {
            // An older echo may tell of a copy whose ACK was lost.
            sample = roundTrip
        }
        if let sample { rtt.sample(sample) } else { rtt.progressedUnclearly() }
        recovery.progressed()
        unackedSince = now
        if snd.una == snd.nxt {
            timers.retransmit = .distantFuture
        } else {
            armRetransmit(now: now)
        }
        if flags.contains(.wantsWritable), sendBuffer.room >= min(sendBuffer.limit / 2, Self.worthwhileRoom) {
            flags.remove(.wantsWritable)
            events.insert(.writable)
        }
        armTrim(now: now)
        flags.insert(.needsPoll)
        return sample
    }

    private mutating func detectLoss(
        isDuplicate: Bool, judges: Bool, acknowledged: Int, flightBefore: Int, sample: Interval?, now: Instant
    ) {
        let mss = effectiveMSS
        if isDuplicate {
            recovery.duplicateACKs += 1
            // After a timeout duplicates answer the copies, which are counted already.
            if !isSACKPermitted, !recovery.isAfterTimeout {
                recovery.creditedBytes = min(recovery.creditedBytes + mss, max(0, flightSize - mss))
            }
        }
        let hasNewLoss = isSACKPermitted && judges && judgeLosses(now: now)
        switch recovery.phase {
        case .open:
            if hasNewLoss || (!isSACKPermitted && recovery.duplicateACKs >= RACK.duplicateThreshold) {
                if !hasNewLoss {
                    _ = scoreboard.markFirstLost()
                    _ = mtuProbeLost()
                }
                enterFastRecovery(flightSize: flightBefore)
            } else {
                if acknowledged > 0 { recovery.creditedBytes = 0 }
                grow(by: acknowledged, afterTimeout: false, flightBefore: flightBefore, sample: sample, now: now)
            }
        case .fast(let until):
            if until.isAtOrBefore(snd.una) {
                recovery.end()
                if timers.purpose != .reordering { armRetransmitIfNeeded(now: now) }
            } else if acknowledged > 0, !isSACKPermitted {
                // A partial ACK: the next hole begins here (RFC 6582 §3.2).
                recovery.creditedBytes = max(0, recovery.creditedBytes - acknowledged + mss)
                if scoreboard.markFirstLost() { pending.insert(.forcedRetransmission) }
                _ = mtuProbeLost()
            }
        case .timeout(let until):
            if until.isAtOrBefore(snd.una) { recovery.end() }
            grow(by: acknowledged, afterTimeout: true, flightBefore: max(flightBefore, congestion.cwnd), sample: sample, now: now)
        }
    }

    /// RFC 8985 §6.2, step 5. What is not certain yet is looked at again when its time is up.
    /// - Returns: whether the loss of ordinary data has been found.
    mutating func judgeLosses(now: Instant) -> Bool {
        let window = recovery.rack.window(
            isRecovering: !recovery.isOpen, sackedSegments: scoreboard.sackedCount, minimumRTT: rtt.minimum ?? .zero,
            srtt: rtt.srtt ?? .zero)
        let (lost, hasMore) = scoreboard.judgeLosses(recovery.rack, window: window, now: now)
        let deadline = max(recovery.rack.deadline(window: window), now.after(.microseconds(1)))
        if hasMore, deadline < timers.retransmit {
            timers.retransmit = deadline
            timers.purpose = .reordering
        }
        guard lost > 0 else { return false }
        flags.insert(.needsPoll)
        return lost > mtuProbeLost()
    }

    mutating func enterFastRecovery(flightSize: Int) {
        recovery.begin(.fast(until: snd.nxt), una: snd.una)
        congestion.reduce(flightSize: flightSize)
        congestionMark = snd.nxt
        pending.insert(.forcedRetransmission)
    }

    /// RFC 8985 §7.4.
    private mutating func endLossProbe(ack: SequenceNumber, dsack: SequenceRange?, isPlainDuplicate: Bool, flightBefore: Int) {
        switch recovery.probe {
        case .none: return
        case .newData(let end): if end.isAtOrBefore(ack) { recovery.probe = .none }
        case .retransmission(let end):
            guard end.isAtOrBefore(ack) else { return }
            if let dsack, dsack.end == end {
                recovery.probe = .none
            } else if end.isBefore(ack) {
                // The probe has repaired a loss: the network is congested all the same.
                recovery.probe = .none
                if recovery.isOpen {
                    congestion.reduce(flightSize: flightBefore)
                    recovery.settle()
                }
            } else if isPlainDuplicate {
                recovery.probe = .none
            }
        }
    }

    /// RFC 4015: what was done for a loss that was none is taken back.
    private mutating func takeBackInVain(echo: UInt32?, hasProgress: Bool, dsack: SequenceRange?, now: Instant) -> Bool {
        if dsack != nil { recovery.rack.receiveDSACK(una: snd.una, nxt: snd.nxt) }
        let isInVain =
            (hasProgress && recovery.isDisproved(byEcho: echo)) || (dsack.map { recovery.isDisproved(byDSACK: $0) } ?? false)
        guard isInVain else { return false }
        congestion.takeBack()
        scoreboard.takeBackLosses()
        if recovery.isAfterTimeout { rtt.tookBackTimeout() }
        recovery.takeBack()
        pending.remove(.forcedRetransmission)
        armRetransmitIfNeeded(now: now)
        return true
    }

    private mutating func armRetransmitIfNeeded(now: Instant) {
        if snd.una != snd.nxt { armRetransmit(now: now) }
    }

    /// RFC 3168 §6.1.2: the network has marked a packet instead of dropping it.
    private mutating func receiveCongestionEcho(flightSize: Int) {
        guard flags.contains(.hasECN), recovery.isOpen, congestionMark.isAtOrBefore(snd.una) else { return }
        congestion.reduce(flightSize: max(flightSize, 2 * effectiveMSS))
        recovery.settle()
        congestionMark = snd.nxt
        flags.insert(.reducedWindow)
    }

    /// Room in a large send buffer that the application is told of: half of it would be half of what is in flight.
    private static let worthwhileRoom = 256 * 1024

    /// The window grows only while it is what holds us back.
    private mutating func grow(by acknowledged: Int, afterTimeout: Bool, flightBefore: Int, sample: Interval?, now: Instant) {
        guard acknowledged > 0 else { return }
        let isUsed = flags.contains(.isCwndLimited) || (congestion.isInSlowStart && flightBefore * 2 >= congestion.cwnd)
        guard isUsed || afterTimeout else { return }
        congestion.acknowledged(
            acknowledged, afterTimeout: afterTimeout, una: snd.una, nxt: snd.nxt, rtt: sample, now: now,
            srtt: rtt.srtt ?? .milliseconds(100))
    }

    private mutating func receiveFINAcknowledgment(now: Instant) -> SegmentOutcome {
        guard isFINAcknowledged else { return .taken }
        switch state {
        case .finWait1:
            state = .finWait2
            if flags.contains(.applicationClosed) { timers.state = now.after(limits.finWait2) }
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
            guard pathMTU.receiveTooBig(mtu, floor: smallestPathMTU, now: now) else { return true }
            pathMTUFell(now: now)
        }
        return true
    }
}
