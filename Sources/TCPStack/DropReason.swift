/// Why a packet was not taken. Each is counted.
public enum DropReason: Int, CaseIterable, Sendable, Hashable {
    /// The IP header does not parse.
    case malformedPacket
    /// A source that is loopback, multicast, unspecified or one of our own addresses.
    case spoofedSource
    /// Not addressed to us. Never forwarded.
    case notOurs
    /// An IPv4 source route, or an IPv6 extension header or option that we do not go along with.
    case refusedOption
    /// A fragment of a length that cannot be, behind the 65,535th byte, inside of another one, or told of congestion by some only.
    case malformedFragment
    /// A first fragment that does not hold the upper-layer header.
    case tinyFragment
    /// A fragment that overlaps another one, and all the others of its datagram.
    case fragmentOverlap
    /// A fragment that was here already.
    case duplicateFragment
    /// A fragment that gave way to a bound of `FragmentReassembler`.
    case fragmentLimit
    /// A fragment whose datagram did not become complete in time.
    case fragmentTimeout
    case unknownProtocol
    /// The TCP header does not parse.
    case malformedSegment
    case badChecksum
    /// A segment without a connection, answered by a reset unless it was one.
    case noConnection
    /// A segment outside the receive window.
    case outsideWindow
    /// An old duplicate by its timestamp.
    case oldTimestamp
    /// A segment without the timestamp that was negotiated.
    case missingTimestamp
    /// An ACK of what was never sent, or of long ago.
    case badAcknowledgment
    /// A reset or SYN that was answered by a challenge ACK.
    case challenged
    /// A reset that did not match.
    case badReset
    /// A segment that its state has no use for.
    case unexpectedSegment
    /// More holes than `Reassembler.maximumRanges`.
    case tooManyHoles
    /// The backlog is reached: established connections wait to be accepted.
    case synQueueFull
    /// `maximumConnections` is reached.
    case tooManyConnections
    /// The queue of replies is full.
    case replyQueueFull
    /// A reply was held back by its rate limit.
    case rateLimited
    /// An ICMP error that quotes nothing of ours that is in flight.
    case unmatchedError
    /// An ICMP message that we do not answer.
    case unhandledICMP
    /// A segment for a connection in TIME-WAIT that is answered by its last ACK at most.
    case timeWait
    /// The UDP header does not parse, or its length is wrong.
    case malformedDatagram
    /// A datagram for a port without a socket, answered by port unreachable.
    case noSocket
    /// `udpReceiveBufferMaximum` or `udpReceiveDatagramsMaximum` is reached.
    case receiveQueueFull
    /// A datagram that waited in a queue of UDP when its peer or our address was taken away.
    case purgedDatagram
}

/// A count for each `DropReason`.
public struct DropCounters: Sendable, Equatable {
    private var counts = [UInt64](repeating: 0, count: DropReason.allCases.count)

    public init() {}

    public subscript(reason: DropReason) -> UInt64 { counts[reason.rawValue] }

    /// All drops.
    public var total: UInt64 { counts.reduce(0, &+) }

    mutating func count(_ reason: DropReason, times: Int = 1) { counts[reason.rawValue] &+= UInt64(times) }
}
