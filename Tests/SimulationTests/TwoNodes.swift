import Inet
import NIOWireGuard
import Noise
import TCPStack
import TestSupport
import WGUserspace

/// One node of a simulated tunnel: a whole `InterfaceCore` and the UDP endpoint that the link knows it by.
final class Node {
    var core: InterfaceCore
    var endpoint: SocketEndpoint
    let address: IPAddress
    var onEvent: (StackEvent) -> Void = { _ in }
    var deviceEvents: [DeviceEvent] = []

    init(key: borrowing PrivateKey, endpoint: String, address: String, stack: StackConfiguration, seed: UInt64) {
        guard let endpoint = SocketEndpoint(endpoint), let address = IPAddress(address) else { preconditionFailure("bad address") }
        self.endpoint = endpoint
        self.address = address
        var stack = Stack(configuration: stack, random: .seeded(seed &* 31 &+ 7))
        stack.setAddresses([address], now: Instant(nanoseconds: 0))
        core = InterfaceCore(
            device: Device(privateKey: key.copy(), configuration: DeviceConfiguration(), random: .seeded(seed)), stack: stack)
    }
}

/// A gateway and an agent joined by a `SimulatedLink`, in virtual time. Everything repeats from the seed.
final class TwoNodes {
    private(set) var now = Instant(nanoseconds: 1_000_000_000_000)
    var gateway: Node
    var agent: Node
    var link: SimulatedLink
    let seed: UInt64
    private let gatewayKey: PrivateKey
    private let agentKey: PrivateKey
    private let stackConfiguration: StackConfiguration
    private var restarts: UInt64 = 0
    private(set) var steps = 0
    private var buffer = [UInt8](repeating: 0, count: InterfaceCore.maximumDatagramRoom)

    init(seed: UInt64, quality: SimulatedLink.Quality = .init(), stack: StackConfiguration = .init()) {
        self.seed = seed
        stackConfiguration = stack
        let random = RandomSource.seeded(seed ^ 0xA5A5)
        gatewayKey = PrivateKey.generate(using: random)
        agentKey = PrivateKey.generate(using: random)
        link = SimulatedLink(quality: quality, seed: seed &+ 1)
        gateway = Node(key: gatewayKey, endpoint: "198.51.100.1:51820", address: "10.1.0.254", stack: stack, seed: seed &+ 2)
        agent = Node(key: agentKey, endpoint: "192.0.2.10:40000", address: "10.1.0.2", stack: stack, seed: seed &+ 3)
        configure()
    }

    /// A new process with the same keys: nothing of the old one is left.
    func restartGateway(at endpoint: String = "198.51.100.1:51820") {
        restarts += 1
        gateway = Node(key: gatewayKey, endpoint: endpoint, address: "10.1.0.254", stack: stackConfiguration, seed: seed &+ 100 &+ restarts)
        configureGateway()
    }

    func restartAgent(at endpoint: String) {
        restarts += 1
        agent = Node(key: agentKey, endpoint: endpoint, address: "10.1.0.2", stack: stackConfiguration, seed: seed &+ 200 &+ restarts)
        configureAgent()
    }

    private func configure() {
        configureGateway()
        configureAgent()
    }

    private func configureGateway() {
        _ = gateway.core.device.setPeer(
            PeerConfiguration(
                publicKey: agentKey.publicKey, presharedKey: nil, endpoint: nil, allowedIPs: [IPPrefix(host: agent.address)],
                persistentKeepalive: nil), now: now)
    }

    private func configureAgent() {
        _ = agent.core.device.setPeer(
            PeerConfiguration(
                publicKey: gatewayKey.publicKey, presharedKey: nil, endpoint: gateway.endpoint,
                allowedIPs: [IPPrefix(host: gateway.address)], persistentKeepalive: .seconds(25)), now: now)
    }

    /// Civil time runs along with the virtual clock.
    var wallTime: WallTime {
        WallTime(seconds: 1_700_000_000 + now.nanoseconds / 1_000_000_000, nanoseconds: UInt32(now.nanoseconds % 1_000_000_000))
    }

    /// Runs until `condition` holds or `limit` has passed.
    /// - Returns: whether the condition was met.
    @discardableResult
    func run(for limit: Duration, until condition: () -> Bool = { false }) -> Bool {
        let end = now + limit
        settle()
        while !condition() {
            let next = [link.nextDelivery, gateway.core.nextDeadline, agent.core.nextDeadline].compactMap { $0 }.min() ?? end
            if next > end {
                now = end
                return condition()
            }
            now = max(now, next)
            steps += 1
            while let delivery = link.receive(now: now) { deliver(delivery) }
            for node in [gateway, agent] where node.core.nextDeadline.map({ $0 <= now }) ?? false {
                node.core.handleTimeout(now: now)
            }
            settle()
        }
        return true
    }

    private func deliver(_ delivery: SimulatedLink.Delivery) {
        for node in [gateway, agent] where node.endpoint == delivery.destination {
            var bytes = delivery.bytes
            var span = bytes.mutableSpan
            var raw = span.mutableBytes
            node.core.receive(&raw, from: delivery.source, now: now, wallTime: wallTime)
            node.core.device.handleQueuedHandshake(now: now, wallTime: wallTime)
        }
    }

    /// Events to the applications, then everything that wants to leave onto the link, until both are quiet.
    func settle() {
        for node in [gateway, agent] {
            var isBusy = true
            while isBusy {
                isBusy = false
                while let event = node.core.stack.pollEvent() {
                    isBusy = true
                    node.onEvent(event)
                }
                while let event = node.core.device.pollEvent() { node.deviceEvents.append(event) }
                while true {
                    var span = buffer.mutableSpan
                    var raw = span.mutableBytes
                    guard let transmit = node.core.pollTransmit(into: &raw, at: 0, now: now, wallTime: wallTime) else { break }
                    isBusy = true
                    link.send(Array(buffer[transmit.range]), from: node.endpoint, to: transmit.endpoint, now: now)
                }
            }
        }
    }
}
