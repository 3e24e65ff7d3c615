import NIOCore

/// What a `WireGuardDatagramChannel` may do now, and the writes whose outcome is not known.
///
/// ```
///   created ─register─► registered ─open─► opening ─activate─► active ─close─► closed
///                                             └───────────close────────────────►┘
/// ```
/// It holds no sockets and fires nothing: it answers what to do.
struct DatagramChannelState {
    private enum Lifecycle { case created, registered, opening, active, closed }

    private struct PendingWrite {
        let cost: Int
        let promise: EventLoopPromise<Void>?
    }

    private var lifecycle = Lifecycle.created
    /// Written, not yet handed to the interface.
    private var unflushed = MarkedCircularBuffer<(lane: Int, datagram: DatagramPort.Outgoing)>(initialCapacity: 8)
    /// By lane, one for each write, in order, until its outcome is told.
    private var pending: [CircularBuffer<PendingWrite>]
    /// Bytes of the writes that are pending, with what each datagram costs beside its data.
    private(set) var bufferedBytes = 0

    /// - Parameter laneCount: the loops of the interface, each of which tells the outcomes of what went to it.
    init(laneCount: Int = 1) { pending = Array(repeating: CircularBuffer(), count: laneCount) }

    var isOpen: Bool { lifecycle != .closed }
    var isActive: Bool { lifecycle == .active }

    mutating func register() {
        switch lifecycle {
        case .created: lifecycle = .registered
        case .registered, .opening, .active, .closed: preconditionFailure("registered twice")
        }
    }

    /// - Returns: whether the socket may be opened now.
    mutating func open() -> Bool {
        switch lifecycle {
        case .registered:
            lifecycle = .opening
            return true
        case .created, .opening, .active, .closed: return false
        }
    }

    mutating func activate() -> Bool {
        switch lifecycle {
        case .opening:
            lifecycle = .active
            return true
        case .created, .registered, .active, .closed: return false
        }
    }

    mutating func close() -> Bool {
        switch lifecycle {
        case .created, .registered, .opening, .active:
            lifecycle = .closed
            return true
        case .closed: return false
        }
    }

    mutating func append(_ datagram: DatagramPort.Outgoing, lane: Int, promise: EventLoopPromise<Void>?) {
        let cost = Self.cost(of: datagram.data)
        bufferedBytes += cost
        unflushed.append((lane, datagram))
        pending[lane].append(PendingWrite(cost: cost, promise: promise))
    }

    mutating func markFlush() { unflushed.mark() }

    var hasFlushed: Bool { unflushed.hasMark }

    /// By lane.
    mutating func takeFlushed() -> [[DatagramPort.Outgoing]] {
        var datagrams = [[DatagramPort.Outgoing]](repeating: [], count: pending.count)
        while unflushed.hasMark, let (lane, datagram) = unflushed.popFirst() { datagrams[lane].append(datagram) }
        return datagrams
    }

    /// The outcome of the lane's oldest write is known.
    mutating func removeFirst(of lane: Int) -> EventLoopPromise<Void>? {
        guard let first = pending[lane].popFirst() else { return nil }
        bufferedBytes -= first.cost
        return first.promise
    }

    mutating func removeAllPromises() -> [EventLoopPromise<Void>] {
        defer {
            for lane in pending.indices { pending[lane].removeAll() }
            unflushed = MarkedCircularBuffer(initialCapacity: 0)
            bufferedBytes = 0
        }
        return pending.flatMap { $0.compactMap(\.promise) }
    }

    /// Empty datagrams count too.
    static func cost(of data: ByteBuffer) -> Int { data.readableBytes + 128 }
}
