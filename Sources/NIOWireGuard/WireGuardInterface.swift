import Inet
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Noise
import TCPStack
import WGUserspace

/// A running WireGuard interface with its own TCP/IP stack: dial and listen on virtual addresses, without a TUN device.
///
/// ```swift
/// let interface = try await WireGuardInterface.start(.init(wgQuick: text), on: group.next()).get()
/// let channel = try await interface.connect(to: SocketEndpoint("10.1.0.2:80")!) { channel in ... }.get()
/// ```
/// Safe to use from any thread. The datagrams, timers and connections run on one event loop; the pipelines of channels run
/// there too unless another loop is asked for.
///
/// Unchecked: its mutable state is touched on `eventLoop` only.
public final class WireGuardInterface: @unchecked Sendable {
    /// The loop that carries the tunnel. Channels on this loop save a thread hop for each read and write.
    public let eventLoop: any EventLoop
    let interfaceLoop: InterfaceLoop
    let resolver: EndpointResolver
    /// What any thread may ask for, as it was last changed.
    let facts: NIOLockedValueBox<Facts>

    struct Facts: Sendable {
        var listenPort: UInt16
        var publicKey: PublicKey
        var addresses: [InterfaceAddress]
    }

    /// The UDP port that is bound.
    public var listenPort: UInt16 { facts.withLockedValue { $0.listenPort } }
    /// The public key; of the last private key if that was taken away.
    public var publicKey: PublicKey { facts.withLockedValue { $0.publicKey } }
    /// The inner addresses.
    public var addresses: [InterfaceAddress] { facts.withLockedValue { $0.addresses } }

    private init(loop: InterfaceLoop, resolver: EndpointResolver, facts: Facts) {
        eventLoop = loop.eventLoop
        interfaceLoop = loop
        self.resolver = resolver
        self.facts = NIOLockedValueBox(facts)
    }

    /// What an interface tells its owner, on its event loop.
    public enum PeerEvent: Equatable, Sendable {
        case sessionEstablished(PublicKey)
        case endpointChanged(PublicKey, SocketEndpoint)
        /// No answer for 90 s. New traffic or a persistent keepalive tries again.
        case handshakeGaveUp(PublicKey)
        /// An initiation with this timestamp goes out: to keep, so that a restart comes after it.
        case timestampSent(TAI64N)
        /// An initiation of the peer was accepted: to keep, so that it is not accepted again after a restart.
        case timestampAccepted(PublicKey, TAI64N)
        /// The first of a row of initiations whose timestamp is not later than the last accepted one: a replay, or a clock that
        /// stepped back. `forgetTimestamp` clears it.
        case timestampRefused(PublicKey, behind: Duration)
        /// The accepted timestamp is more than a day ahead of our clock; it is not to be kept.
        case timestampFarAhead(PublicKey, TAI64N)
        /// Whether handshakes come faster than they can be served; peers then have to prove their address first.
        case underLoad(Bool)
    }

    /// Binds the sockets and starts.
    /// - Parameters:
    ///   - stack: limits and timers of the TCP/IP stack. Its MTU is taken from `configuration`.
    ///   - onPeerEvent: called on `eventLoop`; must not block.
    /// - Throws: (the future fails with) `InterfaceError` if no socket can be bound.
    public static func start(
        _ configuration: InterfaceConfiguration, on eventLoop: any EventLoop, stack: StackConfiguration = .init(),
        logger: Logger = Logger(label: "wireguard"), onPeerEvent: @escaping @Sendable (PeerEvent) -> Void = { _ in }
    ) -> EventLoopFuture<WireGuardInterface> {
        start(
            configuration, on: eventLoop, stack: stack, logger: logger, resolveHost: SystemEdges.resolveHost, onPeerEvent: onPeerEvent)
    }

    /// As above, with a resolver of host names and a clock of suspensions.
    package static func start(
        _ configuration: InterfaceConfiguration, on eventLoop: any EventLoop, stack: StackConfiguration = .init(),
        logger: Logger = Logger(label: "wireguard"), resolveHost: @escaping SystemEdges.HostLookUp,
        timeSuspended: @escaping @Sendable () -> Duration = SystemEdges.timeSuspended,
        onPeerEvent: @escaping @Sendable (PeerEvent) -> Void = { _ in }
    ) -> EventLoopFuture<WireGuardInterface> {
        eventLoop.flatSubmit {
            var stackConfiguration = stack
            stackConfiguration.mtu = configuration.mtu
            var deviceConfiguration = DeviceConfiguration()
            deviceConfiguration.mtu = configuration.mtu
            deviceConfiguration.lastSentTimestamp = configuration.lastSentTimestamp
            deviceConfiguration.cipher = configuration.cipher
            let device = Device(
                privateKey: configuration.privateKey.key.copy(), configuration: deviceConfiguration, random: SystemEdges.random)
            let publicKey = device.publicKey
            let core = InterfaceCore(
                device: device,
                stack: Stack(
                    configuration: stackConfiguration, random: SystemEdges.random, textSource: ByteBufferBlocks()))
            let loop = InterfaceLoop(eventLoop: eventLoop, core: core, logger: logger, timeSuspended: timeSuspended)
            let resolver = EndpointResolver(interface: loop, logger: logger, resolveHost: resolveHost)
            loop.addresses = configuration.addresses
            loop.withCore { core, now in
                core.stack.setAddresses(configuration.addresses.map(\.address), now: now)
            }
            return loop.start(port: configuration.listenPort, mark: configuration.fwmark) { event in
                resolver.handle(event)
                if let told = loop.publicEvent(event) { onPeerEvent(told) }
            }.flatMapThrowing {
                for peer in configuration.peers { try loop.setPeer(peer, resolver: resolver) }
                return WireGuardInterface(
                    loop: loop, resolver: resolver,
                    facts: Facts(listenPort: loop.sockets.port, publicKey: publicKey, addresses: configuration.addresses))
            }.flatMapError { error in
                // The sockets and the events' closure hold the loop.
                loop.close().flatMapThrowing { throw error }
            }
        }
    }

    /// Opens a TCP connection through the tunnel.
    /// - Parameters:
    ///   - remote: the virtual address and port.
    ///   - source: one of our addresses; `nil` takes the one whose block holds `remote`, else the first of its family.
    ///   - options: time limits and keepalive of this connection.
    ///   - eventLoop: where the channel's pipeline runs; `nil` is the interface's own loop.
    ///   - initializer: adds the handlers, on the channel's loop, before it connects.
    /// - Returns: the channel once it is connected. Fails with `TunnelError`.
    public func connect(
        to remote: SocketEndpoint, from source: IPAddress? = nil, options: ConnectionOptions = .tunnelDefault,
        on eventLoop: (any EventLoop)? = nil, initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
    ) -> EventLoopFuture<any Channel> {
        let loop = eventLoop ?? self.eventLoop
        let interfaceLoop = interfaceLoop
        return loop.flatSubmit {
            let channel = WireGuardChannel(eventLoop: loop, options: options)
            channel.start(port: ConnectionPort(interface: interfaceLoop, channel: channel, id: nil))
            return initializer(channel).flatMap {
                let promise = loop.makePromise(of: Void.self)
                channel.connect(to: remote, from: source, promise: promise)
                return promise.futureResult
            }.flatMapErrorThrowing { error in
                channel.close(promise: nil)
                throw error
            }.map { channel as any Channel }
        }
    }

    /// Accepts TCP connections on a virtual address.
    /// - Parameters:
    ///   - address: one of our addresses; `nil` is all of them.
    ///   - port: the TCP port inside the tunnel.
    ///   - backlog: how many connections may wait, half open and established each.
    ///   - group: where the pipelines of accepted channels run; `nil` is the interface's own loop.
    ///   - initializer: adds the handlers to each accepted channel, on its loop, before it becomes active.
    public func listen(
        address: IPAddress? = nil, port: UInt16, backlog: Int = 256, options: ConnectionOptions = .tunnelDefault,
        group: (any EventLoopGroup)? = nil, initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
    ) -> EventLoopFuture<WireGuardListener> {
        let interfaceLoop = interfaceLoop
        return eventLoop.submit {
            let id = try interfaceLoop.listen(address: address, port: port, backlog: backlog, options: options) { id, endpoints in
                let loop = group?.next() ?? interfaceLoop.eventLoop
                let channel = WireGuardChannel(eventLoop: loop, options: options)
                let port = ConnectionPort(interface: interfaceLoop, channel: channel, id: id)
                interfaceLoop.register(port, for: id)
                let begin: @Sendable () -> Void = {
                    channel.start(port: port, endpoints: endpoints)
                    initializer(channel).whenComplete { result in
                        switch result {
                        case .success: channel.becomeActive(local: endpoints.local, remote: endpoints.remote)
                        case .failure: channel.close(promise: nil)
                        }
                    }
                }
                if loop === interfaceLoop.eventLoop { begin() } else { loop.execute(begin) }
            }
            return WireGuardListener(interface: interfaceLoop, id: id)
        }
    }

    // MARK: Peers

    /// Adds the peer, or changes it: an unchanged one keeps its session. Connections to addresses that it takes from another
    /// peer end with `TunnelError.aborted`.
    /// - Throws: (the future fails with) `TunnelError.interfaceClosed`.
    public func setPeer(_ peer: InterfaceConfiguration.Peer) -> EventLoopFuture<Void> {
        eventLoop.submit { try self.interfaceLoop.setPeer(peer, resolver: self.resolver) }
    }

    /// Removes the peer: its keys are wiped, its connections end with `TunnelError.aborted`.
    public func removePeer(_ publicKey: PublicKey) -> EventLoopFuture<Void> {
        eventLoop.submit { self.interfaceLoop.removePeer(publicKey, resolver: self.resolver) }
    }

    /// Tells where the peer was seen last and starts a handshake with it: how a restarted gateway finds its agents.
    /// A peer that is already reachable somewhere keeps its endpoint; an unknown one is ignored.
    public func contact(_ publicKey: PublicKey, at endpoint: SocketEndpoint) -> EventLoopFuture<Void> {
        eventLoop.submit { try self.interfaceLoop.contact(publicKey, at: endpoint) }
    }

    /// What the peers, connections and sockets are doing.
    public func status() -> EventLoopFuture<InterfaceStatus> {
        eventLoop.submit { self.interfaceLoop.status() }
    }

    /// TCP connections with their peers, those first for whom most waits.
    /// - Parameter limit: how many are told of.
    /// - Returns: at most `limit` connections, and how many more there are.
    public func connections(limit: Int) -> EventLoopFuture<(connections: [InterfaceConnection], more: Int)> {
        eventLoop.submit { self.interfaceLoop.connections(limit: limit) }
    }

    /// Bytes that came from the peer whose allowed IPs hold `address`; 0 if nobody does. Cheap, unlike ``status()``.
    public func receivedBytes(fromPeerOwning address: IPAddress) -> EventLoopFuture<UInt64> {
        eventLoop.submit { self.interfaceLoop.receivedBytes(fromPeerOwning: address) }
    }

    /// Waits until the peers have acknowledged what closed channels had still to send, at most for `limit`.
    public func drain(within limit: TimeAmount) -> EventLoopFuture<Void> {
        eventLoop.flatSubmit { self.interfaceLoop.drain(until: .now() + limit) }
    }

    /// Resets every connection and closes the sockets. Keys are wiped. Completes when every channel has closed, so the loops of
    /// all channels must still run.
    ///
    /// What an application has closed itself may still have bytes to send: they are lost, unless `drain` has been waited for.
    public func close() -> EventLoopFuture<Void> {
        eventLoop.flatSubmit {
            self.resolver.close()
            return self.interfaceLoop.close()
        }
    }
}

/// A TCP listener inside the tunnel.
public final class WireGuardListener: Sendable {
    private let interface: InterfaceLoop
    private let id: ListenerID

    init(interface: InterfaceLoop, id: ListenerID) {
        self.interface = interface
        self.id = id
    }

    /// Stops accepting; accepted connections live on.
    public func close() -> EventLoopFuture<Void> {
        let (interface, id) = (interface, id)
        return interface.eventLoop.submit { interface.closeListener(id) }
    }
}

extension ConnectionOptions {
    /// For connections through a tunnel: 3 s to connect, gives up 60 s after the peer falls silent, so that a cable
    /// may be out for half a minute; asks after 15 s, then every 11.25 s.
    public static var tunnelDefault: ConnectionOptions {
        var options = ConnectionOptions()
        options.connectTimeout = .seconds(3)
        options.userTimeout = .seconds(60)
        options.keepalive = .seconds(15)
        return options
    }
}
