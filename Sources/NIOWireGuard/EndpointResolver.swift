import Inet
import Logging
import NIOCore
import NIOPosix
import WGUserspace

/// Resolves the host names of peers' endpoints: at the start, on every handshake retry, and when a session has gone stale, so that a
/// peer behind a changing address is found again. Bound to the interface's event loop; the look-up itself runs on a thread pool.
final class EndpointResolver: @unchecked Sendable {
    private struct Name {
        let host: String
        let port: UInt16
        /// The look-up under way. Another one's answer is stale.
        var lookUp: Int?
        var retry: Scheduled<Void>?
        var hasFailed = false
        var addresses = NameAddresses()
        /// The peer is reached somewhere that another name or address led to: it moves with the first answer.
        var isReplacement: Bool
        var askedAt = NIODeadline.uptimeNanoseconds(0)
    }

    private let interface: InterfaceLoop
    private let logger: Logger
    private let resolveHost: SystemEdges.HostLookUp
    private var names: [PeerID: Name] = [:]
    private var lookUpCount = 0

    init(interface: InterfaceLoop, logger: Logger, resolveHost: @escaping SystemEdges.HostLookUp) {
        self.interface = interface
        self.logger = logger
        self.resolveHost = resolveHost
    }

    /// A name that is known already is not looked up again: its peer may have roamed since.
    func resolve(_ host: String, port: UInt16, for peer: PeerID) {
        if let known = names[peer], known.host == host, known.port == port { return }
        forget(peer)
        let isReached = interface.withCore { core, now in core.device.status(of: peer, now: now)?.endpoint != nil }
        names[peer] = Name(host: host, port: port, isReplacement: isReached)
        lookUp(peer)
    }

    func forget(_ peer: PeerID) { names.removeValue(forKey: peer)?.retry?.cancel() }

    func close() {
        for peer in Array(names.keys) { forget(peer) }
    }

    func handle(_ event: DeviceEvent) {
        switch event {
        case .handshakeRetry(let peer):
            tryNext(peer)
            lookUp(peer)
        case .sessionStale(let peer):
            // A name that says something else each time must not lead to one look-up after the other.
            guard let name = names[peer], name.askedAt + Self.pause <= .now() else { return }
            lookUp(peer)
        // What begins again begins where it left off, and retries look further.
        case .handshakeGaveUp: break
        case .sessionEstablished, .endpointChanged, .timestampSent, .timestampAccepted, .timestampRefused, .timestampFarAhead, .underLoad:
            break
        }
    }

    /// Before the initiation leaves: events are heard of first.
    private func tryNext(_ peer: PeerID) {
        guard let addresses = names[peer]?.addresses else { return }
        interface.withCore { core, now in
            guard let status = core.device.status(of: peer, now: now), status.isSilent || status.endpoint == nil,
                let next = addresses.next(after: status.endpoint)
            else { return }
            core.device.setEndpoint(next, of: peer, now: now)
        }
    }

    /// One look-up at a time for a peer, and one timer for the next after a failure.
    private func lookUp(_ peer: PeerID) {
        guard let name = names[peer], name.lookUp == nil else { return }
        lookUpCount += 1
        let number = lookUpCount
        name.retry?.cancel()
        names[peer]?.retry = nil
        names[peer]?.lookUp = number
        names[peer]?.askedAt = .now()
        let (host, port, resolveHost) = (name.host, name.port, resolveHost)
        NIOThreadPool.singleton.runIfActive(eventLoop: interface.eventLoop) { try resolveHost(host, port) }.whenComplete { [self] result in
            guard names[peer]?.lookUp == number else { return }
            names[peer]?.lookUp = nil
            switch result {
            case .success(let found):
                let reachable = found.filter { interface.hasSocket(for: $0.address.family) }
                guard !reachable.isEmpty else {
                    return retryLater(peer, host: host, because: "it has no address of a family that this machine has")
                }
                names[peer]?.hasFailed = false
                use(reachable, for: peer)
            case .failure(let error): retryLater(peer, host: host, because: "\(error)")
            }
        }
    }

    private func use(_ found: [SocketEndpoint], for peer: PeerID) {
        interface.withCore { core, now in
            let status = core.device.status(of: peer, now: now)
            let isReplacement = names[peer]?.isReplacement ?? false
            names[peer]?.isReplacement = false
            let current = status?.endpoint.flatMap { isReplacement && !found.contains($0) ? nil : $0 }
            guard let next = names[peer]?.addresses.update(found, current: current, isSilent: status?.isSilent ?? false) else { return }
            core.device.setEndpoint(next, of: peer, now: now)
            core.device.initiateHandshake(with: peer, now: now)
        }
    }

    private func retryLater(_ peer: PeerID, host: String, because reason: String) {
        // Once is enough for the log; the tries go on.
        let level: Logger.Level = names[peer]?.hasFailed == true ? .debug : .warning
        logger.log(
            level: level, "The endpoint's host name does not resolve; trying again", metadata: ["host": "\(host)", "error": "\(reason)"])
        names[peer]?.hasFailed = true
        names[peer]?.retry = interface.eventLoop.scheduleTask(in: Self.pause) { [self] in
            names[peer]?.retry = nil
            lookUp(peer)
        }
    }

    private static let pause = TimeAmount.seconds(5)
}
