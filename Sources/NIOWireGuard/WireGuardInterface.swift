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
/// ## Several loops
/// An interface may run on several event loops (``start(_:onEach:stack:logger:onPeerEvent:)``). Each peer belongs to one of them, chosen
/// by its public key, with its session, its connections and all of its work; the loops share the UDP port and nothing else. A peer is
/// never faster than one loop, and bounds of the stack are each loop's own.
///
/// Unchecked: its mutable state is touched on the event loops only, or locked.
public final class WireGuardInterface: @unchecked Sendable {
    /// The first loop that carries the tunnel; the only one as a rule. Channels on the loop of their peer save a thread hop for each read
    /// and write.
    public let eventLoop: any EventLoop
    /// One for each loop, at least one.
    let members: [Member]
    /// `nil` with one loop, which binds its own sockets.
    let sharedPort: SharedPort?
    /// What any thread may ask for, as it was last changed.
    let facts: NIOLockedValueBox<Facts>

    struct Member: Sendable {
        let loop: InterfaceLoop
        let resolver: EndpointResolver
    }

    struct Facts: Sendable {
        var listenPort: UInt16
        var publicKey: PublicKey
        var addresses: [InterfaceAddress]
        var directory: PeerDirectory
    }

    /// The UDP port that is bound.
    public var listenPort: UInt16 { facts.withLockedValue { $0.listenPort } }
    /// The public key; of the last private key if that was taken away.
    public var publicKey: PublicKey { facts.withLockedValue { $0.publicKey } }
    /// The inner addresses.
    public var addresses: [InterfaceAddress] { facts.withLockedValue { $0.addresses } }
    /// How many loops there are; fewer than asked for if the kernel cannot share a port among them.
    public var loopCount: Int { members.count }
    /// The number of the loop that has the peer, or would: 0 to `loopCount - 1`.
    public func loopNumber(of peer: PublicKey) -> Int { LoopShare(0, of: members.count).loop(of: peer) }

    init(members: [Member], sharedPort: SharedPort?, facts: Facts) {
        eventLoop = members[0].loop.eventLoop
        self.members = members
        self.sharedPort = sharedPort
        self.facts = NIOLockedValueBox(facts)
    }

    /// For tests: a loop loses a socket, as after a read error.
    package func loseSocket(of loop: Int, _ family: IPAddress.Family) -> EventLoopFuture<Void> {
        let interfaceLoop = members[loop].loop
        return interfaceLoop.eventLoop.flatSubmit { interfaceLoop.sockets.closeForTesting(family) }
    }

    // MARK: Loops

    func member(of peer: PublicKey) -> Member { members[loopNumber(of: peer)] }

    /// Where connections to `address` belong.
    func member(owning address: IPAddress) -> Member {
        members.count == 1 ? members[0] : members[facts.withLockedValue { $0.directory.loop(owning: address) }]
    }

    /// Runs `body` on every loop.
    /// - Returns: the results in the order of the loops, on the first one.
    func onEach<Result: Sendable>(_ body: @escaping @Sendable (Member) throws -> Result) -> EventLoopFuture<[Result]> {
        EventLoopFuture.whenAllSucceed(members.map { member in member.loop.eventLoop.submit { try body(member) } }, on: eventLoop)
    }

    /// The same for what takes longer.
    func awaitEach(_ body: @escaping @Sendable (Member) -> EventLoopFuture<Void>) -> EventLoopFuture<Void> {
        EventLoopFuture.andAllSucceed(members.map { member in member.loop.eventLoop.flatSubmit { body(member) } }, on: eventLoop)
    }

    /// Changes the peers: of the directory, then of each loop. All loops hear of all changes in the order in which the directory saw them,
    /// so that they agree in the end who owns what, whoever changes what at the same time.
    func change<Result: Sendable>(
        _ update: (inout PeerDirectory) -> [AllowedIPsPlacement],
        _ body: @escaping @Sendable (Member, [AllowedIPsPlacement]) throws -> Result
    ) -> EventLoopFuture<[Result]> {
        facts.withLockedValue { facts in
            let placement = update(&facts.directory)
            return onEach { try body($0, placement) }
        }
    }

    /// What an interface tells its owner, on the event loop of the peer.
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

    /// Opens a TCP connection through the tunnel.
    /// - Parameters:
    ///   - remote: the virtual address and port.
    ///   - source: one of our addresses; `nil` takes the one whose block holds `remote`, else the first of its family.
    ///   - options: time limits and keepalive of this connection.
    ///   - eventLoop: where the channel's pipeline runs; `nil` is the loop of the peer.
    ///   - initializer: adds the handlers, on the channel's loop, before it connects.
    /// - Returns: the channel once it is connected. Fails with `TunnelError`.
    public func connect(
        to remote: SocketEndpoint, from source: IPAddress? = nil, options: ConnectionOptions = .tunnelDefault,
        on eventLoop: (any EventLoop)? = nil, initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
    ) -> EventLoopFuture<any Channel> {
        let interfaceLoop = member(owning: remote.address).loop
        let loop = eventLoop ?? interfaceLoop.eventLoop
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
    ///   - backlog: how many connections may wait, half open and established each, on each loop.
    ///   - group: where the pipelines of accepted channels run; `nil` is the loop of the peer.
    ///   - initializer: adds the handlers to each accepted channel, on its loop, before it becomes active.
    public func listen(
        address: IPAddress? = nil, port: UInt16, backlog: Int = 256, options: ConnectionOptions = .tunnelDefault,
        group: (any EventLoopGroup)? = nil, initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
    ) -> EventLoopFuture<WireGuardListener> {
        let listener = WireGuardListener()
        return onEach { member in
            let interfaceLoop = member.loop
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
            listener.add(id, of: interfaceLoop)
        }.map { _ in listener }.flatMapError { error in
            // One loop may have room for one more listener, and another one not.
            listener.close(on: self.eventLoop).flatMapThrowing { throw error }
        }
    }

    // MARK: Peers

    /// Adds the peer, or changes it: an unchanged one keeps its session. Connections to addresses that it takes from another
    /// peer end with `TunnelError.aborted`.
    /// - Throws: (the future fails with) `TunnelError.interfaceClosed`.
    public func setPeer(_ peer: InterfaceConfiguration.Peer) -> EventLoopFuture<Void> {
        change {
            $0.setPeer(peer.publicKey, allowedIPs: peer.allowedIPs)
        } _: { member, placement in
            try member.loop.setPeer(peer, placement: placement, resolver: member.resolver)
        }.map { _ in }
    }

    /// Removes the peer: its keys are wiped, its connections end with `TunnelError.aborted`.
    public func removePeer(_ publicKey: PublicKey) -> EventLoopFuture<Void> {
        change {
            $0.removePeer(publicKey)
        } _: { member, placement in
            member.loop.removePeer(publicKey, placement: placement, resolver: member.resolver)
        }.map { _ in }
    }

    /// Tells where the peer was seen last and starts a handshake with it: how a restarted gateway finds its agents.
    /// A peer that is already reachable somewhere keeps its endpoint; an unknown one is ignored.
    public func contact(_ publicKey: PublicKey, at endpoint: SocketEndpoint) -> EventLoopFuture<Void> {
        let loop = member(of: publicKey).loop
        return loop.eventLoop.submit { try loop.contact(publicKey, at: endpoint) }.hop(to: eventLoop)
    }

    /// What the peers, connections and sockets are doing.
    public func status() -> EventLoopFuture<InterfaceStatus> { onEach { $0.loop.status() }.map { InterfaceStatus(joining: $0) } }

    /// TCP connections with their peers, those first for whom most waits.
    /// - Parameter limit: how many are told of.
    /// - Returns: at most `limit` connections, and how many more there are.
    public func connections(limit: Int) -> EventLoopFuture<(connections: [InterfaceConnection], more: Int)> {
        onEach { $0.loop.connections(limit: limit) }.map { InterfaceConnection.join($0, limit: limit) }
    }

    /// Bytes that came from the peer whose allowed IPs hold `address`; 0 if nobody does. Cheap, unlike ``status()``.
    public func receivedBytes(fromPeerOwning address: IPAddress) -> EventLoopFuture<UInt64> {
        let loop = member(owning: address).loop
        return loop.eventLoop.submit { loop.receivedBytes(fromPeerOwning: address) }.hop(to: eventLoop)
    }

    /// Waits until the peers have acknowledged what closed channels had still to send, at most for `limit`.
    public func drain(within limit: TimeAmount) -> EventLoopFuture<Void> {
        let deadline = NIODeadline.now() + limit
        return awaitEach { $0.loop.drain(until: deadline) }
    }

    /// Resets every connection and closes the sockets. Keys are wiped. Completes when every channel has closed, so the loops of
    /// all channels must still run.
    ///
    /// What an application has closed itself may still have bytes to send: they are lost, unless `drain` has been waited for.
    public func close() -> EventLoopFuture<Void> {
        eventLoop.flatSubmit {
            self.sharedPort?.close()
            return self.awaitEach { member in
                member.resolver.close()
                return member.loop.close()
            }
        }
    }
}

/// A TCP listener inside the tunnel.
public final class WireGuardListener: Sendable {
    private let places = NIOLockedValueBox<[(interface: InterfaceLoop, id: ListenerID)]>([])

    init() {}

    func add(_ id: ListenerID, of interface: InterfaceLoop) { places.withLockedValue { $0.append((interface, id)) } }

    /// Stops accepting; accepted connections live on.
    public func close() -> EventLoopFuture<Void> {
        // It was given away with one place at least.
        let first = places.withLockedValue { $0.first?.interface.eventLoop }
        return close(on: first ?? MultiThreadedEventLoopGroup.singleton.next())
    }

    func close(on eventLoop: any EventLoop) -> EventLoopFuture<Void> {
        let ends = places.withLockedValue { $0 }.map { interface, id in interface.eventLoop.submit { interface.closeListener(id) } }
        return EventLoopFuture.andAllComplete(ends, on: eventLoop)
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
