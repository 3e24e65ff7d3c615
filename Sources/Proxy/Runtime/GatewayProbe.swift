import Inet
import Logging
import NIOCore
import NIOWireGuard
import Noise
import TCPStack

/// Makes an agent heard by a gateway that has restarted: a TCP connection attempt to each gateway's address in the tunnel whenever
/// nothing has come from that gateway for a while. Any answer will do, a reset too; silence makes WireGuard start a new handshake.
///
/// The interval counts from the last sign of life and not from the last probe alone, so that a gateway that restarts at the worst
/// moment is still asked within 15 s and, with WireGuard's own 15 s of patience, reached within 35 s.
/// Bound to the interface's event loop.
final class GatewayProbe: @unchecked Sendable {
    static let port: UInt16 = 80
    static let tick = TimeAmount.seconds(5)
    static let timeLimit = Duration.seconds(2)

    private let interface: WireGuardInterface
    private let logger: Logger
    private var schedules: [PublicKey: ProbeSchedule] = [:]
    private var task: RepeatedTask?

    init(interface: WireGuardInterface, logger: Logger) {
        self.interface = interface
        self.logger = logger
    }

    func start() {
        interface.eventLoop.execute { [self] in
            task = interface.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.tick) { [self] _ in
                interface.status().whenSuccess { [self] status in check(status) }
            }
        }
    }

    func stop() {
        interface.eventLoop.execute { [self] in task?.cancel() }
    }

    private func check(_ status: InterfaceStatus) {
        for peer in status.peers {
            let hosts = peer.allowedIPs.filter { $0.length == $0.address.bitWidth }.map(\.address)
            guard !hosts.isEmpty, peer.endpoint != nil else { continue }
            guard schedules[peer.publicKey, default: ProbeSchedule()].tick(receivedBytes: peer.receivedBytes) else { continue }
            for host in hosts { probe(host) }
        }
    }

    private func probe(_ host: IPAddress) {
        var options = ConnectionOptions.tunnelDefault
        options.connectTimeout = Self.timeLimit
        let remote = SocketEndpoint(host, port: Self.port)
        interface.connect(to: remote, options: options) { $0.eventLoop.makeSucceededVoidFuture() }.whenComplete { [logger] result in
            switch result {
            case .success(let channel):
                channel.close(promise: nil)
                logger.debug("Gateway answers", metadata: ["gateway": "\(remote)"])
            case .failure(TunnelError.refused): logger.debug("Gateway answers", metadata: ["gateway": "\(remote)"])
            case .failure(let error): logger.debug("Gateway does not answer", metadata: ["gateway": "\(remote)", "error": "\(error)"])
            }
        }
    }
}

/// When to probe one gateway, counted in ticks of 5 s.
package struct ProbeSchedule {
    package init() {}

    /// Ticks without a byte from the gateway before it is asked.
    static let quietTicks = 2
    /// Ticks between two probes.
    static let intervalTicks = 3

    private var receivedBytes: UInt64 = 0
    private var quiet = quietTicks
    private var sinceProbe = intervalTicks

    /// - Returns: whether to probe now.
    package mutating func tick(receivedBytes count: UInt64) -> Bool {
        if count != receivedBytes { quiet = 0 } else { quiet += 1 }
        receivedBytes = count
        sinceProbe += 1
        guard quiet >= Self.quietTicks, sinceProbe >= Self.intervalTicks else { return false }
        sinceProbe = 0
        return true
    }
}
