/// A connection of one stack. Dead for ever once its `.closed` event has been taken.
public struct ConnectionID: Hashable, Sendable, CustomStringConvertible {
    /// The slot.
    public let index: UInt32
    /// Which life of the slot.
    public let generation: UInt32

    package init(index: UInt32, generation: UInt32) {
        self.index = index
        self.generation = generation
    }

    public var description: String { "connection \(index).\(generation)" }
}

/// A listening port of one stack.
public struct ListenerID: Hashable, Sendable, CustomStringConvertible {
    public let index: UInt32
    public let generation: UInt32

    package init(index: UInt32, generation: UInt32) {
        self.index = index
        self.generation = generation
    }

    public var description: String { "listener \(index).\(generation)" }
}

/// Why a connection ended.
public enum CloseReason: Sendable, Hashable {
    /// Both sides closed in order.
    case finished
    /// The peer sent a reset.
    case reset
    /// The peer answered our SYN with a reset.
    case refused
    /// No answer within the connect or user timeout, or to keepalive probes.
    case timedOut
    /// We gave it up: `abort`, `close` with unread data, `purge`.
    case aborted
    /// An ICMP error answered our SYN.
    case unreachable
    /// `memoryLimit` was reached, and this connection held most.
    case outOfMemory
}

/// What has happened to a connection or UDP socket. At most one of each kind waits for each.
public enum StackEvent: Sendable, Hashable {
    /// Our `connect` has succeeded.
    case connected(ConnectionID)
    /// A peer has connected to a listener.
    case accepted(ListenerID, ConnectionID)
    /// More in-order bytes can be read. Given once for a batch.
    case readable(ConnectionID)
    /// There is room to write again after a short `write`.
    case writable(ConnectionID)
    /// Urgent data has been announced: see `Stack.urgentBytes`. It is read in line (RFC 9293 §3.8.5).
    case urgent(ConnectionID)
    /// The peer's FIN: nothing follows the bytes that are readable now.
    case inputClosed(ConnectionID)
    /// The peer's reset, while bytes of before it wait to be read: nothing follows them but `.closed`.
    case inputReset(ConnectionID)
    /// The last event of a connection. Its ID is dead.
    case closed(ConnectionID, CloseReason)
    /// Datagrams wait at a UDP socket. Given once for a batch.
    case datagrams(UDPSocketID)
    /// There is room to send again after `sendUDP` answered `false`.
    case udpWritable(UDPSocketID)
    /// An ICMP error about a datagram that this socket has sent; the last one if there were several.
    case udpError(UDPSocketID, UDPFailure)
    /// The socket's address or its peer was taken away. Its ID is dead.
    case udpClosed(UDPSocketID)
}

/// Why a call was refused.
public enum StackError: Error, Hashable, Sendable {
    /// The ID is dead or never lived.
    case noSuchConnection
    /// The write side has been closed, or the connection has ended.
    case outputClosed
    /// The local address is not one of ours, or of the other family.
    case addressNotAvailable
    /// The remote address cannot be one end of a connection.
    case invalidRemote
    /// Another listener or UDP socket has this address and port.
    case portInUse
    /// All ephemeral ports (of TCP: towards this remote endpoint) are taken.
    case portsExhausted
    /// `maximumConnections` is reached.
    case tooManyConnections
    /// The ID of a UDP socket is dead or never lived.
    case noSuchSocket
    /// `maximumUDPSockets` is reached.
    case tooManySockets
    /// More than `limit` bytes would not fit into one packet of the MTU, and nothing that is sent is fragmented.
    case messageTooLarge(limit: Int)
}
