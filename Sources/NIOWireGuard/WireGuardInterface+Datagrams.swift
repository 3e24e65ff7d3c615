import Inet
import NIOCore
import TCPStack

/// UDP inside the tunnel. Safe to use from any thread.
///
/// Where the interface has several loops, a socket is one on each of them: it hears the peers of all, and what it sends goes to the loop
/// of the peer that it is for.
extension WireGuardInterface {
    /// Opens a UDP socket on a virtual address: a channel of `AddressedEnvelope<ByteBuffer>`.
    /// - Parameters:
    ///   - address: one of our addresses; `nil` is all of them, of both families.
    ///   - port: the UDP port inside the tunnel; `nil` takes a random one.
    ///   - options: bounds of the queues, hop limit, traffic class.
    ///   - eventLoop: where the channel's pipeline runs; `nil` is the interface's first loop.
    ///   - initializer: adds the handlers, on the channel's loop, before it becomes active.
    /// - Returns: the channel once it is active. Fails with `TunnelError`.
    public func bindUDP(
        address: IPAddress? = nil, port: UInt16? = nil, options: UDPOptions = UDPOptions(), on eventLoop: (any EventLoop)? = nil,
        initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
    ) -> EventLoopFuture<any Channel> {
        openUDP(.init(address: address, port: port, remote: nil, options: options), on: eventLoop, initializer: initializer)
    }

    /// Opens a UDP socket that speaks to `remote` and hears nobody else. Nothing is sent.
    /// - Parameters:
    ///   - remote: the virtual address and port.
    ///   - source: one of our addresses; `nil` takes the one whose block holds `remote`, else the first of its family.
    ///   - port: our port; `nil` takes a random one.
    /// - Returns: the channel once it is active. Fails with `TunnelError`.
    public func connectUDP(
        to remote: SocketEndpoint, from source: IPAddress? = nil, port: UInt16? = nil, options: UDPOptions = UDPOptions(),
        on eventLoop: (any EventLoop)? = nil, initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
    ) -> EventLoopFuture<any Channel> {
        openUDP(.init(address: source, port: port, remote: remote, options: options), on: eventLoop, initializer: initializer)
    }

    private func openUDP(
        _ opening: DatagramPort.Opening, on eventLoop: (any EventLoop)?,
        initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
    ) -> EventLoopFuture<any Channel> {
        let loop = eventLoop ?? self.eventLoop
        return loop.flatSubmit {
            let channel = WireGuardDatagramChannel(eventLoop: loop)
            let ports = self.members.enumerated().map { DatagramPort(interface: $1.loop, channel: channel, lane: $0) }
            channel.start(ports: ports) { remote in self.facts.withLockedValue { $0.directory.loop(owning: remote) } }
            return initializer(channel).flatMap {
                let promise = loop.makePromise(of: Void.self)
                channel.open(opening, promise: promise)
                return promise.futureResult
            }.flatMapErrorThrowing { error in
                channel.close(promise: nil)
                throw error
            }.map { channel as any Channel }
        }
    }
}
