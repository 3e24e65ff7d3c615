import Inet
import NIOCore
import NIOWireGuard
import Noise
import Synchronization
import TCPStack

/// The gateway's way to its agents: connections inside WireGuard, each watched by an ``AgentWatch``.
package final class TunnelConnector: Sendable {
    private let interface: WireGuardInterface
    private let patience: AgentPatience
    private let timeout: TimeAmount
    private let inquiries: AgentInquiries
    private let clocks = Mutex<[ObjectIdentifier: NIOLoopBound<ConnectionClock>]>([:])
    /// Agents that fell silent, and when: a retry of the same request must not wait for them again.
    private let silent = Mutex<[IPAddress: NIODeadline]>([:])

    /// - Parameter timeout: for a connect; a session that has to come about first counts in.
    package init(interface: WireGuardInterface, timeout: TimeAmount = ProxyLimits().connect, patience: AgentPatience = AgentPatience()) {
        self.interface = interface
        self.timeout = timeout
        self.patience = patience
        inquiries = AgentInquiries(eventLoop: interface.eventLoop, memory: patience.silence) { remote, source in
            interface.isAnswering(remote, source, within: patience.answer)
        }
    }

    package var connector: UpstreamConnector {
        { target, eventLoop in self.connect(to: target, on: eventLoop) }
    }

    private func connect(to target: UpstreamTarget, on eventLoop: any EventLoop) -> EventLoopFuture<any Channel> {
        guard let address = target.address else {
            return eventLoop.makeFailedFuture(UpstreamFailure.broken("names are not resolved inside the tunnel"))
        }
        if isSilent(address) { return eventLoop.makeFailedFuture(UpstreamFailure.unreachable("the agent has fallen silent")) }
        let remote = SocketEndpoint(address, port: target.port)
        return interface.connect(to: remote, from: target.source, on: eventLoop) { channel in
            channel.setOption(.connectTimeout, value: self.timeout).flatMapThrowing {
                let watch = AgentWatch(
                    inquiries: self.inquiries, remote: remote, source: target.source, patience: self.patience,
                    clock: self.clock(of: channel.eventLoop)
                ) { self.markSilent(address) }
                try channel.pipeline.syncOperations.addHandler(watch)
            }
        }.flatMapErrorThrowing { throw Self.failure($0) }
    }

    private func isSilent(_ address: IPAddress) -> Bool {
        silent.withLock { silent in
            guard let since = silent[address] else { return false }
            if since + Self.memory > .now() { return true }
            silent[address] = nil
            return false
        }
    }

    private func markSilent(_ address: IPAddress) { silent.withLock { $0[address] = .now() } }

    private func clock(of eventLoop: any EventLoop) -> ConnectionClock {
        clocks.withLock { clocks in
            let key = ObjectIdentifier(eventLoop)
            if let clock = clocks[key] { return clock.value }
            let clock = ConnectionClock(eventLoop: eventLoop, interval: patience.resolution)
            clocks[key] = NIOLoopBound(clock, eventLoop: eventLoop)
            return clock
        }
    }

    private static func failure(_ error: any Error) -> UpstreamFailure {
        guard let error = error as? TunnelError else { return UpstreamFailure(error) }
        switch error {
        case .refused: return .refused
        case .timedOut, .unreachable, .noSourceAddress, .unavailable, .messageTooLarge, .queueFull, .interfaceClosed:
            return .unreachable("\(error)")
        case .reset, .aborted, .outOfMemory: return .broken("\(error)")
        }
    }

    /// Longer than a retry takes to be tried, shorter than an agent takes to come back.
    private static let memory = TimeAmount.seconds(1)
}

/// When an agent counts as gone.
package struct AgentPatience: Sendable {
    /// From a write without a byte in return to the question whether somebody is there.
    package var silence = TimeAmount.milliseconds(1000)
    /// For the answer to that.
    package var answer = Duration.seconds(2)
    /// From one question to the next.
    package var pause = TimeAmount.seconds(5)
    package var resolution = TimeAmount.milliseconds(250)
    /// Instead of `silence` once more than `uploadSize` bytes were written without one in return: a request body is on its way.
    package var upload = TimeAmount.seconds(10)
    package var uploadSize = 64 * 1024

    package init() {}
}

/// Finds out within 4 s that an agent is gone while something is expected of it. TCP alone would wait for half a minute, and must: a
/// short outage is no reason to break a connection.
///
///     quiet ──write──► waiting ──1 s without a byte──► asking ──answer, or anything from the peer──► waiting, 5 s
///       ▲                 │                              └──2 s of nothing at all from the peer──► the connection is reset
///       └─────read────────┘
///
/// A slow web server behind a living agent is not disturbed: a new TCP connection is tried, and any packet of the peer counts.
/// A request body on its way has waited long before: it is given 10 s. A relay (``UpgradeHandler``) is left to TCP alone.
/// Bound to its event loop.
final class AgentWatch: ChannelDuplexHandler, RemovableChannelHandler, ClockWatcher {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let inquiries: AgentInquiries
    private let remote: SocketEndpoint
    private let source: IPAddress?
    private let patience: AgentPatience
    private let clock: ConnectionClock
    private let onSilence: () -> Void
    private var context: ChannelHandlerContext?
    private(set) var deadline = NIODeadline.distantFuture
    /// Bytes since the last read: more than a head and a small body are an upload.
    private var written = 0

    init(
        inquiries: AgentInquiries, remote: SocketEndpoint, source: IPAddress?, patience: AgentPatience, clock: ConnectionClock,
        onSilence: @escaping () -> Void
    ) {
        self.inquiries = inquiries
        self.remote = remote
        self.source = source
        self.patience = patience
        self.clock = clock
        self.onSilence = onSilence
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        clock.add(self)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        clock.remove(self)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        written += unwrapOutboundIn(data).readableBytes
        if written > patience.uploadSize {
            deadline = clock.deadline(after: patience.upload)
        } else if deadline == .distantFuture {
            deadline = clock.deadline(after: patience.silence)
        }
        context.write(data, promise: promise)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        deadline = .distantFuture
        written = 0
        context.fireChannelRead(data)
    }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        guard event is RelayBegins else { return context.triggerUserOutboundEvent(event, promise: promise) }
        promise?.succeed(())
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    func deadlineReached() {
        guard let eventLoop = context?.eventLoop else { return }
        // Moved on by the answer; until then long enough not to ask twice.
        deadline = clock.deadline(after: patience.pause)
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        inquiries.ask(remote, from: source).hop(to: eventLoop).whenComplete { result in
            if case .success(true) = result { return }
            bound.value.giveUp()
        }
    }

    private func giveUp() {
        // A byte may have come in the last moment, or the next request may be waiting already.
        guard let context, deadline != .distantFuture else { return }
        onSilence()
        context.fireErrorCaught(UpstreamFailure.unreachable("the agent has fallen silent"))
        context.triggerUserOutboundEvent(WireGuardChannel.AbortEvent(), promise: nil)
    }
}

extension PresentedCertificate: HostCoverage {}

extension CertificateSelector: TLSFront {
    package func makeTLSHandler(
        onWait: @escaping (TimeAmount) -> Void, onAccept: @escaping (any HostCoverage) throws -> Void
    ) -> any ChannelHandler {
        makeHandler(onWait: onWait) { presented in try onAccept(presented) }
    }
}
