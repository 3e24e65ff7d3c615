import Inet
import Noise
import TCPStack
import WGUserspace

/// The loop's side of peers.
extension InterfaceLoop {
    /// - Parameter placement: which prefixes the change gives to which loop. The loop of another peer has nothing else to do.
    func setPeer(
        _ peer: InterfaceConfiguration.Peer, placement: [AllowedIPsPlacement], resolver: EndpointResolver
    ) throws(TunnelError) {
        guard share.loop(of: peer.publicKey) == share.index else { return try place(placement) }
        guard !isClosed else { throw .interfaceClosed }
        var endpoint: SocketEndpoint?
        if case .address(let address) = peer.endpoint { endpoint = address }
        let configuration = PeerConfiguration(
            publicKey: peer.publicKey, presharedKey: peer.presharedKey, endpoint: endpoint, allowedIPs: peer.allowedIPs,
            persistentKeepalive: peer.persistentKeepalive, lastTimestamp: peer.lastTimestamp)
        let id = changePeers { core, now in
            let id = core.device.setPeer(configuration, now: now)
            core.device.place(placement)
            return id
        }
        if case .name(let host, let port) = peer.endpoint { resolver.resolve(host, port: port, for: id) } else { resolver.forget(id) }
    }

    func removePeer(_ publicKey: PublicKey, placement: [AllowedIPsPlacement], resolver: EndpointResolver) {
        guard let id = withCore({ core, _ in core.device.peer(for: publicKey) }) else {
            if !isClosed { try? place(placement) }
            return
        }
        resolver.forget(id)
        changePeers { core, now in
            core.device.removePeer(id, now: now)
            core.device.place(placement)
        }
    }

    /// Prefixes have come to peers of other loops, or gone from them.
    func place(_ placement: [AllowedIPsPlacement]) throws(TunnelError) {
        guard !isClosed else { throw .interfaceClosed }
        guard !placement.isEmpty else { return }
        changePeers { core, _ in core.device.place(placement) }
    }

    func setPrivateKey(_ key: StoredPrivateKey, placement: [AllowedIPsPlacement]) throws(TunnelError) -> PublicKey {
        guard !isClosed else { throw .interfaceClosed }
        return changePeers { core, now in
            core.device.setPrivateKey(key.key.copy(), now: now)
            core.device.place(placement)
            return core.device.publicKey
        }
    }

    func setAddresses(_ addresses: [InterfaceAddress]) {
        self.addresses = addresses
        withCore { core, now in core.stack.setAddresses(addresses.map(\.address), now: now) }
    }

    func contact(_ publicKey: PublicKey, at endpoint: SocketEndpoint) throws(TunnelError) {
        guard !isClosed else { throw .interfaceClosed }
        withCore { core, now in
            guard let id = core.device.peer(for: publicKey) else { return }
            if core.device.status(of: id, now: now)?.endpoint == nil { core.device.setEndpoint(endpoint, of: id, now: now) }
            core.device.initiateHandshake(with: id, now: now)
        }
    }

    /// Changes the peers, and ends every connection whose inner address the change took from its peer, and drops the datagrams that
    /// wait to go there: the bytes for one peer must not reach another peer.
    func changePeers<Result>(_ change: (inout InterfaceCore, Instant) -> Result) -> Result {
        withCore { core, now in
            var owners: [IPAddress: PeerID] = [:]
            for case let id? in ports.lazy.map({ $0?.id }) {
                guard let remote = core.stack.endpoints(of: id)?.remote.address, owners[remote] == nil else { continue }
                owners[remote] = core.device.peer(owning: remote)
            }
            var remotes: Set<IPAddress> = []
            core.stack.forEachUDPRemote { remotes.insert($0) }
            for case let port? in datagramPorts { remotes.formUnion(port.waitingRemotes) }
            for remote in remotes { owners[remote] = core.device.peer(owning: remote) }
            let result = change(&core, now)
            let lost = owners.filter { core.device.peer(owning: $0.key) != $0.value }.map { IPPrefix(host: $0.key) }
            if !lost.isEmpty {
                core.stack.purge(remote: lost, now: now)
                for case let port? in datagramPorts { port.purge { remote in lost.contains { $0.contains(remote) } } }
            }
            return result
        }
    }

    /// - Returns: whether there is such a peer.
    func forgetTimestamp(of publicKey: PublicKey) -> Bool {
        withCore { core, _ in
            guard let id = core.device.peer(for: publicKey) else { return false }
            core.device.forgetTimestamp(of: id)
            return true
        }
    }

    /// Key and peers of a request, as one change. Under `replacePeers` a peer that is named again keeps its session: it is changed to
    /// what the request says of it.
    /// - Parameter request: the loop's own part of it.
    func apply(_ request: UAPI.SetRequest, placement: [AllowedIPsPlacement], resolver: EndpointResolver) {
        changePeers { core, now in
            switch request.privateKey {
            case .set(let key): core.device.setPrivateKey(key.key.copy(), now: now)
            case .remove: core.device.removePrivateKey(now: now)
            case nil: break
            }
            if request.replacePeers {
                let staying = request.stayingPeers
                for id in core.device.peerIDs {
                    guard let key = core.device.status(of: id, now: now)?.publicKey, !staying.contains(key) else { continue }
                    resolver.forget(id)
                    core.device.removePeer(id, now: now)
                }
            }
            for change in request.effectiveChanges {
                if let id = core.device.peer(for: change.publicKey) {
                    let moves = change.endpoint.map { $0 != core.device.status(of: id, now: now)?.endpoint } ?? false
                    // An address that is set by hand takes the place of a name.
                    if change.remove || moves { resolver.forget(id) }
                }
                core.device.apply(change, now: now)
            }
            core.device.place(placement)
        }
    }

    /// What `get=1` answers.
    func uapiState() -> UAPI.State {
        withCore { core, now in
            var state = UAPI.State(listenPort: sockets.port, fwmark: sockets.mark)
            if let key = core.device.copyPrivateKey() { state.privateKey = StoredPrivateKey(key) }
            for id in core.device.peerIDs {
                guard let peer = core.device.status(of: id, now: now) else { continue }
                state.peers.append(
                    UAPI.State.Peer(
                        publicKey: peer.publicKey, presharedKey: core.device.presharedKey(of: id), endpoint: peer.endpoint,
                        lastHandshake: peer.lastHandshakeWallTime, receivedBytes: peer.receivedBytes, sentBytes: peer.sentBytes,
                        persistentKeepalive: peer.persistentKeepalive, allowedIPs: peer.allowedIPs))
            }
            return state
        }
    }
}
