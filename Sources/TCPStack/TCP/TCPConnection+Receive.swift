import Inet

/// SEGMENT ARRIVES, in the order of RFC 9293 §3.10.7.3 and §3.10.7.4, with RFC 5961 and RFC 7323 where they amend it.
extension TCPConnection {
    /// Takes one segment whose checksum is right.
    mutating func receive(_ header: TCPHeader, options: TCPOptions, text: RawSpan, ecn: ECN = .notECT, now: Instant) -> SegmentOutcome {
        switch state {
        case .closed, .timeWait: .dropped(.unexpectedSegment)
        case .synSent: receiveInSynSent(header, options: options, text: text, now: now)
        case .synReceived, .established, .finWait1, .finWait2, .closing, .closeWait, .lastAck:
            receiveSynchronized(header, options: options, text: text, ecn: ecn, now: now)
        }
    }

    /// The SYN that a listener got: LISTEN → SYN-RECEIVED.
    mutating func acceptSYN(_ header: TCPHeader, options: TCPOptions, now: Instant) {
        takeSYN(header, options: options, now: now)
        pending.insert(.syn)
        flags.insert(.needsPoll)
    }

    // MARK: SYN-SENT, §3.10.7.3

    private mutating func receiveInSynSent(
        _ header: TCPHeader, options: TCPOptions, text: RawSpan, now: Instant
    ) -> SegmentOutcome {
        let hasACK = header.flags.contains(.ack)
        // First: the ACK bit.
        if hasACK, !snd.una.isBefore(header.acknowledgment) || snd.nxt.isBefore(header.acknowledgment) {
            return header.flags.contains(.rst) ? .dropped(.badReset) : .reset(header.acknowledgment)
        }
        // Second: the RST bit.
        if header.flags.contains(.rst) {
            guard hasACK else { return .dropped(.badReset) }
            finish(.refused)
            return .taken
        }
        // Third is security; fourth: the SYN bit.
        guard header.flags.contains(.syn) else { return .dropped(.unexpectedSegment) }
        takeSYN(header, options: options, now: now)
        flags.insert(.needsPoll)
        guard hasACK else {
            // Simultaneous open: our SYN goes again, with an ACK.
            state = .synReceived
            pending.insert(.syn)
            return .taken
        }
        establish(acknowledgment: header.acknowledgment, options: options, now: now)
        pending.insert(.acknowledgment)
        return receiveText(header, sequence: header.sequence + 1, text: text, now: now)
    }

    private mutating func takeSYN(_ header: TCPHeader, options: TCPOptions, now: Instant) {
        lastHeard = now
        irs = header.sequence
        rcv.start(at: header.sequence + 1, isOffered: synTransmissions > 0)
        lastAcknowledgmentSent = rcv.nxt
        snd.wnd = Int(header.window)
        snd.largestWnd = snd.wnd
        snd.wl1 = header.sequence
        snd.wl2 = snd.una
        let offered = interfaceMTU - headerLength
        let named = options.maximumSegmentSize.map { max(Int($0), Self.smallestMSS) } ?? Self.defaultMSS(local.address.family)
        peerMSS = min(named, offered)
        if let scale = options.windowScale {
            isScalingNegotiated = true
            snd.scale = min(scale, 14)
            rcv.scale = Self.windowScale(for: rcv.maximum)
        }
        isSACKPermitted = options.isSACKPermitted
        if let timestamps = options.timestamps {
            hasTimestamps = true
            tsRecent = timestamps.value
            tsRecentAt = now
        }
        // RFC 3168 §6.1.1.
        let bits = header.flags.intersection([.ece, .cwr])
        let agrees = state == .synSent && header.flags.contains(.ack) ? bits == .ece : bits == [.ece, .cwr]
        if flags.contains(.wantsECN), agrees { flags.insert(.hasECN) } else { flags.remove(.wantsECN) }
        congestion.setMSS(effectiveMSS, isFresh: true)
    }

    // MARK: all other states, §3.10.7.4

    private mutating func receiveSynchronized(
        _ header: TCPHeader, options: TCPOptions, text: RawSpan, ecn: ECN, now: Instant
    ) -> SegmentOutcome {
        var header = header
        let isReset = header.flags.contains(.rst)
        if state == .synReceived, header.flags.contains(.syn), !isReset, header.sequence == irs {
            guard header.flags.contains(.ack) else {
                pending.insert(.syn)
                flags.insert(.needsPoll)
                return .taken
            }
            // Simultaneous open: the SYN is known, its ACK is what counts.
            header.flags.remove(.syn)
            header.sequence += 1
            pending.insert(.acknowledgment)
            flags.insert(.needsPoll)
        }
        // RFC 7323 §5.3, R1: before the sequence number.
        if hasTimestamps, !isReset {
            guard let timestamps = options.timestamps else { return .dropped(.missingTimestamp) }
            if Int32(bitPattern: timestamps.value &- tsRecent) < 0, now.since(tsRecentAt) < Self.timestampLife {
                answerSuspicious(hasText: text.byteCount > 0, now: now)
                return .dropped(.oldTimestamp)
            }
        }
        // First: the sequence number.
        let length = text.byteCount + (header.flags.contains(.syn) ? 1 : 0) + (header.flags.contains(.fin) ? 1 : 0)
        guard isAcceptable(header.sequence, length: length) else {
            if isReset { return .dropped(.badReset) }
            if text.byteCount > 0, (header.sequence + text.byteCount).isAtOrBefore(rcv.nxt) {
                duplicateBlock = SequenceRange(header.sequence, header.sequence + text.byteCount)
            }
            answerSuspicious(hasText: length > 0 && !header.flags.contains(.syn), now: now)
            // A probe of our window or of our life. Some peers count an octet of theirs that we have taken as unsent: what they
            // acknowledge must not be lost.
            if length == 0, header.sequence + 1 == rcv.nxt, header.flags.contains(.ack), state != .synReceived {
                lastHeard = now
                keepaliveProbesSent = 0
                return receiveAcknowledgment(header, options: options, textCount: 0, now: now)
            }
            return .dropped(.outsideWindow)
        }
        // Second: the RST bit (RFC 5961 §3.2).
        if isReset {
            guard header.sequence == rcv.nxt else {
                answerSuspicious(hasText: false, now: now)
                return .dropped(.challenged)
            }
            finish(state == .synReceived ? .refused : .reset)
            return .taken
        }
        // Third is security; fourth: the SYN bit (RFC 5961 §4.2).
        if header.flags.contains(.syn) {
            answerSuspicious(hasText: false, now: now)
            return .dropped(.challenged)
        }
        if hasTimestamps, let timestamps = options.timestamps, header.sequence.isAtOrBefore(lastAcknowledgmentSent) {
            tsRecent = timestamps.value
            tsRecentAt = now
        }
        // Fifth: the ACK field.
        guard header.flags.contains(.ack) else { return .dropped(.unexpectedSegment) }
        lastHeard = now
        keepaliveProbesSent = 0
        if state == .synReceived {
            guard snd.una.isBefore(header.acknowledgment), header.acknowledgment.isAtOrBefore(snd.nxt) else {
                return .reset(header.acknowledgment)
            }
            establish(acknowledgment: header.acknowledgment, options: options, now: now)
            snd.wnd = Int(header.window) << Int(snd.scale)
            snd.largestWnd = max(snd.largestWnd, snd.wnd)
            snd.wl1 = header.sequence
            snd.wl2 = header.acknowledgment
        } else {
            let outcome = receiveAcknowledgment(header, options: options, textCount: text.byteCount, now: now)
            guard outcome == .taken, !state.isTerminal else { return outcome }
        }
        if flags.contains(.hasECN), text.byteCount > 0 {
            // RFC 3168 §6.1.3: CWR ends the echo of earlier marks, not that of this packet's.
            if header.flags.contains(.cwr) { flags.remove(.echoesCongestion) }
            if ecn == .ce { flags.insert(.echoesCongestion) }
        }
        // Sixth: the URG bit. Seventh: the segment text; eighth: the FIN bit.
        if header.flags.contains(.urg) { receiveUrgent(header) }
        return receiveText(header, sequence: header.sequence, text: text, now: now)
    }

    /// The four cases of §3.10.7.4, table 6, with two allowances: a segment without text may stand at the right edge (the ACKs
    /// of a sender who has filled the window do), and one at RCV.NXT brings its ACK even if the window is shut.
    private func isAcceptable(_ sequence: SequenceNumber, length: Int) -> Bool {
        let window = rcv.offered
        if sequence == rcv.nxt { return true }
        if length == 0 { return sequence.lies(from: rcv.nxt, count: window + 1) }
        guard window > 0 else { return false }
        return sequence.lies(from: rcv.nxt, count: window) || (sequence + (length - 1)).lies(from: rcv.nxt, count: window)
    }

    /// An ACK for a segment that proves nothing. With text it may be a peer that lost our ACK; without, the answer is
    /// limited, so that two confused ends or an attacker cannot make a storm of it.
    mutating func answerSuspicious(hasText: Bool, now: Instant) {
        guard hasText || challenge.mayAnswer(now: now) else { return }
        pending.insert(.acknowledgment)
        flags.insert(.needsPoll)
    }

    private mutating func establish(acknowledgment: SequenceNumber, options: TCPOptions, now: Instant) {
        snd.una = acknowledgment
        snd.wl2 = acknowledgment
        state = flags.contains(.finQueued) ? .finWait1 : .established
        timers.state = .distantFuture
        timers.retransmit = .distantFuture
        pending.remove(.syn)
        events.insert(.opened)
        flags.insert(.needsPoll)
        if !flags.contains(.hasSpoiltSample) {
            if synTransmissions == 1 {
                rtt.sample(now.since(lastDataSent))
            } else if hasTimestamps, let echo = timestampRoundTrip(options, now: now) {
                rtt.sample(echo)
            } else {
                rtt.useFallback()
            }
        }
        if let keepalive = limits.keepalive { timers.keepalive = now.after(keepalive) }
        unackedSince = now
    }

    // MARK: sixth, seventh and eighth

    /// RFC 9293 §3.8.5: the application is told once that there is urgent data, and again when more comes.
    private mutating func receiveUrgent(_ header: TCPHeader) {
        guard state.takesText, !flags.contains(.applicationClosed) else { return }
        let end = header.sequence + Int(header.urgentPointer)
        guard rcv.nxt.isBefore(end) || urgentBytes > 0 else { return }
        guard urgentBytes == 0 || rcvUrgent.isBefore(end) else { return }
        rcvUrgent = end
        flags.insert(.receivesUrgent)
        events.insert(.urgent)
    }

    private mutating func receiveText(
        _ header: TCPHeader, sequence: SequenceNumber, text: RawSpan, now: Instant
    ) -> SegmentOutcome {
        guard state.takesText else { return .taken }
        var outcome = SegmentOutcome.taken
        let end = sequence + text.byteCount
        if header.flags.contains(.fin), flags.isDisjoint(with: .earlyFIN), end.isAtOrBefore(rcv.rightEdge) || end == rcv.nxt {
            finSequence = end
            flags.insert(.earlyFIN)
        }
        if text.byteCount > 0 {
            outcome = receiveNonemptyText(header, sequence: sequence, text: text, now: now)
            if state.isTerminal { return outcome }
        } else if header.flags.contains(.fin) {
            pending.insert(.acknowledgment)
            flags.insert(.needsPoll)
        }
        if flags.contains(.earlyFIN), rcv.nxt == finSequence { receiveFIN(now: now) }
        return outcome
    }

    private mutating func receiveNonemptyText(
        _ header: TCPHeader, sequence: SequenceNumber, text: RawSpan, now: Instant
    ) -> SegmentOutcome {
        var start = 0
        var end = text.byteCount
        if sequence.isBefore(rcv.nxt) {
            start = sequence.distance(to: rcv.nxt)
            duplicateBlock = SequenceRange(sequence, SequenceNumber.earlier(rcv.nxt, sequence + end))
        }
        end = min(end, sequence.distance(to: rcv.rightEdge))
        // Nothing follows a FIN.
        if flags.contains(.earlyFIN) { end = min(end, sequence.distance(to: finSequence)) }
        flags.insert(.needsPoll)
        guard start < end else {
            pending.insert(.acknowledgment)
            return .taken
        }
        // RFC 1122 §4.2.2.13: data for an application that is gone.
        if flags.contains(.applicationClosed) {
            abort(.aborted)
            return .taken
        }
        largestTextReceived = max(largestTextReceived, min(text.byteCount, 65_535))
        flags.remove(.hasAcknowledgedEarly)
        if header.flags.contains(.psh), text.byteCount < largestTextReceived {
            flags.insert(.hasSmallSegment)
        } else {
            flags.remove(.hasSmallSegment)
        }
        let hadHoles = rcv.hasHoles
        let next = rcv.nxt
        switch rcv.accept(text.extracting(start..<end), at: sequence + start) {
        case .inOrder:
            counters.bytesReceived &+= UInt64(next.distance(to: rcv.nxt))
            events.insert(.readable)
            if hadHoles || start > 0 || end < text.byteCount { pending.insert(.acknowledgment) }
        case .early: pending.insert(.acknowledgment)
        case .duplicate:
            duplicateBlock = SequenceRange(sequence + start, sequence + end)
            pending.insert(.acknowledgment)
        case .refused:
            pending.insert(.acknowledgment)
            return .dropped(.tooManyHoles)
        }
        return .taken
    }

    private mutating func receiveFIN(now: Instant) {
        flags.remove(.earlyFIN)
        flags.insert([.inputClosed, .needsPoll])
        rcv.acceptFIN()
        pending.insert(.acknowledgment)
        if !flags.contains(.applicationClosed) { events.insert(.inputClosed) }
        switch state {
        case .established: state = .closeWait
        case .finWait1:
            if isFINAcknowledged { enterTimeWait() } else { state = .closing }
        case .finWait2: enterTimeWait()
        case .synSent, .synReceived, .closing, .closeWait, .lastAck, .timeWait, .closed: break
        }
    }

    /// The timestamp echo in milliseconds of our clock; `nil` without one.
    func echoedMillisecond(_ options: TCPOptions) -> UInt32? {
        guard hasTimestamps, let echo = options.timestamps?.echoReply, echo != 0 else { return nil }
        return echo &- tsOffset
    }

    /// What a timestamp echo says of the round trip; `nil` if it is absurd.
    func timestampRoundTrip(_ options: TCPOptions, now: Instant) -> Interval? {
        guard let echo = options.timestamps?.echoReply, echo != 0 else { return nil }
        let elapsed = Int32(bitPattern: timestamp(now) &- echo)
        return elapsed >= 0 && elapsed < 120_000 ? .milliseconds(Int(max(1, elapsed))) : nil
    }

    /// TSval: milliseconds, with an offset of its own for each tuple.
    func timestamp(_ now: Instant) -> UInt32 { UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000) &+ tsOffset }

    /// The smallest shift with which a 16-bit field expresses `maximum`.
    static func windowScale(for maximum: Int) -> UInt8 {
        var shift: UInt8 = 0
        while shift < 14, 65_535 << Int(shift) < maximum { shift += 1 }
        return shift
    }

    /// 24 days (RFC 7323 §5.5): after that TS.Recent says nothing.
    private static let timestampLife: Interval = .seconds(24 * 86_400)
}
