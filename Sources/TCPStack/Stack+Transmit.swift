import Inet

/// Packets out.
extension Stack {
    /// Writes the next IP packet, of `mtu` bytes at most, at `offset` of `buffer`.
    ///
    /// Replies without a connection go first, then the connections and UDP sockets that are ready, in turns of a few packets. Costs
    /// nothing for those that have nothing to send.
    /// - Parameter buffer: must hold `mtu` bytes behind `offset`.
    /// - Returns: the packet's range in `buffer`, or `nil` if nothing can leave now.
    public mutating func pollTransmit(into buffer: inout MutableRawSpan, at offset: Int, now: Instant) -> Range<Int>? {
        precondition(buffer.byteCount - offset >= configuration.mtu, "the buffer is smaller than the MTU")
        lastSender = -1
        if let range = replies.popFirst(into: &buffer, at: offset) { return range }
        while let handle = transmitQueue.first {
            // Between two turns of TCP, as many datagrams as TCP has sent segments.
            if burst == 0, udp.credit > 0, let range = pollTransmitUDP(into: &buffer, at: offset) {
                udp.credit -= 1
                return range
            }
            guard let index = connections.index(of: handle) else {
                transmitQueue.popFirst()
                burst = 0
                continue
            }
            if burst >= Self.largestBurst {
                transmitQueue.popFirst()
                transmitQueue.append(handle)
                burst = 0
            } else if let range = connections[index].pollTransmit(into: &buffer, at: offset, now: now) {
                burst += 1
                lastSender = index
                udp.credit = min(udp.credit + 1, Self.largestBurst)
                tally.segmentsSent &+= 1
                // The timers of a turn are armed with its first segment.
                if burst == 1 { deadlines.schedule(index, at: connections[index].timers.earliest) }
                return range
            } else {
                transmitQueue.popFirst()
                burst = 0
                connections[index].flags.subtract([.needsPoll, .isQueuedForTransmit])
                settle(index, now: now)
                // What was split to be sent again takes memory too.
                evictIfNeeded(now: now)
                if let range = replies.popFirst(into: &buffer, at: offset) { return range }
            }
        }
        return pollTransmitUDP(into: &buffer, at: offset)
    }

    /// Says of the packet that `pollTransmit` gave last that it cannot leave yet, since a session has to be made first: the time that
    /// takes is no round trip, and a handshake of five seconds must not become a timeout of fifteen.
    public mutating func packetWasHeldBack() {
        guard connections.isOccupied(lastSender) else { return }
        connections[lastSender].packetWasHeldBack()
    }

    /// Queues a segment that belongs to no connection, limited by rate.
    mutating func reply(
        from local: SocketEndpoint, to remote: SocketEndpoint, sequence: SequenceNumber, acknowledgment: SequenceNumber, flags: TCPFlags,
        window: UInt16 = 0, options: TCPOptions = TCPOptions(), now: Instant
    ) {
        guard resetLimit.take(now: now) else { return drops.count(.rateLimited) }
        queueReply(
            from: local, to: remote, sequence: sequence, acknowledgment: acknowledgment, flags: flags, window: window, options: options)
    }

    /// Queues a segment that belongs to no connection.
    mutating func queueReply(
        from local: SocketEndpoint, to remote: SocketEndpoint, sequence: SequenceNumber, acknowledgment: SequenceNumber, flags: TCPFlags,
        window: UInt16, options: TCPOptions
    ) {
        let header = TCPHeader(
            sourcePort: local.port, destinationPort: remote.port, sequence: sequence, acknowledgment: acknowledgment, flags: flags,
            window: window)
        var buffer = takeScratch()
        defer { scratch = buffer }
        var span = buffer.mutableSpan
        var bytes = unsafe span.mutableBytes
        let range = SegmentWriter.finish(
            into: &bytes, at: 0, local: local.address, remote: remote.address, header: header, options: options, payloadLength: 0)
        guard replies.append(bytes.bytes.extracting(range)) else { return drops.count(.replyQueueFull) }
        tally.segmentsSent &+= 1
        if flags.contains(.rst) { tally.resetsSent &+= 1 }
    }

    /// The buffer in which replies are built, moved out so that the rest of the stack can be used beside it.
    mutating func takeScratch() -> [UInt8] {
        var buffer: [UInt8] = []
        swap(&buffer, &scratch)
        return buffer
    }
}
