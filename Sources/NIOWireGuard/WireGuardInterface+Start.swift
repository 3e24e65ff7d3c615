import Inet
import Logging
import NIOCore
import NIOPosix
import Noise
import TCPStack
import WGUserspace

extension WireGuardInterface {
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

    /// The same on several loops, which share the port and nothing else. If the kernel cannot choose between their sockets by receiver
    /// index (SO_ATTACH_REUSEPORT_CBPF), the first loop has it all, with a notice in the log.
    /// - Parameters:
    ///   - eventLoops: 1 to 64, all different.
    ///   - stack: of each loop. The loops share `memoryLimit`, but each has 128 MiB of it at least.
    ///   - onPeerEvent: called on the loop of the peer, so by several threads at a time; must not block.
    /// - Throws: (the future fails with) `InterfaceError` if no socket can be bound.
    public static func start(
        _ configuration: InterfaceConfiguration, onEach eventLoops: [any EventLoop], stack: StackConfiguration = .init(),
        logger: Logger = Logger(label: "wireguard"), onPeerEvent: @escaping @Sendable (PeerEvent) -> Void = { _ in }
    ) -> EventLoopFuture<WireGuardInterface> {
        start(configuration, onEach: eventLoops, stack: stack, logger: logger, sharing: PortSharing(), onPeerEvent: onPeerEvent)
    }

    /// On one loop, with a resolver of host names and a clock of suspensions.
    package static func start(
        _ configuration: InterfaceConfiguration, on eventLoop: any EventLoop, stack: StackConfiguration = .init(),
        logger: Logger = Logger(label: "wireguard"), resolveHost: @escaping SystemEdges.HostLookUp,
        timeSuspended: @escaping @Sendable () -> Duration = SystemEdges.timeSuspended,
        onPeerEvent: @escaping @Sendable (PeerEvent) -> Void = { _ in }
    ) -> EventLoopFuture<WireGuardInterface> {
        let starter = Starter(
            configuration: configuration, stack: stack, logger: logger, resolveHost: resolveHost, timeSuspended: timeSuspended,
            onPeerEvent: onPeerEvent)
        return eventLoop.flatSubmit { starter.start(on: eventLoop) }
    }

    /// On several loops, with the kernel's part of sharing a port.
    package static func start(
        _ configuration: InterfaceConfiguration, onEach eventLoops: [any EventLoop], stack: StackConfiguration = .init(),
        logger: Logger = Logger(label: "wireguard"), sharing: PortSharing,
        onPeerEvent: @escaping @Sendable (PeerEvent) -> Void = { _ in }
    ) -> EventLoopFuture<WireGuardInterface> {
        precondition((1...LoopShare.maximumCount).contains(eventLoops.count), "an interface has 1 to 64 loops")
        let starter = Starter(
            configuration: configuration, stack: stack, logger: logger, resolveHost: SystemEdges.resolveHost,
            timeSuspended: SystemEdges.timeSuspended, onPeerEvent: onPeerEvent)
        return eventLoops[0].flatSubmit {
            guard eventLoops.count > 1 else { return starter.start(on: eventLoops[0]) }
            do throws(InterfaceError) {
                let pairs = try DescriptorPair.shared(
                    eventLoops.count, port: configuration.listenPort, mark: configuration.fwmark, sharing: sharing)
                return starter.start(onEach: eventLoops, pairs, sharing)
            } catch {
                guard case .portNotShared(_, let errno) = error else { return eventLoops[0].makeFailedFuture(error) }
                logger.notice("The kernel cannot share a UDP port among loops; one loop is used", metadata: ["errno": "\(errno)"])
                return starter.start(on: eventLoops[0])
            }
        }
    }

    /// What every loop of an interface is made from.
    private struct Starter: Sendable {
        let configuration: InterfaceConfiguration
        let stack: StackConfiguration
        let logger: Logger
        let resolveHost: SystemEdges.HostLookUp
        let timeSuspended: @Sendable () -> Duration
        let onPeerEvent: @Sendable (PeerEvent) -> Void

        func start(on eventLoop: any EventLoop) -> EventLoopFuture<WireGuardInterface> {
            let member = makeMember(LoopShare(), on: eventLoop, cookieRoot: nil)
            let loop = member.loop
            loop.setAddresses(configuration.addresses)
            return loop.start(port: configuration.listenPort, mark: configuration.fwmark, peerEvents: tell(of: member)).flatMapThrowing {
                for peer in configuration.peers { try loop.setPeer(peer, placement: [], resolver: member.resolver) }
                return interface([member], nil, PeerDirectory(loopCount: 1, publicKey: loop.core.device.publicKey))
            }.flatMapError { error in
                // The sockets and the events' closure hold the loop.
                loop.close().flatMapThrowing { throw error }
            }
        }

        /// - Parameter pairs: sockets of one port, in the order of the loops.
        func start(
            onEach eventLoops: [any EventLoop], _ pairs: [DescriptorPair], _ sharing: PortSharing
        ) -> EventLoopFuture<WireGuardInterface> {
            let first = eventLoops[0]
            let root = CookieRoot(random: SystemEdges.random, now: SystemEdges.now)
            let members = eventLoops.enumerated().map { makeMember(LoopShare($0, of: eventLoops.count), on: $1, cookieRoot: root) }
            let loops = members.map(\.loop)
            let port = SharedPort(loops.map(\.sockets), mark: configuration.fwmark, sharing: sharing, logger: logger)
            var directory = PeerDirectory(loopCount: members.count, publicKey: configuration.privateKey.key.publicKey)
            var places: [IPPrefix: Int] = [:]
            for peer in configuration.peers {
                for placement in directory.setPeer(peer.publicKey, allowedIPs: peer.allowedIPs) {
                    places[placement.prefix] = placement.loop
                }
            }
            let (placement, started) = (places.map { AllowedIPsPlacement($0, loop: $1) }, directory)
            @Sendable func onEach(_ body: @escaping @Sendable (Member) throws -> Void) -> EventLoopFuture<Void> {
                EventLoopFuture.andAllSucceed(members.map { member in member.loop.eventLoop.submit { try body(member) } }, on: first)
            }
            return onEach { member in
                member.loop.setAddresses(configuration.addresses)
                member.loop.start(on: port, mark: configuration.fwmark, among: loops, peerEvents: tell(of: member))
            }.flatMap {
                port.adopt(pairs)
            }.flatMap {
                onEach { member in
                    let share = member.loop.share
                    for peer in configuration.peers where share.loop(of: peer.publicKey) == share.index {
                        try member.loop.setPeer(peer, placement: [], resolver: member.resolver)
                    }
                    try member.loop.place(placement)
                }
            }.map {
                interface(members, port, started)
            }.flatMapError { error in
                port.close()
                let ends = loops.map { loop in loop.eventLoop.flatSubmit { loop.close() } }
                return EventLoopFuture.andAllComplete(ends, on: first).flatMapThrowing { throw error }
            }
        }

        private func makeMember(_ share: LoopShare, on eventLoop: any EventLoop, cookieRoot: CookieRoot?) -> Member {
            var stackConfiguration = stack
            stackConfiguration.mtu = configuration.mtu
            if share.count > 1 {
                stackConfiguration.memoryLimit = min(stack.memoryLimit, max(stack.memoryLimit / share.count, leastMemory))
            }
            var deviceConfiguration = DeviceConfiguration()
            deviceConfiguration.mtu = configuration.mtu
            deviceConfiguration.lastSentTimestamp = configuration.lastSentTimestamp
            deviceConfiguration.cipher = configuration.cipher
            deviceConfiguration.share = share
            deviceConfiguration.cookieRoot = cookieRoot
            let device = Device(
                privateKey: configuration.privateKey.key.copy(), configuration: deviceConfiguration, random: SystemEdges.random)
            let core = InterfaceCore(
                device: device,
                stack: Stack(configuration: stackConfiguration, random: SystemEdges.random, textSource: ByteBufferBlocks()))
            let loop = InterfaceLoop(eventLoop: eventLoop, core: core, logger: logger, timeSuspended: timeSuspended)
            return Member(loop: loop, resolver: EndpointResolver(interface: loop, logger: logger, resolveHost: resolveHost))
        }

        private func tell(of member: Member) -> (DeviceEvent) -> Void {
            { event in
                member.resolver.handle(event)
                if let told = member.loop.publicEvent(event) { onPeerEvent(told) }
            }
        }

        private func interface(_ members: [Member], _ port: SharedPort?, _ directory: PeerDirectory) -> WireGuardInterface {
            let loop = members[0].loop
            return WireGuardInterface(
                members: members, sharedPort: port,
                facts: Facts(
                    listenPort: loop.sockets.port, publicKey: loop.core.device.publicKey, addresses: configuration.addresses,
                    directory: directory))
        }

        /// Bytes of buffers that each of many loops may have.
        private let leastMemory = 128 * 1024 * 1024
    }
}
