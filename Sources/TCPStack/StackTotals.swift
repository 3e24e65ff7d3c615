/// What a stack has done since it was made, and what it holds now. The counters only grow.
///
/// Source: RFC 4022 (the names of the counters that are there).
public struct StackTotals: Sendable, Equatable {
    /// Connections begun by `connect`.
    public var activeOpens: UInt64 = 0
    /// Connections begun by a SYN that a listener has taken.
    public var passiveOpens: UInt64 = 0
    /// TCP segments with a good checksum.
    public var segmentsReceived: UInt64 = 0
    /// TCP segments of all kinds.
    public var segmentsSent: UInt64 = 0
    /// Of these, segments with text, SYN or FIN that had been sent before.
    public var segmentsRetransmitted: UInt64 = 0
    /// How often the retransmission timer has fired.
    public var retransmissionTimeouts: UInt64 = 0
    public var resetsReceived: UInt64 = 0
    public var resetsSent: UInt64 = 0
    /// Bytes of text sent on connections, each once.
    public var bytesSent: UInt64 = 0
    /// Bytes of text received in order on connections.
    public var bytesReceived: UInt64 = 0

    /// Connections by the raw value of their state. `timeWait` holds those in the table of TIME-WAIT; `closed` those whose end the
    /// application has not been told yet.
    public var connections = [Int](repeating: 0, count: TCPState.allCases.count)
    /// Connections of listeners that wait for the last ACK of their handshake.
    public var halfOpen = 0
    /// Bytes that wait to be acknowledged or read.
    public var bufferedBytes = 0
    /// Bytes of memory that buffers hold.
    public var bufferMemory = 0
    /// Connections reset because memory was short.
    public var evictions: UInt64 = 0
    public var synCookies = SYNCounters()
    /// Bytes of memory that fragments hold.
    public var fragmentMemory = 0
    /// Ranges of bytes that have arrived in front of others, of all connections.
    public var outOfOrderRanges = 0

    package init() {}

    /// Adds those of another stack.
    package mutating func add(_ other: StackTotals) {
        activeOpens &+= other.activeOpens
        passiveOpens &+= other.passiveOpens
        segmentsReceived &+= other.segmentsReceived
        segmentsSent &+= other.segmentsSent
        segmentsRetransmitted &+= other.segmentsRetransmitted
        retransmissionTimeouts &+= other.retransmissionTimeouts
        resetsReceived &+= other.resetsReceived
        resetsSent &+= other.resetsSent
        bytesSent &+= other.bytesSent
        bytesReceived &+= other.bytesReceived
        for index in connections.indices { connections[index] += other.connections[index] }
        halfOpen += other.halfOpen
        bufferedBytes += other.bufferedBytes
        bufferMemory += other.bufferMemory
        evictions &+= other.evictions
        synCookies.add(other.synCookies)
        fragmentMemory += other.fragmentMemory
        outOfOrderRanges += other.outOfOrderRanges
    }

    mutating func add(_ counters: TCPConnection.Counters) {
        segmentsRetransmitted &+= UInt64(counters.retransmittedSegments)
        retransmissionTimeouts &+= UInt64(counters.timeouts)
        bytesSent &+= counters.bytesSent
        bytesReceived &+= counters.bytesReceived
    }
}

extension Stack {
    /// Counts of this moment. Looks at every connection: for somebody who asks, not for the path of a packet.
    public var totals: StackTotals {
        var totals = tally
        for index in 0..<connections.slotCount where connections.isOccupied(index) {
            let state = connections[index].state
            totals.connections[(state == .timeWait ? .closed : state).rawValue] += 1
            totals.add(connections[index].counters)
            totals.outOfOrderRanges += connections[index].rcv.reassembler.count
        }
        totals.halfOpen = synQueue.count
        totals.connections[TCPState.synReceived.rawValue] += synQueue.count
        totals.connections[TCPState.timeWait.rawValue] = timeWait.count
        totals.bufferedBytes = bufferedBytes
        totals.bufferMemory = bufferMemory
        totals.evictions = evictions
        totals.synCookies = synCounters
        totals.fragmentMemory = fragments.byteCount
        return totals
    }
}
