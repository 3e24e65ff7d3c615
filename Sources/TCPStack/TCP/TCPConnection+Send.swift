import Inet

/// What leaves: one segment a call, in the order SYN, lost segments, new data and FIN, probes, a bare ACK.
extension TCPConnection {
    /// Writes the next IP packet at `offset`.
    /// - Returns: its range, or `nil` if nothing can leave now.
    mutating func pollTransmit(into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int>? {
        switch state {
        case .closed, .timeWait: return nil
        case .synSent, .synReceived:
            if pending.contains(.syn) { return sendSYN(into: &packet, at: offset, now: now) }
            if state == .synReceived, pending.contains(.acknowledgment) { return sendACK(into: &packet, at: offset, now: now) }
            return nil
        case .established, .finWait1, .finWait2, .closing, .closeWait, .lastAck: break
        }
        if let range = retransmit(into: &packet, at: offset, now: now) { return range }
        if pending.contains(.lossProbe), let range = sendLossProbe(into: &packet, at: offset, now: now) { return range }
        if let range = sendNew(into: &packet, at: offset, now: now) { return range }
        if pending.contains(.windowProbe) { return sendWindowProbe(into: &packet, at: offset, now: now) }
        if pending.contains(.keepaliveProbe) {
            pending.remove(.keepaliveProbe)
            return emit(
                into: &packet, at: offset, sequence: snd.nxt - 1, flags: .ack, textOffset: 0, textCount: 0,
                options: segmentOptions(room: 40, now: now))
        }
        if pending.contains(.acknowledgment) { return sendACK(into: &packet, at: offset, now: now) }
        let unacknowledged = lastAcknowledgmentSent.distance(to: rcv.nxt)
        if unacknowledged >= 2 * largestTextReceived { return sendACK(into: &packet, at: offset, now: now) }
        if unacknowledged > 0 {
            let isEarly = flags.isSuperset(of: [.acknowledgesEarly, .hasSmallSegment])
            let delay = isEarly ? min(Self.shortDelay, limits.delayedAcknowledgment) : limits.delayedAcknowledgment
            timers.delayedAcknowledgment = min(timers.delayedAcknowledgment, now.after(delay))
        }
        return nil
    }

    /// How long the ACK of a small segment waits for company as long as nothing is known of the peer. Where it proves needless, the
    /// full delay holds from then on; where the full delay was needed, the short one.
    private static let shortDelay: Interval = .milliseconds(2)

    /// What left last measures no round trip.
    mutating func packetWasHeldBack() {
        if state.isSynchronized { scoreboard.spoilSample() } else { flags.insert(.hasSpoiltSample) }
    }

    /// The last ACK of a connection that has just entered TIME-WAIT, or the reset of one that was aborted.
    mutating func writeLastSegment(into packet: inout MutableRawSpan, at offset: Int, now: Instant, isReset: Bool) -> Range<Int> {
        emit(
            into: &packet, at: offset, sequence: snd.nxt, flags: isReset ? [.rst, .ack] : .ack, textOffset: 0, textCount: 0,
            options: isReset ? TCPOptions() : segmentOptions(room: 40, now: now))
    }

    private mutating func sendSYN(into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int> {
        pending.remove(.syn)
        var options = TCPOptions()
        let isAnswer = state == .synReceived
        // RFC 9293 §3.7.1: the MSS option counts the fixed headers only.
        options.maximumSegmentSize = UInt16(clamping: interfaceMTU - headerLength)
        if !isAnswer || isScalingNegotiated {
            options.windowScale = Self.windowScale(for: rcv.maximum)
        }
        options.isSACKPermitted = !isAnswer || isSACKPermitted
        if !isAnswer || hasTimestamps { options.timestamps = .init(value: timestamp(now), echoReply: isAnswer ? tsRecent : 0) }
        if synTransmissions < .max { synTransmissions += 1 }
        if synTransmissions > 1 { counters.retransmittedSegments &+= 1 }
        snd.nxt = snd.iss + 1
        lastDataSent = now
        if synTransmissions == 1 { unackedSince = now }
        armRetransmit(now: now)
        var segmentFlags: TCPFlags = isAnswer ? [.syn, .ack] : .syn
        // RFC 3168 §6.1.1: both bits ask, ECE alone agrees.
        if flags.contains(.wantsECN) { segmentFlags.formUnion(isAnswer ? .ece : [.ece, .cwr]) }
        return emit(into: &packet, at: offset, sequence: snd.iss, flags: segmentFlags, textOffset: 0, textCount: 0, options: options)
    }

    private mutating func sendACK(into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int> {
        emit(
            into: &packet, at: offset, sequence: snd.nxt, flags: .ack, textOffset: 0, textCount: 0,
            options: segmentOptions(room: 40, now: now))
    }

    private mutating func retransmit(into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int>? {
        guard let index = scoreboard.nextLost() else {
            pending.remove(.forcedRetransmission)
            return nil
        }
        let segment = scoreboard[index]
        let pipe = currentPipe
        if !pending.contains(.forcedRetransmission) {
            guard pipe == 0 || pipe + Int(segment.length) <= congestion.cwnd, isPaced(now: now) else { return nil }
        }
        pending.remove(.forcedRetransmission)
        recovery.resent(now: now)
        return resend(index, into: &packet, at: offset, now: now)
    }

    /// RFC 8985 §7.3: new data if there is any, else the last segment again.
    private mutating func sendLossProbe(into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int>? {
        pending.remove(.lossProbe)
        guard recovery.isOpen, !scoreboard.isEmpty else { return nil }
        if let range = sendNew(into: &packet, at: offset, isProbe: true, now: now) {
            recovery.probe = .newData(end: snd.nxt)
            return range
        }
        recovery.probe = .retransmission(end: snd.nxt)
        let last = scoreboard.count - 1
        guard !scoreboard[last].flags.contains(.sacked) else { return nil }
        return resend(last, into: &packet, at: offset, now: now)
    }

    private mutating func resend(_ index: Int, into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int> {
        let segment = scoreboard[index]
        scoreboard.resent(index, now: now)
        counters.retransmittedSegments &+= 1
        if index == 0 || timers.retransmit == .distantFuture { armRetransmit(now: now) }
        lastDataSent = now
        pacer.sent(Int(segment.length), cwnd: congestion.cwnd, isInSlowStart: congestion.isInSlowStart, srtt: rtt.srtt, now: now)
        let hasFIN = segment.flags.contains(.fin)
        let text = Int(segment.length) - (hasFIN ? 1 : 0)
        return emit(
            into: &packet, at: offset, sequence: segment.start, flags: hasFIN ? [.ack, .fin] : [.ack, .psh],
            textOffset: snd.una.distance(to: segment.start), textCount: text, options: segmentOptions(room: segmentRoom - text, now: now))
    }

    /// New data and FIN within min(cwnd, SND.WND), by the sender's rules of RFC 9293 §3.8.6.2.1.
    /// - Parameter isProbe: leaves whatever cwnd says.
    private mutating func sendNew(
        into packet: inout MutableRawSpan, at offset: Int, isProbe: Bool = false, now: Instant
    ) -> Range<Int>? {
        let isFINDue = flags.contains(.finQueued) && !flags.contains(.finSent)
        let unsent = unsentText
        guard unsent > 0 || isFINDue else {
            flags.remove(.isCwndLimited)
            return nil
        }
        // What is lost goes first.
        guard scoreboard.lostBytes == 0, !scoreboard.isFull else { return nil }
        let options = segmentOptions(room: 40, now: now)
        var room = max(Self.smallestText, segmentRoom - options.encodedLength)
        let usable = snd.wnd - flightSize
        let mtuProbe = mtuProbeText(unsent: unsent, optionLength: options.encodedLength, now: now)
        if let mtuProbe, usable >= mtuProbe { room = mtuProbe }
        let count = max(0, min(unsent, min(room, usable)))
        let isWorthIt =
            count == room || (count == unsent && (flightSize == 0 || isFINDue || !limits.coalescesSmallWrites))
            || count >= snd.largestWnd / 2 || (pending.contains(.smallSegment) && count > 0)
        guard usable > 0, count > 0 || unsent == 0, isWorthIt else {
            flags.remove(.isCwndLimited)
            if flightSize == 0, !pending.contains(.windowProbe) { armPersist(now: now) }
            return nil
        }
        if flightSize == 0, now.since(lastDataSent) > rtt.rto { congestion.idled() }
        let pipe = currentPipe
        if !isProbe, pipe > 0 {
            let fits = pipe + count <= congestion.cwnd
            guard fits, isPaced(now: now) else {
                // Where the pacer alone holds us back, the window is in use only if much of it is in flight.
                if !fits || pipe * 2 >= congestion.cwnd { flags.insert(.isCwndLimited) }
                return nil
            }
        }
        // The answer came, and the peer had nothing to add before: the ACK could have waited for it.
        if flags.contains(.hasAcknowledgedEarly) { flags.subtract([.hasAcknowledgedEarly, .acknowledgesEarly]) }
        pending.subtract([.smallSegment, .windowProbe])
        timers.persist = .distantFuture
        let takesFIN = isFINDue && count == unsent && usable > count
        if takesFIN { flags.insert(.finSent) }
        let sequence = snd.nxt
        let textOffset = snd.una.distance(to: sequence)
        let length = count + (takesFIN ? 1 : 0)
        if flightSize == 0 { unackedSince = now }
        var boardFlags: SACKScoreboard.Flags = takesFIN ? .fin : []
        if let mtuProbe, count == mtuProbe, room == mtuProbe {
            boardFlags.insert(.mtuProbe)
            pathMTU.probeSent(count + options.encodedLength + headerLength)
        }
        scoreboard.append(start: sequence, length: length, sentAt: now, flags: boardFlags)
        snd.nxt += length
        counters.bytesSent &+= UInt64(count)
        lastDataSent = now
        pacer.sent(count, cwnd: congestion.cwnd, isInSlowStart: congestion.isInSlowStart, srtt: rtt.srtt, now: now)
        // A probe is due so long after the last of them, a timeout after the first.
        if timers.retransmit == .distantFuture || timers.purpose == .lossProbe { armRetransmit(now: now) }
        var segmentFlags: TCPFlags = takesFIN ? [.ack, .fin] : .ack
        if count == unsent, count > 0 { segmentFlags.insert(.psh) }
        if count > 0, flags.contains(.reducedWindow) {
            flags.remove(.reducedWindow)
            segmentFlags.insert(.cwr)
        }
        // RFC 3168 §6.1.4, §6.1.5: only new data may be marked.
        let ecn: ECN = count > 0 && flags.contains(.hasECN) ? .ect0 : .notECT
        return emit(
            into: &packet, at: offset, sequence: sequence, flags: segmentFlags, textOffset: textOffset, textCount: count, options: options,
            ecn: ecn)
    }

    /// Whether more may leave now; if not, the timer is set.
    private mutating func isPaced(now: Instant) -> Bool {
        guard
            let due = pacer.delay(
                cwnd: congestion.cwnd, isInSlowStart: congestion.isInSlowStart, srtt: rtt.srtt, mss: effectiveMSS, now: now)
        else { return true }
        timers.pacing = due
        return false
    }

    /// RFC 9293 §3.8.6.1, as kernels do it: an empty segment that is out of order, which the peer has to answer by its window.
    /// An octet of new data would leave both sides in doubt whether it has been taken; two shut windows that probe each other
    /// that way deadlock, since each side's ACKs then bear a sequence number that the other one has passed.
    private mutating func sendWindowProbe(into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int>? {
        pending.remove(.windowProbe)
        guard flightSize == 0 else { return nil }
        unansweredProbes &+= 1
        persistBackoff = min(persistBackoff + 1, 16)
        armPersist(now: now)
        return emit(
            into: &packet, at: offset, sequence: snd.una - 1, flags: .ack, textOffset: 0, textCount: 0,
            options: segmentOptions(room: 40, now: now))
    }

    private mutating func armPersist(now: Instant) {
        guard timers.persist == .distantFuture else { return }
        timers.persist = now.after(min(RTTEstimator.minimumRTO * (1 << Int(persistBackoff)), RTTEstimator.maximumRTO))
    }

    /// What is in the network (RFC 6675); without SACK, less what duplicate ACKs have told.
    private var currentPipe: Int { max(0, scoreboard.pipe - recovery.creditedBytes) }

    /// Timestamps, and SACK blocks as far as `room` bytes allow.
    private func segmentOptions(room: Int, now: Instant) -> TCPOptions {
        var options = TCPOptions()
        if hasTimestamps { options.timestamps = .init(value: timestamp(now), echoReply: tsRecent) }
        guard isSACKPermitted, rcv.hasHoles || duplicateBlock != nil else { return options }
        let limit = min(hasTimestamps ? 3 : 4, (min(room, 40) - options.encodedLength - 4) / 8)
        guard limit > 0 else { return options }
        if let duplicateBlock { options.sack.append(duplicateBlock) }
        rcv.reassembler.appendBlocks(to: &options.sack, limit: limit)
        return options
    }

    private mutating func emit(
        into packet: inout MutableRawSpan, at offset: Int, sequence: SequenceNumber, flags segmentFlags: TCPFlags, textOffset: Int,
        textCount: Int, options: TCPOptions, ecn: ECN = .notECT
    ) -> Range<Int> {
        var header = TCPHeader(
            sourcePort: local.port, destinationPort: remote.port, sequence: sequence,
            acknowledgment: segmentFlags.contains(.ack) ? rcv.nxt : SequenceNumber(0), flags: segmentFlags,
            window: segmentFlags.contains(.rst) ? 0 : rcv.windowField(isSYN: segmentFlags.contains(.syn)))
        if !flags.isDisjoint(with: [.echoesCongestion, .sendsUrgent]) { amend(&header, textCount: textCount) }
        if textCount > 0 {
            let place = offset &+ SegmentWriter.ipHeaderLength(local.address.family) &+ TCPHeader.minimumLength &+ options.encodedLength
            sendBuffer.copy(from: textOffset, count: textCount, into: &packet, at: place)
        }
        if segmentFlags.contains(.ack) {
            lastAcknowledgmentSent = rcv.nxt
            pending.remove(.acknowledgment)
            timers.delayedAcknowledgment = .distantFuture
            duplicateBlock = nil
        }
        return SegmentWriter.finish(
            into: &packet, at: offset, local: local.address, remote: remote.address, header: header, options: options,
            payloadLength: textCount, hopLimit: limits.hopLimit, ecn: ecn)
    }

    /// What is seldom: an echo of congestion (RFC 3168 §6.1.3), urgent data (RFC 9293 §3.8.5).
    private mutating func amend(_ header: inout TCPHeader, textCount: Int) {
        guard header.flags.contains(.ack), header.flags.isDisjoint(with: [.syn, .rst]) else { return }
        if flags.contains(.echoesCongestion) { header.flags.insert(.ece) }
        guard flags.contains(.sendsUrgent) else { return }
        if sndUrgent.isAtOrBefore(snd.una) {
            flags.remove(.sendsUrgent)
        } else if header.sequence.isBefore(sndUrgent) {
            header.flags.insert(.urg)
            header.urgentPointer = UInt16(clamping: header.sequence.distance(to: sndUrgent))
        }
    }
}
