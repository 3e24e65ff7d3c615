import Inet

/// The life of a connection's slot: found, looked after, retired, released.
extension Stack {
    func index(of id: ConnectionID) -> Int? {
        connections.index(of: Slab<TCPConnection>.Handle(index: id.index, generation: id.generation))
    }

    /// The flow between two ends.
    func flow(local: SocketEndpoint, remote: SocketEndpoint, hash: UInt64) -> FlowTable.Flow? {
        var cursor = flows.cursor(hash)
        while let flow = flows.next(&cursor) {
            switch flow {
            case .connection(let index):
                if connections[index].remote == remote, connections[index].local == local { return flow }
            case .timeWait(let index):
                if timeWait[index].remote == remote, timeWait[index].local == local { return flow }
            case .halfOpen(let index):
                if synQueue[index].remote == remote, synQueue[index].local == local { return flow }
            }
        }
        return nil
    }

    mutating func addConnection(
        local: SocketEndpoint, remote: SocketEndpoint, listener: ListenerID?, options: ConnectionOptions, hash: UInt64, now: Instant
    ) -> Int {
        let sequence = initialSequence.generate(local: local, remote: remote, now: now)
        let connection = TCPConnection(
            local: local, remote: remote, listener: listener, iss: sequence.iss, timestampOffset: sequence.timestampOffset,
            limits: TCPConnection.Limits(configuration, options), configuration: configuration, source: textSource,
            pathMTU: pathMTUs.mtu(to: remote.address, now: now), now: now)
        let index = Int(connections.insert(connection).index)
        flows.insert(.connection(index), hash: hash)
        connections[index].flags.insert([.isRegistered, .needsPoll])
        return index
    }

    /// Brings the stack's own tables in line with a connection after anything has touched it.
    mutating func settle(_ index: Int, now: Instant) {
        let report = connections[index].report()
        bufferedBytes += report.bytes
        bufferMemory += report.memory
        if report.hasLeftSynQueue { leaveSynQueue(index) }
        if report.hasNewPathMTU { learnPathMTU(index, now: now) }
        if report.isRetiring { retire(index, now: now) }
        let handle = connections.handle(at: index)
        if report.hasEvents { eventQueue.append(handle) }
        if report.isReady { transmitQueue.append(handle) }
        if report.isForgotten {
            release(index)
            return
        }
        deadlines.schedule(index, at: report.deadline)
    }

    private mutating func learnPathMTU(_ index: Int, now: Instant) {
        let (path, remote) = (connections[index].pathMTU, connections[index].remote.address)
        if path.isReduced {
            pathMTUs.learn(path.mtu, to: remote, expires: now + configuration.pathMTULifetime)
        } else {
            pathMTUs.forget(remote)
        }
    }

    /// The protocol has ended: the last segment leaves, the flow is free or passes to TIME-WAIT.
    private mutating func retire(_ index: Int, now: Instant) {
        let (local, remote) = (connections[index].local, connections[index].remote)
        let hash = flowHash.hash(local: local, remote: remote)
        flows.remove(.connection(index), hash: hash)
        connections[index].flags.remove(.isRegistered)
        deadlines.remove(index)
        let isReset = connections[index].flags.contains(.needsReset)
        if isReset { tally.resetsSent &+= 1 }
        // Our ACK of the peer's FIN has left already if both sides closed at once.
        let isOwed = connections[index].lastAcknowledgmentSent != connections[index].rcv.nxt
        if isReset || (connections[index].state == .timeWait && isOwed) {
            connections[index].flags.remove(.needsReset)
            var buffer = takeScratch()
            defer { scratch = buffer }
            var span = buffer.mutableSpan
            var bytes = unsafe span.mutableBytes
            let range = connections[index].writeLastSegment(into: &bytes, at: 0, now: now, isReset: isReset)
            if !replies.append(bytes.bytes.extracting(range)) { drops.count(.replyQueueFull) } else { tally.segmentsSent &+= 1 }
        }
        guard connections[index].state == .timeWait else { return }
        if timeWait.isFull, let oldest = timeWait.oldest() { removeTimeWait(oldest) }
        let record = connections[index].timeWaitRecord(expires: now + configuration.timeWait)
        flows.insert(.timeWait(timeWait.insert(record)), hash: hash)
    }

    mutating func removeTimeWait(_ index: Int) {
        let record = timeWait[index]
        flows.remove(.timeWait(index), hash: flowHash.hash(local: record.local, remote: record.remote))
        timeWait.remove(index)
    }

    /// The slot is free; its ID is dead.
    mutating func release(_ index: Int) {
        if let listener = connections[index].listener { leaveQueues(index, listener: listener) }
        bufferedBytes -= connections[index].accountedBytes
        bufferMemory -= connections[index].accountedMemory
        tally.add(connections[index].counters)
        deadlines.remove(index)
        connections.remove(index)
    }

    private mutating func leaveSynQueue(_ index: Int) {
        connections[index].flags.remove(.isHalfOpen)
        guard let id = connections[index].listener, let slot = listenerIndex(id) else { return }
        listeners[slot].halfOpen -= 1
        guard connections[index].events.contains(.opened) else { return }
        listeners[slot].waiting += 1
        connections[index].flags.insert(.awaitsAccept)
    }

    mutating func leaveQueues(_ index: Int, listener: ListenerID) {
        let flags = connections[index].flags
        connections[index].flags.subtract([.isHalfOpen, .awaitsAccept])
        guard let slot = listenerIndex(listener) else { return }
        if flags.contains(.isHalfOpen) { listeners[slot].halfOpen -= 1 }
        if flags.contains(.awaitsAccept) { listeners[slot].waiting -= 1 }
    }

    func listenerIndex(_ id: ListenerID) -> Int? {
        listeners.index(of: Slab<Listener>.Handle(index: id.index, generation: id.generation))
    }
}

extension TCPConnection {
    /// What has changed since the stack looked last.
    struct Report {
        /// Differences.
        var bytes = 0
        var memory = 0
        var hasLeftSynQueue = false
        var hasNewPathMTU = false
        var isRetiring = false
        var hasEvents = false
        var isReady = false
        /// It ended before anybody knew of it.
        var isForgotten = false
        var deadline = Instant.distantFuture
    }

    mutating func report() -> Report {
        var report = Report()
        let bytes = sendBuffer.count + rcv.heldBytes
        let memory = allocatedBytes
        report.bytes = bytes - accountedBytes
        report.memory = memory - accountedMemory
        accountedBytes = bytes
        accountedMemory = memory
        report.hasLeftSynQueue = flags.contains(.isHalfOpen) && state != .synReceived
        if flags.contains(.hasNewPathMTU) {
            flags.remove(.hasNewPathMTU)
            report.hasNewPathMTU = true
        }
        report.isRetiring = state.isTerminal && flags.contains(.isRegistered)
        if shallAnnounceClose {
            if flags.contains(.isKnown) || events.contains(.opened) {
                flags.insert(.closedAnnounced)
                events.insert(.closed)
            } else {
                report.isForgotten = true
            }
        }
        if !events.isEmpty, !flags.contains(.isQueuedForEvents) {
            flags.insert(.isQueuedForEvents)
            report.hasEvents = true
        }
        if flags.contains(.needsPoll), !flags.contains(.isQueuedForTransmit), !state.isTerminal {
            flags.insert(.isQueuedForTransmit)
            report.isReady = true
        }
        report.deadline = timers.earliest
        return report
    }

    func timeWaitRecord(expires: Instant) -> TimeWaitRecord {
        TimeWaitRecord(
            local: local, remote: remote, sndNxt: snd.nxt, rcvNxt: rcv.nxt, tsRecent: tsRecent, tsOffset: tsOffset,
            hasTimestamps: hasTimestamps, expires: expires)
    }
}
