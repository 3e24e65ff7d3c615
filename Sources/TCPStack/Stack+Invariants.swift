import Inet

/// What must hold whenever the stack is at rest, that is after `pollTransmit` has given `nil`. For simulations and fuzzing.
extension Stack {
    /// Bytes of one connection without its buffers.
    package static var connectionSize: Int { MemoryLayout<TCPConnection>.stride }
    /// Bytes of one half-open connection.
    package static var halfOpenSize: Int { MemoryLayout<HalfOpen>.stride }

    /// cwnd, in bytes.
    package func congestionWindow(of id: ConnectionID) -> Int? { index(of: id).map { connections[$0].congestion.cwnd } }

    /// The first violation found; `nil` if all is well. Walks everything.
    package func brokenInvariant() -> String? {
        var (bytes, memory, registered) = (0, 0, 0)
        for index in 0..<connections.slotCount where connections.isOccupied(index) {
            if let violation = connections[index].brokenInvariant() {
                return "\(connections[index].local) - \(connections[index].remote) \(connections[index].state): \(violation)"
            }
            bytes += connections[index].sendBuffer.count + connections[index].rcv.heldBytes
            memory += connections[index].allocatedBytes
            if connections[index].flags.contains(.isRegistered) { registered += 1 }
            let earliest = connections[index].timers.earliest
            guard earliest == .distantFuture || (deadlines.next ?? .distantFuture) <= earliest else { return "a timer nobody watches" }
        }
        for index in 0..<udp.sockets.slotCount where udp.sockets.isOccupied(index) {
            bytes += udp.sockets[index].heldBytes
            memory += udp.sockets[index].allocatedBytes
            guard udp.sockets[index].outgoing.isEmpty || udp.sockets[index].isQueuedForTransmit else { return "a datagram nobody sends" }
        }
        guard bytes == bufferedBytes, memory == bufferMemory else { return "\(bufferedBytes) bytes accounted, \(bytes) held" }
        if let violation = brokenSYNQueue() ?? fragments.brokenInvariant() { return violation }
        guard registered + timeWait.count + synQueue.count == flows.count else { return "\(flows.count) flows, \(registered) connections" }
        return nil
    }

    private func brokenSYNQueue() -> String? {
        var counts: [ListenerID: Int] = [:]
        for index in 0..<synQueue.slotCount where synQueue.isOccupied(index) {
            counts[synQueue[index].listener, default: 0] += 1
            guard synQueue.next != nil else { return "a half-open connection without timer" }
        }
        for index in 0..<connections.slotCount where connections.isOccupied(index) && connections[index].flags.contains(.isHalfOpen) {
            if let listener = connections[index].listener { counts[listener, default: 0] += 1 }
        }
        for index in 0..<listeners.slotCount where listeners.isOccupied(index) {
            let handle = listeners.handle(at: index)
            let count = counts[ListenerID(index: handle.index, generation: handle.generation), default: 0]
            guard listeners[index].halfOpen == count else { return "\(listeners[index].halfOpen) half-open counted, \(count) there" }
        }
        return nil
    }
}

extension TCPConnection {
    var allocatedBytes: Int { sendBuffer.allocatedBytes + rcv.allocatedBytes + scoreboard.allocatedBytes }

    func brokenInvariant() -> String? {
        guard !state.isTerminal else { return nil }
        guard snd.una.isAtOrBefore(snd.nxt) else { return "SND.UNA beyond SND.NXT" }
        guard rcv.nxt.isAtOrBefore(rcv.rightEdge) || !state.isSynchronized else { return "right edge behind RCV.NXT" }
        guard sendBuffer.count <= limits.sendBufferMaximum, rcv.readable <= rcv.maximum + rcv.maximum / 8 + 65_536 else {
            return "buffer beyond its bound"
        }
        guard state.isSynchronized else {
            return snd.una == snd.nxt || timers.retransmit != .distantFuture ? nil : "a SYN without timer"
        }
        var pipe = 0
        var end = snd.una
        for index in 0..<scoreboard.count {
            let segment = scoreboard[index]
            guard segment.start == end else { return "a gap on the scoreboard" }
            end = segment.end
            if segment.flags.isDisjoint(with: [.sacked, .lost]) { pipe += Int(segment.length) }
        }
        guard end == snd.nxt else { return "the scoreboard ends before SND.NXT" }
        guard pipe == scoreboard.pipe else { return "pipe \(scoreboard.pipe), recounted \(pipe)" }
        if flightSize > 0, timers.retransmit == .distantFuture { return "unacknowledged data without timer" }
        let isWaiting = unsentText > 0 || (flags.contains(.finQueued) && !flags.contains(.finSent))
        if flightSize == 0, isWaiting, timers.persist == .distantFuture { return "unsent data, nothing in flight, no persist timer" }
        return nil
    }
}
