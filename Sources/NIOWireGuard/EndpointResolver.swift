import Inet
import Logging
import NIOCore
import NIOPosix
import WGUserspace

/// Resolves the host names of peers' endpoints: at the start, and again whenever a handshake goes unanswered, so that a peer
/// behind a changing address is found again. Bound to the interface's event loop; the look-up itself runs on a thread pool.
final class EndpointResolver: @unchecked Sendable {
    private struct Name {
        let host: String
        let port: UInt16
        var isBusy = false
    }

    private let interface: InterfaceLoop
    private let logger: Logger
    private var names: [PeerID: Name] = [:]

    init(interface: InterfaceLoop, logger: Logger) {
        self.interface = interface
        self.logger = logger
    }

    func resolve(_ host: String, port: UInt16, for peer: PeerID) {
        names[peer] = Name(host: host, port: port)
        lookUp(peer)
    }

    func forget(_ peer: PeerID) { names[peer] = nil }

    func handle(_ event: DeviceEvent) {
        switch event {
        case .handshakeRetry(let peer), .handshakeGaveUp(let peer): lookUp(peer)
        case .sessionEstablished, .endpointChanged: break
        }
    }

    /// One look-up at a time for a peer. A failed one is tried again with the next retry of the handshake, or in `pause`
    /// when there has never been an address to send a handshake to.
    private func lookUp(_ peer: PeerID) {
        guard let name = names[peer], !name.isBusy else { return }
        names[peer]?.isBusy = true
        let (host, port) = (name.host, name.port)
        NIOThreadPool.singleton.runIfActive(eventLoop: interface.eventLoop) {
            try SocketAddress.makeAddressResolvingHost(host, port: Int(port))
        }.whenComplete { [self] result in
            guard names[peer] != nil else { return }
            names[peer]?.isBusy = false
            switch result {
            case .success(let address):
                guard let endpoint = SocketEndpoint(address) else { return }
                interface.withCore { core, now in
                    guard core.device.status(of: peer)?.endpoint != endpoint else { return }
                    core.device.setEndpoint(endpoint, of: peer, now: now)
                    core.device.initiateHandshake(with: peer, now: now)
                }
            case .failure(let error):
                logger.warning(
                    "The endpoint's host name does not resolve; trying again", metadata: ["host": "\(host)", "error": "\(error)"])
                interface.eventLoop.scheduleTask(in: Self.pause) { self.lookUp(peer) }
            }
        }
    }

    private static let pause = TimeAmount.seconds(5)
}
