import Inet

/// What the application may ask for.
extension Stack {
    /// Opens a listening port.
    /// - Parameters:
    ///   - address: one address, or `nil` for any of ours.
    ///   - port: 1 to 65,535.
    ///   - backlog: the most established connections that may wait for `pollEvent`.
    /// - Throws: `.portInUse`; `.addressNotAvailable` for port 0.
    public mutating func listen(
        address: IPAddress?, port: UInt16, backlog: Int, options: ConnectionOptions = ConnectionOptions()
    ) throws(StackError) -> ListenerID {
        guard port != 0 else { throw .addressNotAvailable }
        let others = listenersByPort[port, default: []]
        for handle in others where listeners[Int(handle.index)].address == address { throw .portInUse }
        let handle = listeners.insert(Listener(address: address, port: port, backlog: max(1, backlog), options: options))
        listenersByPort[port] = others + [handle]
        return ListenerID(index: handle.index, generation: handle.generation)
    }

    /// Closes a listening port. Connections whose `.accepted` event has not been taken are reset; the others live on.
    public mutating func closeListener(_ id: ListenerID, now: Instant) {
        guard let slot = listenerIndex(id) else { return }
        for index in 0..<connections.slotCount where connections.isOccupied(index) {
            guard connections[index].listener == id else { continue }
            connections[index].events = []
            connections[index].abort(.aborted)
            settle(index, now: now)
        }
        for index in 0..<synQueue.slotCount where synQueue.isOccupied(index) && synQueue[index].listener == id {
            resetHalfOpen(index, now: now)
        }
        let port = listeners[slot].port
        let rest = listenersByPort[port, default: []].filter { Int($0.index) != slot }
        listenersByPort[port] = rest.isEmpty ? nil : rest
        listeners.remove(slot)
    }

    /// Starts a connection. `.connected` or `.closed` follows.
    /// - Throws: `.addressNotAvailable`, `.invalidRemote`, `.portsExhausted`, `.tooManyConnections`.
    public mutating func connect(
        from local: IPAddress, to remote: SocketEndpoint, options: ConnectionOptions = ConnectionOptions(), now: Instant
    ) throws(StackError) -> ConnectionID {
        guard addresses.contains(local), local.family == remote.address.family else { throw .addressNotAvailable }
        guard remote.port != 0, remote.address.isUnicastInsideTunnel, !addresses.contains(remote.address) else { throw .invalidRemote }
        guard connections.count < configuration.maximumConnections else { throw .tooManyConnections }
        ephemeralPorts.restart()
        while let port = ephemeralPorts.next() {
            let end = SocketEndpoint(local, port: port)
            let hash = flowHash.hash(local: end, remote: remote)
            guard listenersByPort[port] == nil, flow(local: end, remote: remote, hash: hash) == nil else { continue }
            let index = addConnection(local: end, remote: remote, listener: nil, options: options, hash: hash, now: now)
            connections[index].flags.insert(.isKnown)
            tally.activeOpens &+= 1
            settle(index, now: now)
            let handle = connections.handle(at: index)
            return ConnectionID(index: handle.index, generation: handle.generation)
        }
        throw .portsExhausted
    }

    /// Queues bytes to be sent; allowed before `.connected`.
    /// - Returns: the bytes taken. If fewer than given, `.writable` follows when half of the buffer is free, or 256 KB.
    /// - Throws: `.noSuchConnection`, `.outputClosed`.
    public mutating func write(_ id: ConnectionID, _ bytes: RawSpan, now: Instant) throws(StackError) -> Int {
        guard let index = index(of: id) else { throw .noSuchConnection }
        let accepted = try connections[index].write(bytes, mayGrow: !isShortOfMemory, now: now)
        settle(index, now: now)
        evictIfNeeded(now: now)
        return accepted
    }

    /// Like `write`, but keeps the bytes where they are instead of copying them. Worth it from some kilobytes on, and if little else
    /// is kept alive with them.
    public mutating func write(_ id: ConnectionID, shared bytes: SharedBytes, now: Instant) throws(StackError) -> Int {
        guard let index = index(of: id) else { throw .noSuchConnection }
        let accepted = try connections[index].write(bytes, mayGrow: !isShortOfMemory, now: now)
        settle(index, now: now)
        evictIfNeeded(now: now)
        return accepted
    }

    /// Like `write`; the last byte taken ends urgent data, of which the peer is told at once (RFC 9293 §3.8.5).
    public mutating func writeUrgent(_ id: ConnectionID, _ bytes: RawSpan, now: Instant) throws(StackError) -> Int {
        guard let index = index(of: id) else { throw .noSuchConnection }
        let accepted = try connections[index].write(bytes, isUrgent: true, mayGrow: !isShortOfMemory, now: now)
        settle(index, now: now)
        evictIfNeeded(now: now)
        return accepted
    }

    /// Unread bytes up to the end of urgent data; 0 without any. Some of them may not have arrived yet.
    public func urgentBytes(_ id: ConnectionID) -> Int {
        guard let index = index(of: id) else { return 0 }
        return connections[index].urgentBytes
    }

    /// Takes in-order bytes out; opens the receive window.
    /// - Returns: the bytes written to the start of `target`; 0 if there are none now.
    /// - Throws: `.noSuchConnection`.
    public mutating func read(_ id: ConnectionID, into target: inout MutableRawSpan, now: Instant) throws(StackError) -> Int {
        guard let index = index(of: id) else { throw .noSuchConnection }
        let count = connections[index].read(into: &target, mayGrow: !isShortOfMemory, now: now)
        settle(index, now: now)
        return count
    }

    /// Like `read`, but hands over the memory that the bytes were received into, which came from the stack's ``TextBlockSource``.
    /// - Returns: `nil` if there is nothing to read now. More may wait behind it.
    public mutating func take(_ id: ConnectionID, now: Instant) throws(StackError) -> TextBlock? {
        guard let index = index(of: id) else { throw .noSuchConnection }
        let block = connections[index].take(mayGrow: !isShortOfMemory, now: now)
        settle(index, now: now)
        return block
    }

    /// In-order bytes that wait; 0 for a dead ID.
    public func readableBytes(_ id: ConnectionID) -> Int {
        guard let index = index(of: id) else { return 0 }
        return connections[index].rcv.readable
    }

    /// Bytes that `write` would take now; 0 for a dead ID or a closed write side.
    public func writableBytes(_ id: ConnectionID) -> Int {
        guard let index = index(of: id) else { return 0 }
        return connections[index].state.hasClosedWrite || connections[index].flags.contains(.finQueued)
            || connections[index].flags.contains(.resetsOnceAcknowledged)
            ? 0 : connections[index].sendBuffer.room
    }

    /// Sends a FIN behind the queued bytes; reading goes on (half-close).
    public mutating func closeWrite(_ id: ConnectionID, now: Instant) {
        guard let index = index(of: id) else { return }
        connections[index].closeWrite(now: now)
        settle(index, now: now)
    }

    /// The application is done with both ways: a FIN behind the queued bytes, or a reset if unread bytes are lost (RFC 1122
    /// §4.2.2.13). `.closed` follows when the protocol is through; a peer that never closes is reset after `finWait2Timeout`.
    public mutating func close(_ id: ConnectionID, now: Instant) {
        guard let index = index(of: id) else { return }
        connections[index].close(now: now)
        settle(index, now: now)
    }

    /// Resets the connection now. `.closed(_, .aborted)` follows.
    public mutating func abort(_ id: ConnectionID, now: Instant) {
        guard let index = index(of: id) else { return }
        connections[index].abort(.aborted)
        settle(index, now: now)
    }

    /// Resets what a peer still waits for: connections, those too that a peer has only begun or whose last bytes it has not
    /// acknowledged, and half-open ones. `.closed(_, .aborted)` follows for those that are known. What the application has closed and
    /// the peer has whole is left alone, so that the peer can read it.
    /// - Parameter limit: how many in one call; the queue that resets leave from is bounded.
    /// - Returns: whether there are more.
    public mutating func abortAll(atMost limit: Int, now: Instant) -> Bool {
        var left = limit
        for index in 0..<connections.slotCount where connections.isOccupied(index) {
            let state = connections[index].state
            guard !state.isTerminal, state != .finWait2 || !connections[index].flags.contains(.applicationClosed) else { continue }
            guard left > 0 else { return true }
            connections[index].abort(.aborted)
            settle(index, now: now)
            left -= 1
        }
        for index in 0..<synQueue.slotCount where synQueue.isOccupied(index) {
            guard left > 0 else { return true }
            resetHalfOpen(index, now: now)
            left -= 1
        }
        return false
    }

    /// Resets the connection once the peer has acknowledged everything that was written, so that the reset does not overtake it; nothing
    /// can be written any more, reading goes on. `.closed(_, .aborted)` follows. A peer that takes nothing may let it wait for ever: see
    /// `unacknowledgedBytes`.
    public mutating func abortOnceAcknowledged(_ id: ConnectionID, now: Instant) {
        guard let index = index(of: id) else { return }
        connections[index].abortOnceAcknowledged()
        settle(index, now: now)
    }

    /// Bytes that were written and the peer does not have yet, as far as we know; 0 for a dead ID.
    public func unacknowledgedBytes(_ id: ConnectionID) -> Int {
        guard let index = index(of: id) else { return 0 }
        return connections[index].sendBuffer.count
    }

    /// Connections that the application has closed and whose last bytes or FIN are not acknowledged yet. Walks all.
    public var lingeringConnections: Int {
        (0..<connections.slotCount).count { connections.isOccupied($0) && connections[$0].isLingering }
    }

    /// Both ends of a connection; `nil` for a dead ID.
    public func endpoints(of id: ConnectionID) -> (local: SocketEndpoint, remote: SocketEndpoint)? {
        guard let index = index(of: id) else { return nil }
        return (connections[index].local, connections[index].remote)
    }
}
