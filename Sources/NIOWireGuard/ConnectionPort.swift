import Inet
import NIOCore
import Synchronization
import TCPStack

/// The interface loop's end of a `WireGuardChannel`: what waits for room in the send buffer, and whether the channel
/// wants to read. Bound to the interface's event loop; the channel's end may live on another one.
///
/// A message wakes the other loop, so two things that most often need nobody's attention are told without one: that the channel wants to
/// read, and that the stack has taken bytes. Each is an atomic value beside a flag that says that the other side waits for it. One side sets
/// its value and looks at the flag, the other sets the flag and looks at the value: in one order for all, so that one of them sees the other's.
///
/// Not sendable by itself: it crosses loops only as an opaque reference inside mailbox messages, and every member but the
/// atomic ones is touched on the interface's loop.
final class ConnectionPort: QueuedPort, @unchecked Sendable {
    /// What the channel asks of the interface.
    enum Request: Sendable {
        case connect(to: SocketEndpoint, from: IPAddress?, options: ConnectionOptions)
        case write([ByteBuffer])
        /// There is something, and it is wanted now.
        case read
        case closeOutput
        case close
        case abort
        /// A reset behind what was written, unless the peer has taken nothing more of it for so long.
        case abortOnceAcknowledged(patience: TimeAmount)
    }

    /// What the interface tells the channel.
    enum Notice: Sendable {
        case connected(local: SocketEndpoint, remote: SocketEndpoint)
        case received(ByteBuffer)
        case inputClosed
        /// ``takeAccepted()`` has something for a channel that waits for it.
        case accepted
        case outputClosed
        case closed(TunnelError?)
    }

    let interface: InterfaceLoop
    /// `nil` once one side has let go of the other.
    private(set) var channel: WireGuardChannel?
    private let toInterface: Mailbox<Request>?
    private let toChannel: Mailbox<Notice>?

    fileprivate(set) var id: ConnectionID?
    private var waiting = CircularBuffer<ByteBuffer>(initialCapacity: 2)
    private var isOutputClosing = false
    private var isAborting = false
    private let wantsRead = Atomic<Bool>(false)
    /// There are bytes, or the end of input, for which the channel has not asked.
    private let hasUnread = Atomic<Bool>(false)
    private let accepted = Atomic<Int>(0)
    private let wantsAccepted = Atomic<Bool>(false)
    private var hasInputEnded = false
    private var hasReportedInputEnd = false
    var isQueuedForRead = false

    init(interface: InterfaceLoop, channel: WireGuardChannel, id: ConnectionID?) {
        self.interface = interface
        self.channel = channel
        self.id = id
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

    // MARK: Without a message, on the channel's loop

    func read() {
        wantsRead.store(true, ordering: .sequentiallyConsistent)
        if hasUnread.load(ordering: .sequentiallyConsistent) { request(.read) }
    }

    func pauseRead() { wantsRead.store(false, ordering: .sequentiallyConsistent) }

    /// Whether a notice shall come when the stack has taken more. Then ask ``takeAccepted()`` for what it has taken before.
    func waitForAccepted(_ waits: Bool) { wantsAccepted.store(waits, ordering: .sequentiallyConsistent) }

    /// - Returns: bytes that the stack has taken since the last time.
    func takeAccepted() -> Int { accepted.exchange(0, ordering: .sequentiallyConsistent) }

    var acceptedBytes: Int { accepted.load(ordering: .sequentiallyConsistent) }

    private func notify(_ notice: Notice) {
        guard let channel else { return }
        if let toChannel {
            toChannel.post(notice) { channel.handle($0) }
        } else {
            channel.handle(notice)
        }
    }

    // MARK: Requests, on the interface's loop

    private func handle(_ request: Request) {
        interface.eventLoop.preconditionInEventLoop()
        guard channel != nil else { return }
        switch request {
        case .connect(let remote, let source, let options):
            switch interface.connect(port: self, to: remote, from: source, options: options) {
            case .success(let id): self.id = id
            case .failure(let error): finish(error)
            }
        case .write(let buffers):
            waiting.append(contentsOf: buffers)
            pump()
        case .read: interface.queueForRead(self)
        case .closeOutput:
            isOutputClosing = true
            pump()
        // With bytes left that have to be followed by a reset, an orderly end would make them look complete.
        case .close: letGo { isAborting ? interface.abort($0) : interface.close($0) }
        case .abort: letGo { interface.abort($0) }
        case .abortOnceAcknowledged(let patience):
            isAborting = true
            watchProgress(every: patience, left: .max)
            pump()
        }
    }

    /// The channel has closed itself and wants to hear nothing more.
    private func letGo(_ end: (ConnectionID) -> Void) {
        channel = nil
        waiting.removeAll()
        guard let id else { return }
        end(id)
        interface.forget(id, port: self)
        self.id = nil
    }

    /// Moves waiting bytes into the send buffer, as far as it has room.
    private func pump() {
        guard let id, channel != nil else { return }
        var accepted = 0
        while let first = waiting.first {
            let count = interface.write(first, to: id)
            accepted += count
            if count == first.readableBytes {
                waiting.removeFirst()
            } else {
                waiting[waiting.startIndex].moveReaderIndex(forwardBy: count)
                break
            }
        }
        // Handlers may write or close from here on, and come back to this method.
        if accepted > 0 {
            self.accepted.add(accepted, ordering: .sequentiallyConsistent)
            if wantsAccepted.load(ordering: .sequentiallyConsistent) { notify(.accepted) }
        }
        guard self.id == id, waiting.isEmpty else { return }
        if isOutputClosing {
            isOutputClosing = false
            interface.closeWrite(id)
            notify(.outputClosed)
        }
        guard self.id == id, isAborting else { return }
        isAborting = false
        interface.abortOnceAcknowledged(id)
    }

    /// A peer that shuts its window would put the reset off for ever.
    private func watchProgress(every patience: TimeAmount, left before: Int) {
        interface.eventLoop.assumeIsolated().scheduleTask(in: patience) { [self] in
            guard let id, channel != nil else { return }
            let left = waiting.reduce(interface.unacknowledgedBytes(id)) { $0 + $1.readableBytes }
            if left < before { watchProgress(every: patience, left: left) } else { interface.abort(id) }
        }
    }

    // MARK: Events of the stack, on the interface's loop

    func handleConnected(local: SocketEndpoint, remote: SocketEndpoint) {
        notify(.connected(local: local, remote: remote))
        pump()
    }

    func handleWritable() { pump() }

    func handleInputClosed() {
        hasInputEnded = true
        interface.queueForRead(self)
    }

    /// Like a socket of the system's, it gives what is there, wanted or not: a channel that reads nothing has to hear of the reset, too.
    func handleInputReset() {
        while let id, channel != nil, let buffer = interface.read(id) {
            wantsRead.store(false, ordering: .sequentiallyConsistent)
            notify(.received(buffer))
        }
    }

    /// Gives the channel one buffer, or the end of input, if it asked to read. Called once a turn.
    func deliver() {
        guard let id, channel != nil, interface.hasText(id) || isInputEndDue, takeWish() else { return }
        if let buffer = interface.read(id) {
            if isInputEndDue { hasUnread.store(true, ordering: .sequentiallyConsistent) }
            notify(.received(buffer))
        } else {
            hasReportedInputEnd = true
            notify(.inputClosed)
        }
    }

    private var isInputEndDue: Bool { hasInputEnded && !hasReportedInputEnd }

    /// - Returns: whether the channel has asked for what there is; else it will say so when it does.
    private func takeWish() -> Bool {
        hasUnread.store(true, ordering: .sequentiallyConsistent)
        guard wantsRead.exchange(false, ordering: .sequentiallyConsistent) else { return false }
        hasUnread.store(false, ordering: .sequentiallyConsistent)
        return true
    }

    /// The connection is gone, or we let go of it. Nothing is heard of it afterwards.
    func finish(_ error: TunnelError?) {
        guard channel != nil else { return }
        waiting.removeAll()
        // Everything has been read: the end of input may still wait for its turn.
        if error == nil || error == .reset, hasInputEnded, !hasReportedInputEnd {
            hasReportedInputEnd = true
            notify(.inputClosed)
        }
        notify(.closed(error))
        channel = nil
        if let id { interface.forget(id, port: self) }
        id = nil
    }
}

/// A port that has something to deliver in this turn of the interface's loop.
protocol QueuedPort: AnyObject {
    /// Whether the port stands in the interface's list of ports to look at in this turn.
    var isQueuedForRead: Bool { get set }
    func deliver()
}
