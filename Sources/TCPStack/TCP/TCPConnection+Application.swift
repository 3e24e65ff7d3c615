import Inet

/// The user calls of RFC 9293 §3.10.
extension TCPConnection {
    /// Queues bytes. Allowed before the connection is established.
    mutating func write(_ bytes: RawSpan, now: Instant) throws(StackError) -> Int {
        guard !state.hasClosedWrite, !flags.contains(.finQueued) else { throw .outputClosed }
        let accepted = sendBuffer.append(bytes)
        if accepted < bytes.byteCount { flags.insert(.wantsWritable) }
        if accepted > 0 {
            flags.insert(.needsPoll)
            timers.trim = .distantFuture
        }
        return accepted
    }

    mutating func read(into target: inout MutableRawSpan, now: Instant) -> Int {
        let count = rcv.read(into: &target, now: now, rtt: rtt.minimum ?? .milliseconds(1))
        guard count > 0 else { return 0 }
        if rcv.readable == 0 {
            events.remove(.readable)
            if !rcv.hasHoles { armTrim(now: now) }
        }
        if state.takesText, rcv.wantsUpdate(mss: largestTextReceived) {
            pending.insert(.acknowledgment)
            flags.insert(.needsPoll)
        }
        return count
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
        events.subtract([.readable, .writable, .inputClosed])
        switch state {
        case .synSent: finish(.finished)
        case .synReceived: abort(.aborted)
        case .established, .finWait1, .finWait2:
            // RFC 1122 §4.2.2.13: data will be lost, and the peer must know.
            if rcv.readable > 0 {
                abort(.aborted)
            } else {
                closeWrite(now: now)
                if state == .finWait2 { timers.finWait2 = now + limits.finWait2 }
            }
        case .closeWait, .closing, .lastAck:
            if rcv.readable > 0 { abort(.aborted) } else { closeWrite(now: now) }
        case .timeWait, .closed: rcv.discard()
        }
    }

    /// ABORT: a reset leaves now.
    mutating func abort(_ reason: CloseReason) {
        guard !state.isTerminal else {
            rcv.discard()
            flags.insert(.applicationClosed)
            return
        }
        if state != .synSent { flags.insert(.needsReset) }
        finish(reason)
    }

    /// The protocol ends here; nothing but the last event remains.
    mutating func finish(_ reason: CloseReason) {
        state = .closed
        closeReason = reason
        sendBuffer.removeAll()
        scoreboard.removeAll()
        timers = Timers()
        pending = []
        if reason != .finished || flags.contains(.applicationClosed) {
            rcv.discard()
            events.subtract([.readable, .inputClosed, .writable])
        }
    }

    /// Our and the peer's FIN are exchanged and ours is acknowledged last: the stack keeps the record.
    mutating func enterTimeWait() {
        finish(.finished)
        state = .timeWait
    }

    /// Whether the last event is due.
    var shallAnnounceClose: Bool {
        guard state.isTerminal, !flags.contains(.closedAnnounced) else { return false }
        return closeReason != .finished || flags.contains(.applicationClosed) || rcv.readable == 0
    }

    mutating func armTrim(now: Instant) {
        timers.trim = now + limits.bufferIdleTime
    }
}
