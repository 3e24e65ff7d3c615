import TCPStack

/// Why a connection inside WireGuard could not be made, or ended.
public enum TunnelError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The peer answered with a reset: nothing listens on that port.
    case refused
    /// No answer in time: no WireGuard session, or the host behind it is silent.
    case timedOut
    /// The peer reset the connection.
    case reset
    /// The peer's network says that the destination cannot be reached.
    case unreachable
    /// We reset the connection: the interface was closed or the peer removed.
    case aborted
    /// No address of this interface has the destination's family.
    case noSourceAddress
    /// The stack refused: its limit is reached or the address is in use. The text names it.
    case unavailable(String)
    /// A datagram of more than `limit` bytes does not fit into one packet of the interface's MTU.
    case messageTooLarge(limit: Int)
    /// The channel holds as many datagrams as it may: the writer did not look at `isWritable`.
    case queueFull
    /// The interface is closed.
    case interfaceClosed
    /// The buffers of all connections together had reached their limit, and those of this one were the largest.
    case outOfMemory

    init?(_ reason: CloseReason) {
        switch reason {
        case .finished: return nil
        case .reset: self = .reset
        case .refused: self = .refused
        case .timedOut: self = .timedOut
        case .aborted: self = .aborted
        case .unreachable: self = .unreachable
        case .outOfMemory: self = .outOfMemory
        }
    }

    public var description: String {
        switch self {
        case .refused: "connection refused inside the tunnel"
        case .timedOut: "no answer through the tunnel in time"
        case .reset: "connection reset inside the tunnel"
        case .unreachable: "destination unreachable inside the tunnel"
        case .aborted: "connection aborted"
        case .outOfMemory: "connection dropped: it held most of the memory that all connections may have"
        case .noSourceAddress: "the interface has no address of the destination's family"
        case .unavailable(let reason): "the tunnel's TCP/IP stack refused: \(reason)"
        case .messageTooLarge(let limit): "the datagram is larger than \(limit) bytes, which is what fits into one packet of the tunnel"
        case .queueFull: "too many datagrams wait to be sent through the tunnel"
        case .interfaceClosed: "the WireGuard interface is closed"
        }
    }
}
