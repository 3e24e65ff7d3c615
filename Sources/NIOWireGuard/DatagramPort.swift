import Inet
import NIOCore
import TCPStack

/// One interface loop's end of a `WireGuardDatagramChannel`: what waits for room in the socket's queue, and how much the channel
/// wants to read. Bound to the interface's event loop; the channel's end may live on another one.
///
/// Not sendable by itself: it crosses loops only as an opaque reference inside mailbox messages, and every member is
/// touched on the interface's loop.
final class DatagramPort: QueuedPort, @unchecked Sendable {
    /// What a socket is opened with.
    struct Opening: Sendable {
        var address: IPAddress?
        var port: UInt16?
        var remote: SocketEndpoint?
        var options: UDPOptions
    }

    struct Outgoing: Sendable {
        var data: ByteBuffer
        /// `nil` is the fixed remote.
        var remote: SocketEndpoint?
        /// `nil` is the interface's choice.
        var source: IPAddress?
    }

    /// What the channel asks of the interface.
    enum Request: Sendable {
        case open(Opening)
        case write([Outgoing])
        case read(maximum: Int)
        case pauseRead
        case close
    }

    /// What the interface tells the channel.
    enum Notice: Sendable {
        case opened(local: SocketEndpoint, remote: SocketEndpoint?)
        case received([AddressedEnvelope<ByteBuffer>])
        /// What became of the oldest writes, in order: `nil` is queued to be sent.
        case written([TunnelError?])
        case failed(UDPFailure)
        case closed(TunnelError?)
    }

    let interface: InterfaceLoop
    /// `nil` once one side has let go of the other.
    private(set) var channel: WireGuardDatagramChannel?
    /// The number of the loop: each has a port of the channel.
    private let lane: Int
    private let toInterface: Mailbox<Request>?
    private let toChannel: Mailbox<Notice>?

    private(set) var id: UDPSocketID?
    private var isWildcard = false
    /// Bounded by the channel: see `WireGuardDatagramChannel.maximumBufferedBytes`.
    private var waiting = CircularBuffer<Outgoing>()
    /// How many datagrams the channel takes; 0: it has not asked.
    private var wanted = 0
    var isQueuedForRead = false
    /// Most datagrams of a batch have one source, and `SocketAddress` allocates.
    private var lastSource: (endpoint: SocketEndpoint, address: SocketAddress)?
    private var lastLocal: (endpoint: SocketEndpoint, address: SocketAddress)?

    init(interface: InterfaceLoop, channel: WireGuardDatagramChannel, lane: Int) {
        self.interface = interface
        self.channel = channel
        self.lane = lane
        if interface.eventLoop === channel.eventLoop {
            toInterface = nil
            toChannel = nil
        } else {
            toInterface = Mailbox(into: interface.eventLoop)
            toChannel = Mailbox(into: channel.eventLoop)
        }
    }

    /// Called on the channel's loop.
    func request(_ request: Request) {
        if let toInterface {
            toInterface.post(request) { [self] in handle($0) }
        } else {
            handle(request)
        }
    }

    private func notify(_ notice: Notice) {
        guard let channel else { return }
        if let toChannel {
            toChannel.post(notice) { [lane] in channel.handle($0, from: lane) }
        } else {
            channel.handle(notice, from: lane)
        }
    }

    // MARK: Requests, on the interface's loop

    private func handle(_ request: Request) {
        interface.eventLoop.preconditionInEventLoop()
        guard channel != nil else { return }
        switch request {
        case .open(let opening):
            switch interface.openUDP(port: self, opening) {
            case .success(let opened):
                id = opened.id
                isWildcard = opened.address == nil
                notify(.opened(local: SocketEndpoint(opened.address ?? .anyV6, port: opened.port), remote: opening.remote))
            case .failure(let error): finish(error)
            }
        case .write(let datagrams):
            waiting.append(contentsOf: datagrams)
            pump()
        case .read(let maximum):
            wanted = maximum
            interface.queueForRead(self)
        case .pauseRead: wanted = 0
        case .close:
            channel = nil
            waiting.removeAll()
            guard let id else { return }
            interface.closeUDP(id, port: self)
            self.id = nil
        }
    }

    /// Moves waiting datagrams into the socket's queue, as far as it has room.
    private func pump() {
        guard let id, channel != nil else { return }
        var outcomes: [TunnelError?] = []
        while let first = waiting.first {
            if first.remote == .nobody {
                waiting.removeFirst()
                outcomes.append(.aborted)
                continue
            }
            switch interface.send(first, on: id, isWildcard: isWildcard) {
            case .success(true): outcomes.append(nil)
            case .failure(let error): outcomes.append(error)
            case .success(false):
                if !outcomes.isEmpty { notify(.written(outcomes)) }
                return
            }
            waiting.removeFirst()
        }
        // Handlers may write or close from here on, and come back to this method.
        if !outcomes.isEmpty { notify(.written(outcomes)) }
    }

    // MARK: Events of the stack, on the interface's loop

    func handleWritable() { pump() }

    func handleFailure(_ failure: UDPFailure) { notify(.failed(failure)) }

    /// Gives the channel what it asked to read. Called once a turn.
    func deliver() {
        guard let id, wanted > 0, channel != nil else { return }
        var batch: [AddressedEnvelope<ByteBuffer>] = []
        while batch.count < wanted, let (datagram, data) = interface.receiveUDP(id) {
            guard let envelope = envelope(datagram, data) else { continue }
            batch.append(envelope)
        }
        guard !batch.isEmpty else { return }
        wanted = 0
        notify(.received(batch))
    }

    private func envelope(_ datagram: UDPDatagram, _ data: ByteBuffer) -> AddressedEnvelope<ByteBuffer>? {
        guard let source = Self.socketAddress(datagram.source, cache: &lastSource) else { return nil }
        guard isWildcard,
            let local = Self.socketAddress(SocketEndpoint(datagram.localAddress, port: 0), cache: &lastLocal)
        else { return AddressedEnvelope(remoteAddress: source, data: data) }
        // An answer that takes the metadata along leaves from where the question went (RFC 1122 §4.1.3.5).
        let packetInfo = NIOPacketInfo(destinationAddress: local, interfaceIndex: 0)
        return AddressedEnvelope(
            remoteAddress: source, data: data, metadata: .init(ecnState: .transportNotCapable, packetInfo: packetInfo))
    }

    private static func socketAddress(
        _ endpoint: SocketEndpoint, cache: inout (endpoint: SocketEndpoint, address: SocketAddress)?
    ) -> SocketAddress? {
        if let cache, cache.endpoint == endpoint { return cache.address }
        guard let address = SocketAddress(endpoint) else { return nil }
        cache = (endpoint, address)
        return address
    }

    /// Where datagrams wait to go.
    var waitingRemotes: [IPAddress] { waiting.compactMap { $0.remote?.address } }

    /// What waits to go to `remotes` goes nowhere: they belong to somebody else now.
    func purge(_ isGone: (IPAddress) -> Bool) {
        // The outcomes are told in order: what is gone fails when its turn comes.
        for index in waiting.indices {
            if let remote = waiting[index].remote, isGone(remote.address) { waiting[index].remote = .nobody }
        }
    }

    /// The socket is gone, or we let go of it. Nothing is heard of it afterwards.
    func finish(_ error: TunnelError?) {
        guard channel != nil else { return }
        waiting.removeAll()
        notify(.closed(error))
        channel = nil
        if let id { interface.forget(id, port: self) }
        id = nil
    }
}

extension SocketEndpoint {
    /// No datagram goes there.
    fileprivate static let nobody = SocketEndpoint(.anyV4, port: 0)
}
