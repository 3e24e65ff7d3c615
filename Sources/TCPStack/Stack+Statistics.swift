import Inet

/// A connection as it stands at one moment. Bytes are `Int`, bytes in all `UInt64`.
public struct ConnectionStatistics: Sendable, Equatable {
    /// What the congestion window does (RFC 5681 §3).
    public enum Phase: Sendable, Equatable {
        case slowStart
        case congestionAvoidance
        /// Fast recovery after a loss that ACKs have told of.
        case recovery
        /// After a retransmission timeout.
        case timeout
    }

    public var id: ConnectionID
    public var local: SocketEndpoint
    public var remote: SocketEndpoint
    /// A listener has accepted it.
    public var isPassive: Bool
    public var state: TCPState
    /// Since the connection was begun.
    public var age: Duration
    /// Since the peer was heard last.
    public var silence: Duration
    /// Smoothed round-trip time; `nil` before the first measurement.
    public var srtt: Duration?
    public var rttvar: Duration
    /// The retransmission timeout in force, back-off included.
    public var rto: Duration
    /// The least round-trip time that the stack remembers.
    public var minimumRTT: Duration?
    public var cwnd: Int
    /// `nil` while it has not been set.
    public var ssthresh: Int?
    public var congestion: CongestionAlgorithm
    public var phase: Phase
    /// SND.NXT - SND.UNA
    public var flightSize: Int
    /// SND.WND: what the peer takes.
    public var sendWindow: Int
    /// RCV.WND: what the peer may send, as it knows.
    public var receiveWindow: Int
    /// Bytes of text in a full segment.
    public var mss: Int
    /// Bytes that are to be sent or to be acknowledged.
    public var unacknowledgedBytes: Int
    /// Of these, bytes that have not been sent yet.
    public var unsentBytes: Int
    /// Bytes in order that the application has not read.
    public var unreadBytes: Int
    /// Bytes of text sent in all, each once.
    public var bytesSent: UInt64
    /// Bytes of text received in order in all.
    public var bytesReceived: UInt64
    public var retransmittedSegments: Int
    public var timeouts: Int
}

extension Stack {
    /// One connection; `nil` for a dead ID.
    public func statistics(of id: ConnectionID, now: Instant) -> ConnectionStatistics? {
        index(of: id).map { statistics(at: $0, now: now) }
    }

    /// Connections, those first in whose buffers most waits, then those that have moved most.
    /// - Parameter limit: how many are told of.
    /// - Returns: at most `limit` connections, and how many more there are.
    public func statistics(limit: Int, now: Instant) -> (connections: [ConnectionStatistics], more: Int) {
        var order: [(waiting: Int, moved: UInt64, index: Int)] = []
        order.reserveCapacity(connections.count)
        for index in 0..<connections.slotCount where connections.isOccupied(index) {
            let counters = connections[index].counters
            let waiting = connections[index].sendBuffer.count + connections[index].rcv.heldBytes
            order.append((waiting, counters.bytesSent &+ counters.bytesReceived, index))
        }
        order.sort { ($0.waiting, $0.moved, $1.index) > ($1.waiting, $1.moved, $0.index) }
        let shown = order.prefix(max(0, limit))
        return (shown.map { statistics(at: $0.index, now: now) }, order.count - shown.count)
    }

    private func statistics(at index: Int, now: Instant) -> ConnectionStatistics {
        let handle = connections.handle(at: index)
        return connections[index].statistics(
            id: ConnectionID(index: handle.index, generation: handle.generation), congestion: configuration.congestion, now: now)
    }
}

extension TCPConnection {
    fileprivate func statistics(id: ConnectionID, congestion algorithm: CongestionAlgorithm, now: Instant) -> ConnectionStatistics {
        let phase: ConnectionStatistics.Phase =
            switch recovery.phase {
            case .fast: .recovery
            case .timeout: .timeout
            case .open: congestion.isInSlowStart ? .slowStart : .congestionAvoidance
            }
        return ConnectionStatistics(
            id: id, local: local, remote: remote, isPassive: isPassive, state: state, age: now - openedAt, silence: now - lastHeard,
            srtt: rtt.srtt?.duration, rttvar: rtt.rttvar.duration, rto: rtt.rto.duration, minimumRTT: rtt.minimum?.duration,
            cwnd: congestion.cwnd,
            // Before the first loss it is more than any window.
            ssthresh: congestion.ssthresh == CongestionController.noThreshold ? nil : congestion.ssthresh, congestion: algorithm,
            phase: phase,
            flightSize: flightSize, sendWindow: snd.wnd, receiveWindow: rcv.offered, mss: effectiveMSS,
            unacknowledgedBytes: sendBuffer.count, unsentBytes: unsentText, unreadBytes: rcv.readable, bytesSent: counters.bytesSent,
            bytesReceived: counters.bytesReceived, retransmittedSegments: Int(counters.retransmittedSegments),
            timeouts: Int(counters.timeouts))
    }
}
