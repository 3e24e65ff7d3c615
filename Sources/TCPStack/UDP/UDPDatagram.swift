import Inet

/// A UDP socket of one stack. Dead for ever once it is closed or its `.udpClosed` event has been taken.
public struct UDPSocketID: Hashable, Sendable, CustomStringConvertible {
    /// The slot.
    public let index: UInt32
    /// Which life of the slot.
    public let generation: UInt32

    package init(index: UInt32, generation: UInt32) {
        self.index = index
        self.generation = generation
    }

    public var description: String { "UDP socket \(index).\(generation)" }
}

/// What a single UDP socket wants otherwise than its stack.
public struct UDPOptions: Sendable {
    /// `nil` is the stack's `udpReceiveBufferMaximum`. Below 65,535 it is 65,535.
    public var receiveBufferMaximum: Int?
    /// `nil` is the stack's `udpSendBufferMaximum`. Below 65,535 it is 65,535.
    public var sendBufferMaximum: Int?
    /// TTL or Hop Limit of what is sent (RFC 1122 §4.1.4).
    public var hopLimit: UInt8 = 64
    /// The TOS or Traffic Class octet of what is sent, ECN bits included (RFC 1122 §4.1.4, RFC 8085 §3.1.7).
    public var trafficClass: UInt8 = 0

    public init() {}
}

/// What came with a datagram that was received.
public struct UDPDatagram: Hashable, Sendable {
    /// Bytes that were copied out.
    public var count: Int
    /// Bytes that were sent.
    public var length: Int
    /// Where it came from. Port 0: the sender wants no answer.
    public var source: SocketEndpoint
    /// Which of our addresses it was sent to (RFC 1122 §4.1.3.5).
    public var localAddress: IPAddress

    package init(count: Int, length: Int, source: SocketEndpoint, localAddress: IPAddress) {
        self.count = count
        self.length = length
        self.source = source
        self.localAddress = localAddress
    }

    /// Whether the target was too small; the rest is lost.
    public var wasTruncated: Bool { count < length }
}

/// An ICMP error that quotes a datagram of ours. Whoever knows the ports can forge one: it is a hint (RFC 8085 §5.2).
public struct UDPFailure: Hashable, Sendable {
    public enum Reason: Hashable, Sendable {
        /// Nobody takes datagrams there: port or protocol unreachable, or prohibited.
        case unreachable
        /// No route now, or the hop limit was used up; it may get better.
        case temporary
        /// The packet was larger than `mtu`, which is 0 if the router did not say.
        case packetTooBig(mtu: Int)
    }

    public var reason: Reason
    /// Where the quoted datagram was going.
    public var remote: SocketEndpoint

    package init(reason: Reason, remote: SocketEndpoint) {
        self.reason = reason
        self.remote = remote
    }
}
