import Inet

/// One UDP socket: what came and was not received, what was sent and has not left. UDP has no state; a socket only ends.
///
/// ```
///   open ──closeUDP──► lingering (what was sent still leaves) ──► free
///     └──address or peer is gone──► ended (.udpClosed waits to be taken) ──► free
/// ```
struct UDPSocket: ~Copyable {
    enum Life { case open, lingering, ended }

    struct Events: OptionSet {
        let rawValue: UInt8
        static let datagrams = Events(rawValue: 1)
        static let writable = Events(rawValue: 2)
        static let failure = Events(rawValue: 4)
        static let closed = Events(rawValue: 8)
    }

    /// `nil`: any of our addresses, of both families.
    let address: IPAddress?
    let port: UInt16
    /// The only one that is heard and spoken to, if there is one.
    let remote: SocketEndpoint?
    let hopLimit: UInt8
    let trafficClass: UInt8
    var life = Life.open
    var incoming: DatagramQueue
    var outgoing: DatagramQueue
    var events: Events = []
    /// The last ICMP error, until its event is taken.
    var failure: UDPFailure?
    /// A datagram was refused: `.udpWritable` is owed.
    var isShort = false
    var isQueuedForEvents = false
    var isQueuedForTransmit = false
    /// What the stack's account holds of this socket.
    var accountedBytes = 0
    var accountedMemory = 0

    var heldBytes: Int { incoming.byteCount + outgoing.byteCount }
    var allocatedBytes: Int { incoming.allocatedBytes + outgoing.allocatedBytes }

    /// How well the socket fits a datagram: a fixed remote before a fixed address before none. `nil`: not at all.
    func match(local: IPAddress, remote: SocketEndpoint) -> Int? {
        if let address, address != local { return nil }
        if let fixed = self.remote { return fixed == remote ? 2 : nil }
        return address == nil ? 0 : 1
    }

    /// Writes the oldest datagram that waits as a packet.
    mutating func writeNext(into buffer: inout MutableRawSpan, at offset: Int) -> Range<Int>? {
        guard let next = outgoing.first else { return nil }
        let start = offset + SegmentWriter.ipHeaderLength(next.remote.address.family) + UDPHeader.size
        guard let (record, _) = outgoing.popFirst(into: &buffer, at: start) else { return nil }
        announceRoom()
        return UDPHeader.finish(
            into: &buffer, at: offset, source: SocketEndpoint(record.local, port: port), destination: record.remote,
            payloadLength: record.length, hopLimit: hopLimit, trafficClass: trafficClass)
    }

    /// Whoever was refused may send again.
    mutating func announceRoom() {
        guard isShort, outgoing.isHalfFree, life == .open else { return }
        isShort = false
        events.insert(.writable)
    }
}

/// All UDP sockets of a stack.
struct UDPTable: ~Copyable {
    var sockets = Slab<UDPSocket>()
    var byPort: [UInt16: [Slab<UDPSocket>.Handle]] = [:]
    var eventQueue = Fifo<Slab<UDPSocket>.Handle>()
    var transmitQueue = Fifo<Slab<UDPSocket>.Handle>()
    /// Datagrams that the socket at the head of `transmitQueue` has sent in its turn.
    var burst = 0
    /// Datagrams that may go before TCP's next turn: as many as TCP has sent in its last one.
    var credit = 0
    /// When unused memory is looked for; `nil` while no socket holds any.
    var nextSweep: Instant?
}
