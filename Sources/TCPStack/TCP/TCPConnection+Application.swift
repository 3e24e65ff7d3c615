import Inet

/// The user calls of RFC 9293 §3.10.
extension TCPConnection {
    /// Queues bytes. Allowed before the connection is established.
    /// - Parameters:
    ///   - isUrgent: the last of the bytes ends urgent data (RFC 9293 §3.8.5).
    ///   - mayGrow: whether there is memory for a larger buffer.
    mutating func write(_ bytes: RawSpan, isUrgent: Bool = false, mayGrow: Bool, now: Instant) throws(StackError) -> Int {
        try prepareToWrite(mayGrow: mayGrow)
        let accepted = sendBuffer.append(bytes)
        wrote(accepted, of: bytes.byteCount)
        if accepted > 0, isUrgent {
            sndUrgent = textStart + sendBuffer.count
            flags.insert(.sendsUrgent)
        }
        return accepted
    }

    /// The same without a copy.
    mutating func write(_ bytes: SharedBytes, mayGrow: Bool, now: Instant) throws(StackError) -> Int {
        try prepareToWrite(mayGrow: mayGrow)
        let accepted = sendBuffer.append(bytes)
        wrote(accepted, of: bytes.count)
        return accepted
    }

    private mutating func prepareToWrite(mayGrow: Bool) throws(StackError) {
        guard !state.hasClosedWrite, flags.isDisjoint(with: [.finQueued, .resetsOnceAcknowledged]) else { throw .outputClosed }
        // What a round trip takes, and as much again that waits behind it.
        sendBuffer.limit =
            mayGrow ? min(limits.sendBufferMaximum, max(limits.sendBufferInitial, 2 * congestion.cwnd)) : limits.sendBufferInitial
    }

    private mutating func wrote(_ accepted: Int, of count: Int) {
        if accepted < count { flags.insert(.wantsWritable) }
        if accepted > 0 { flags.insert(.needsPoll) }
    }

    mutating func read(into target: inout MutableRawSpan, mayGrow: Bool, now: Instant) -> Int {
        let count = rcv.read(into: &target, now: now, rtt: rtt.minimum ?? .milliseconds(1), mayGrow: mayGrow)
        if count > 0 { consumed(now: now) }
        return count
    }

    /// As `read`, without a copy.
    mutating func take(mayGrow: Bool, now: Instant) -> TextBlock? {
        guard let block = rcv.take(now: now, rtt: rtt.minimum ?? .milliseconds(1), mayGrow: mayGrow) else { return nil }
        consumed(now: now)
        return block
    }

    private mutating func consumed(now: Instant) {
        if rcv.readable == 0 { events.remove(.readable) }
        if flags.contains(.receivesUrgent), urgentBytes == 0 { flags.remove(.receivesUrgent) }
        armTrim(now: now)
        if state.takesText, rcv.wantsUpdate(mss: largestTextReceived) {
            pending.insert(.acknowledgment)
            flags.insert(.needsPoll)
        }
    }

    /// CLOSE of the write side: FIN follows the queued bytes.
    mutating func closeWrite(now: Instant) {
        guard !flags.contains(.finQueued) else { return }
        switch state {
        case .synSent, .synReceived: flags.insert(.finQueued)
        case .established:
            flags.insert(.finQueued)
            state = .finWait1
        case .closeWait:
            flags.insert(.finQueued)
            state = .lastAck
        case .finWait1, .finWait2, .closing, .lastAck, .timeWait, .closed: return
        }
        flags.insert(.needsPoll)
    }

    /// The application is done with both ways.
    mutating func close(now: Instant) {
        guard !flags.contains(.applicationClosed) else { return }
        flags.insert(.applicationClosed)
        flags.remove(.wantsWritable)
        events.subtract([.readable, .writable, .inputClosed, .inputReset, .urgent])
        // What was written must not look complete.
        if flags.contains(.resetsOnceAcknowledged), !state.isTerminal { return abort(.aborted) }
        switch state {
        case .synSent: finish(.finished)
        case .synReceived: abort(.aborted)
        case .established, .finWait1, .finWait2:
            // RFC 1122 §4.2.2.13: data will be lost, and the peer must know.
            if rcv.readable > 0 {
                abort(.aborted)
            } else {
                closeWrite(now: now)
                if state == .finWait2 { timers.state = now.after(limits.finWait2) }
            }
        case .closeWait, .closing, .lastAck:
            if rcv.readable > 0 { abort(.aborted) } else { closeWrite(now: now) }
        case .timeWait, .closed: rcv.discard()
        }
    }

    /// ABORT: a reset leaves now.
    mutating func abort(_ reason: CloseReason) {
        guard !state.isTerminal else {
            // What the peer sent in order, and nobody will read now, is not finished.
            if rcv.readable > 0 { closeReason = reason }
            rcv.discard()
            flags.insert(.applicationClosed)
            return
        }
        if state != .synSent { flags.insert(.needsReset) }
        finish(reason)
    }

    /// ABORT behind what was written: the reset leaves once the peer has acknowledged all of it.
    mutating func abortOnceAcknowledged() {
        flags.insert(.resetsOnceAcknowledged)
        flags.remove(.wantsWritable)
        events.remove(.writable)
        abortIfAcknowledged()
    }

    mutating func abortIfAcknowledged() {
        let isOwedFIN = flags.contains(.finQueued) && !isFINAcknowledged
        if flags.contains(.resetsOnceAcknowledged), sendBuffer.count == 0, !isOwedFIN { abort(.aborted) }
    }

    /// The protocol ends here; nothing but the last event remains, and what can be read.
    mutating func finish(_ reason: CloseReason) {
        state = .closed
        closeReason = reason
        sendBuffer.removeAll()
        scoreboard.removeAll()
        timers = Timers()
        pending = []
        guard keepsUnread else {
            rcv.discard()
            return events.subtract([.readable, .inputClosed, .inputReset, .writable, .urgent])
        }
        guard reason == .reset else { return }
        rcv.discardEarly()
        if rcv.readable > 0 { events.insert(.inputReset) }
    }

    /// Our and the peer's FIN are exchanged and ours is acknowledged last: the stack keeps the record.
    mutating func enterTimeWait() {
        finish(.finished)
        state = .timeWait
    }

    /// Whether the last event is due.
    var shallAnnounceClose: Bool {
        guard state.isTerminal, !flags.contains(.closedAnnounced) else { return false }
        return !keepsUnread || rcv.readable == 0
    }

    /// What has been acknowledged is read before the end is told, be that a FIN or a reset: a server that does not want a request's body
    /// answers, closes, and so resets.
    private var keepsUnread: Bool {
        guard !flags.contains(.applicationClosed) else { return false }
        return switch closeReason {
        case .finished, .reset: true
        case .refused, .timedOut, .aborted, .unreachable, .outOfMemory: false
        }
    }

    /// The application has closed, and the peer does not have all of it yet.
    var isLingering: Bool {
        switch state {
        case .finWait1, .closing, .lastAck: flags.contains(.applicationClosed)
        case .synSent, .synReceived, .established, .finWait2, .closeWait, .timeWait, .closed: false
        }
    }

    /// Unread bytes up to the end of urgent data (RFC 9293 MUST-33).
    var urgentBytes: Int {
        flags.contains(.receivesUrgent) ? max(0, rcv.readable + rcv.nxt.distance(to: rcvUrgent)) : 0
    }

    /// Looks for unused memory after a while; not moved on, since every segment would.
    mutating func armTrim(now: Instant) {
        if timers.trim == .distantFuture { timers.trim = now.after(limits.bufferIdleTime) }
    }

    /// The sequence number of the first byte of the send buffer.
    private var textStart: SequenceNumber { snd.una == snd.iss ? snd.iss + 1 : snd.una }
}
