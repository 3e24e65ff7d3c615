import Inet
import Noise
import TCPStack
import WGUserspace

/// What a running interface is doing, at one moment.
public struct InterfaceStatus: Sendable {
    package init() {}

    public var peers: [PeerStatus] = []
    /// The moment of the snapshot, on the clock of `PeerStatus.lastHandshake`.
    public var now = Instant(nanoseconds: 0)
    public var tcpConnections = 0
    public var timeWaitConnections = 0
    public var listeners = 0
    public var udpSockets = 0
    public var bufferedBytes = 0
    /// What the TCP/IP stack has done, and its connections by state.
    public var tcp = StackTotals()
    /// Drops by reason, those that happened.
    public var drops: [(reason: String, count: UInt64)] = []
    public var datagramsSent = 0
    public var sendCalls = 0
    public var datagramsReceived = 0
    public var sendErrors = 0
    public var receiveErrors = 0
    /// Handshakes by outcome, and the like.
    public var counters = DeviceCounters()
    /// Whether handshakes come faster than they can be served.
    public var isUnderLoad = false
    /// Handshake messages that wait.
    public var queuedHandshakes = 0
    /// What each loop has of it, in their order.
    public var loops: [Loop] = []

    /// One loop of an interface.
    public struct Loop: Sendable, Equatable {
        public var peers = 0
        public var datagramsSent = 0
        public var datagramsReceived = 0

        package init() {}
    }

    /// All loops together, each of which has told of itself alone.
    init(joining loops: [InterfaceStatus]) {
        self = loops[0]
        guard loops.count > 1 else { return }
        // Listeners and UDP sockets in the tunnel are on every loop: they are counted once.
        for other in loops.dropFirst() { add(other) }
    }

    private mutating func add(_ other: InterfaceStatus) {
        peers += other.peers
        now = max(now, other.now)
        tcpConnections += other.tcpConnections
        timeWaitConnections += other.timeWaitConnections
        bufferedBytes += other.bufferedBytes
        tcp.add(other.tcp)
        for (reason, count) in other.drops {
            if let index = drops.firstIndex(where: { $0.reason == reason }) {
                drops[index].count &+= count
            } else {
                drops.append((reason, count))
            }
        }
        datagramsSent += other.datagramsSent
        sendCalls += other.sendCalls
        datagramsReceived += other.datagramsReceived
        sendErrors += other.sendErrors
        receiveErrors += other.receiveErrors
        counters.add(other.counters)
        isUnderLoad = isUnderLoad || other.isUnderLoad
        queuedHandshakes += other.queuedHandshakes
        loops += other.loops
    }
}

/// A TCP connection in the tunnel and who is at its other end.
public struct InterfaceConnection: Sendable {
    public var statistics: ConnectionStatistics
    /// `nil` if the remote address belongs to no peer any more.
    public var peer: PublicKey?

    /// The lists of several loops as one.
    static func join(_ lists: [(connections: [InterfaceConnection], more: Int)], limit: Int) -> (
        connections: [InterfaceConnection], more: Int
    ) {
        guard lists.count > 1 else { return lists[0] }
        func order(_ connection: InterfaceConnection) -> (Int, UInt64) {
            let statistics = connection.statistics
            return (statistics.unacknowledgedBytes + statistics.unreadBytes, statistics.bytesSent &+ statistics.bytesReceived)
        }
        let all = lists.flatMap(\.connections).sorted { order($0) > order($1) }
        let shown = Array(all.prefix(max(0, limit)))
        return (shown, lists.reduce(all.count - shown.count) { $0 + $1.more })
    }
}

extension InterfaceLoop {
    func connections(limit: Int) -> (connections: [InterfaceConnection], more: Int) {
        withCore { core, now in
            let (list, more) = core.stack.statistics(limit: limit, now: now)
            var names: [PeerID: PublicKey] = [:]
            let connections = list.map { statistics in
                let id = core.device.peer(owning: statistics.remote.address)
                if let id, names[id] == nil { names[id] = core.device.status(of: id)?.publicKey }
                return InterfaceConnection(statistics: statistics, peer: id.flatMap { names[$0] })
            }
            return (connections, more)
        }
    }

    func status() -> InterfaceStatus {
        var status = InterfaceStatus()
        let udp = udpCounters
        withCore { core, now in
            status.now = now
            for id in core.device.peerIDs {
                if let peer = core.device.status(of: id, now: now) { status.peers.append(peer) }
            }
            status.counters = core.device.counters
            status.isUnderLoad = core.device.isUnderLoad(now: now)
            status.queuedHandshakes = core.device.queuedHandshakeCount
            let counts = core.stack.counts
            status.tcpConnections = counts.connections
            status.timeWaitConnections = counts.timeWait
            status.listeners = counts.listeners
            status.udpSockets = counts.udpSockets
            status.bufferedBytes = counts.bufferedBytes
            status.tcp = core.stack.totals
            status.drops = core.device.drops.nonZero.map { ("wireguard \($0.reason)", $0.count) }
            let stackDrops = core.stack.drops
            status.drops += TCPStack.DropReason.allCases.compactMap {
                stackDrops[$0] == 0 ? nil : ("tcp/ip \($0)", stackDrops[$0])
            }
        }
        status.datagramsSent = udp.datagramsSent
        status.sendCalls = udp.sendCalls
        status.datagramsReceived = udp.datagramsReceived
        status.sendErrors = udp.sendErrors
        status.receiveErrors = udp.receiveErrors
        var loop = InterfaceStatus.Loop()
        loop.peers = status.peers.count
        loop.datagramsSent = udp.datagramsSent
        loop.datagramsReceived = udp.datagramsReceived
        status.loops = [loop]
        return status
    }

    func receivedBytes(fromPeerOwning address: IPAddress) -> UInt64 {
        withCore { core, now in
            core.device.peer(owning: address).flatMap { core.device.status(of: $0, now: now)?.receivedBytes } ?? 0
        }
    }

    func publicEvent(_ event: DeviceEvent) -> WireGuardInterface.PeerEvent? {
        func key(_ id: PeerID) -> PublicKey? { withCore { core, _ in core.device.status(of: id)?.publicKey } }
        switch event {
        case .sessionEstablished(let id): return key(id).map { .sessionEstablished($0) }
        case .endpointChanged(let id, let endpoint): return key(id).map { .endpointChanged($0, endpoint) }
        case .handshakeGaveUp(let id): return key(id).map { .handshakeGaveUp($0) }
        case .handshakeRetry, .sessionStale: return nil
        case .timestampSent(let sent): return .timestampSent(sent)
        case .timestampAccepted(let id, let accepted): return key(id).map { .timestampAccepted($0, accepted) }
        case .timestampRefused(let id, _):
            guard let peer = withCore({ core, _ in core.device.status(of: id) }) else { return nil }
            return .timestampRefused(peer.publicKey, behind: peer.refusedTimestampBehind ?? .zero)
        case .timestampFarAhead(let id, let accepted): return key(id).map { .timestampFarAhead($0, accepted) }
        case .underLoad(let isUnderLoad): return .underLoad(isUnderLoad)
        }
    }
}
