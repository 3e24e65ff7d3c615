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
        if unacknowledged > 0, timers.delayedAcknowledgment == .distantFuture {
            timers.delayedAcknowledgment = now + limits.delayedAcknowledgment
        }
        return nil
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
        let offered = pathMTU - SegmentWriter.ipHeaderLength(local.address.family) - TCPHeader.minimumLength
        options.maximumSegmentSize = UInt16(clamping: offered)
        if !isAnswer || isScalingNegotiated {
            options.windowScale = Self.windowScale(for: rcv.maximum)
        }
        options.isSACKPermitted = !isAnswer || isSACKPermitted
        if !isAnswer || hasTimestamps { options.timestamps = .init(value: timestamp(now), echoReply: isAnswer ? tsRecent : 0) }
        synTransmissions += 1
        if synTransmissions > 1 { counters.retransmittedSegments &+= 1 }
        snd.nxt = snd.iss + 1
        lastDataSent = now
        if synTransmissions == 1 { unackedSince = now }
        armRetransmit(now: now)
        return emit(
            into: &packet, at: offset, sequence: snd.iss, flags: isAnswer ? [.syn, .ack] : .syn, textOffset: 0, textCount: 0,
            options: options)
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
        guard pending.contains(.forcedRetransmission) || pipe == 0 || pipe + Int(segment.length) <= congestion.cwnd else { return nil }
        pending.remove(.forcedRetransmission)
        scoreboard.resent(index, now: now)
        counters.retransmittedSegments &+= 1
        if index == 0 || timers.retransmit == .distantFuture { armRetransmit(now: now) }
        lastDataSent = now
        let hasFIN = segment.flags.contains(.fin)
        let text = Int(segment.length) - (hasFIN ? 1 : 0)
        return emit(
            into: &packet, at: offset, sequence: segment.start, flags: hasFIN ? [.ack, .fin] : [.ack, .psh],
            textOffset: snd.una.distance(to: segment.start), textCount: text, options: segmentOptions(room: segmentRoom - text, now: now))
    }

    /// New data and FIN within min(cwnd, SND.WND), by the sender's rules of RFC 9293 §3.8.6.2.1 without Nagle's algorithm.
    private mutating func sendNew(into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int>? {
        let isFINDue = flags.contains(.finQueued) && !flags.contains(.finSent)
        let unsent = unsentText
        guard unsent > 0 || isFINDue else {
            flags.remove(.isCwndLimited)
            return nil
        }
        // What is lost goes first.
        guard scoreboard.lostBytes <= scoreboard.resentBytes, !scoreboard.isFull else { return nil }
        let options = segmentOptions(room: 40, now: now)
        let room = max(Self.smallestText, segmentRoom - options.encodedLength)
        let usable = snd.wnd - flightSize
        let count = max(0, min(unsent, min(room, usable)))
        let isWorthIt =
            count == room || count == unsent || count >= snd.largestWnd / 2 || (pending.contains(.smallSegment) && count > 0)
        guard usable > 0, count > 0 || unsent == 0, isWorthIt else {
            flags.remove(.isCwndLimited)
            if flightSize == 0, !pending.contains(.windowProbe) { armPersist(now: now) }
            return nil
        }
        if flightSize == 0, now - lastDataSent > rtt.rto {
            congestion.idled(periods: Int(clamping: (now - lastDataSent).inNanoseconds / max(1, rtt.rto.inNanoseconds)))
        }
        let pipe = currentPipe
        guard pipe == 0 || pipe + count <= congestion.cwnd else {
            flags.insert(.isCwndLimited)
            return nil
        }
        pending.subtract([.smallSegment, .windowProbe])
        timers.persist = .distantFuture
        let takesFIN = isFINDue && count == unsent && usable > count
        if takesFIN { flags.insert(.finSent) }
        let sequence = snd.nxt
        let textOffset = snd.una.distance(to: sequence)
        let length = count + (takesFIN ? 1 : 0)
        if flightSize == 0 { unackedSince = now }
        scoreboard.append(start: sequence, length: length, sentAt: now, flags: takesFIN ? .fin : [])
        snd.nxt += length
        counters.bytesSent &+= UInt64(count)
        lastDataSent = now
        if timers.retransmit == .distantFuture { armRetransmit(now: now) }
        var segmentFlags: TCPFlags = takesFIN ? [.ack, .fin] : .ack
        if count == unsent, count > 0 { segmentFlags.insert(.psh) }
        return emit(
            into: &packet, at: offset, sequence: sequence, flags: segmentFlags, textOffset: textOffset, textCount: count, options: options)
    }

    /// RFC 9293 §3.8.6.1, as kernels do it: an empty segment that is out of order, which the peer has to answer by its window.
    /// An octet of new data would leave both sides in doubt whether it has been taken; two shut windows that probe each other
    /// that way deadlock, since each side's ACKs then bear a sequence number that the other one has passed.
    private mutating func sendWindowProbe(into packet: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int>? {
        pending.remove(.windowProbe)
        guard flightSize == 0 else { return nil }
        unansweredProbes += 1
        persistBackoff = min(persistBackoff + 1, 16)
        armPersist(now: now)
        return emit(
            into: &packet, at: offset, sequence: snd.una - 1, flags: .ack, textOffset: 0, textCount: 0,
            options: segmentOptions(room: 40, now: now))
    }

    private mutating func armPersist(now: Instant) {
        guard timers.persist == .distantFuture else { return }
        timers.persist = now + min(RTTEstimator.minimumRTO * (1 << persistBackoff), RTTEstimator.maximumRTO)
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
        textCount: Int, options: TCPOptions
    ) -> Range<Int> {
        let header = TCPHeader(
            sourcePort: local.port, destinationPort: remote.port, sequence: sequence,
            acknowledgment: segmentFlags.contains(.ack) ? rcv.nxt : SequenceNumber(0), flags: segmentFlags,
            window: segmentFlags.contains(.rst) ? 0 : rcv.windowField(isSYN: segmentFlags.contains(.syn)))
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
            payloadLength: textCount)
    }
}
