import Inet
import NIOCore
import Noise
import TCPStack
import WGUserspace

/// What may change while the interface runs. Safe to use from any thread.
extension WireGuardInterface {
    /// Changes the interface's identity: every session ends and begins anew under the new key; a peer with the new public key
    /// is removed. Connections inside the tunnel live on if a new session comes about before they time out.
    /// - Throws: (the future fails with) `TunnelError.interfaceClosed`.
    public func setPrivateKey(_ key: StoredPrivateKey) -> EventLoopFuture<Void> {
        change {
            $0.setPublicKey(key.key.publicKey)
        } _: { member, placement in
            try member.loop.setPrivateKey(key, placement: placement)
        }.map { keys in self.facts.withLockedValue { $0.publicKey = keys[0] } }
    }

    /// Moves to another UDP port, both families, without losing a session. The new sockets are bound first: if that fails, the
    /// interface stays where it is.
    /// - Parameter port: 0 lets the system choose.
    /// - Returns: the port that is bound.
    /// - Throws: (the future fails with) `InterfaceError.bindFailed`, `TunnelError.interfaceClosed`.
    public func setListenPort(_ port: UInt16) -> EventLoopFuture<UInt16> {
        eventLoop.flatSubmit {
            self.move(to: port).map { self.members[0].loop.sockets.port }
        }
    }

    /// Changes the inner addresses. Connections from addresses that are gone end with `TunnelError.aborted`.
    /// - Throws: (the future fails with) `TunnelError.interfaceClosed`.
    public func setAddresses(_ addresses: [InterfaceAddress]) -> EventLoopFuture<Void> {
        onEach { member in
            guard !member.loop.isClosed else { throw TunnelError.interfaceClosed }
            member.loop.setAddresses(addresses)
        }.map { _ in self.facts.withLockedValue { $0.addresses = addresses } }
    }

    /// Accepts the peer's next initiation whatever its timestamp says: for a peer whose clock has stepped back.
    /// - Returns: whether there is such a peer.
    public func forgetTimestamp(of publicKey: PublicKey) -> EventLoopFuture<Bool> {
        let loop = member(of: publicKey).loop
        return loop.eventLoop.submit { loop.forgetTimestamp(of: publicKey) }.hop(to: eventLoop)
    }

    /// Applies what `wg set` and its like ask for. Port and mark come first: if the system refuses one, nothing has happened.
    /// Peers that the change does not touch keep their sessions and connections, also under `replacePeers`.
    /// - Throws: (the future fails with) `UAPI.Fault`.
    public func apply(_ request: UAPI.SetRequest) -> EventLoopFuture<Void> {
        eventLoop.flatSubmit {
            let loop = self.members[0].loop
            guard !loop.isClosed else { return loop.eventLoop.makeFailedFuture(UAPI.Fault.io) }
            let formerMark = loop.sockets.mark
            let marked = request.fwmark.map { self.setMark($0) } ?? loop.eventLoop.makeSucceededVoidFuture()
            return marked.flatMap {
                let moved = request.listenPort.map { self.move(to: $0) } ?? loop.eventLoop.makeSucceededVoidFuture()
                return moved.flatMapError { error in
                    guard request.fwmark != nil, !loop.isClosed else { return loop.eventLoop.makeFailedFuture(error) }
                    // What could be set can be set back.
                    return self.setMark(formerMark).recover { _ in }.flatMapThrowing { throw error }
                }
            }.flatMapErrorThrowing { error in
                throw (error as? InterfaceError).map(UAPI.Fault.init) ?? UAPI.Fault.io
            }.flatMap {
                self.change {
                    $0.apply(request)
                } _: { member, placement in
                    guard !member.loop.isClosed else { throw UAPI.Fault.io }
                    member.loop.apply(request.part(of: member.loop.share), placement: placement, resolver: member.resolver)
                }
            }.map { _ in
                if case .set(let key) = request.privateKey { self.facts.withLockedValue { $0.publicKey = key.key.publicKey } }
            }
        }
    }

    /// The interface as `wg show` and `wg showconf` see it, with its keys.
    /// - Throws: (the future fails with) `UAPI.Fault`.
    public func uapiState() -> EventLoopFuture<UAPI.State> {
        onEach { member in
            guard !member.loop.isClosed else { throw UAPI.Fault.io }
            return member.loop.uapiState()
        }.map { states in
            var state = states[0]
            for other in states.dropFirst() { state.peers += other.peers }
            return state
        }
    }

    /// On the first loop.
    private func setMark(_ mark: UInt32) -> EventLoopFuture<Void> {
        if let sharedPort { return sharedPort.setMark(mark) }
        let sockets = members[0].loop.sockets
        return eventLoop.makeCompletedFuture { () throws -> Void in try sockets.setMark(mark) }
    }

    /// On the first loop. Peers with a session hear of it at once.
    private func move(to port: UInt16) -> EventLoopFuture<Void> {
        let sockets = members[0].loop.sockets
        let moved = sharedPort.map { $0.rebind(port: port) } ?? sockets.rebind(port: port)
        return moved.flatMap {
            self.facts.withLockedValue { $0.listenPort = sockets.port }
            return self.onEach { member in member.loop.withCore { core, now in core.device.announceAddress(now: now) } }.map { _ in }
        }
    }
}

extension UAPI.Fault {
    fileprivate init(_ error: InterfaceError) {
        switch error {
        case .bindFailed(_, let errno), .portNotShared(_, let errno), .markRefused(_, let errno): self.init(errno: errno)
        case .noPrivateKey, .noAddress: self = .invalid
        }
    }
}
