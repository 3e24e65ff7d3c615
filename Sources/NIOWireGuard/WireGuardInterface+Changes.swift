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
        eventLoop.submit {
            let loop = self.interfaceLoop
            guard !loop.isClosed else { throw TunnelError.interfaceClosed }
            let publicKey = loop.changePeers { core, now in
                core.device.setPrivateKey(key.key.copy(), now: now)
                return core.device.publicKey
            }
            self.facts.withLockedValue { $0.publicKey = publicKey }
        }
    }

    /// Moves to another UDP port, both families, without losing a session. The new sockets are bound first: if that fails, the
    /// interface stays where it is.
    /// - Parameter port: 0 lets the system choose.
    /// - Returns: the port that is bound.
    /// - Throws: (the future fails with) `InterfaceError.bindFailed`, `TunnelError.interfaceClosed`.
    public func setListenPort(_ port: UInt16) -> EventLoopFuture<UInt16> {
        eventLoop.flatSubmit {
            self.move(to: port).map { self.interfaceLoop.sockets.port }
        }
    }

    /// Changes the inner addresses. Connections from addresses that are gone end with `TunnelError.aborted`.
    /// - Throws: (the future fails with) `TunnelError.interfaceClosed`.
    public func setAddresses(_ addresses: [InterfaceAddress]) -> EventLoopFuture<Void> {
        eventLoop.submit {
            let loop = self.interfaceLoop
            guard !loop.isClosed else { throw TunnelError.interfaceClosed }
            loop.addresses = addresses
            loop.withCore { core, now in core.stack.setAddresses(addresses.map(\.address), now: now) }
            self.facts.withLockedValue { $0.addresses = addresses }
        }
    }

    /// Accepts the peer's next initiation whatever its timestamp says: for a peer whose clock has stepped back.
    /// - Returns: whether there is such a peer.
    public func forgetTimestamp(of publicKey: PublicKey) -> EventLoopFuture<Bool> {
        eventLoop.submit { self.interfaceLoop.forgetTimestamp(of: publicKey) }
    }

    /// Applies what `wg set` and its like ask for. Port and mark come first: if the system refuses one, nothing has happened.
    /// Peers that the change does not touch keep their sessions and connections, also under `replacePeers`.
    /// - Throws: (the future fails with) `UAPI.Fault`.
    public func apply(_ request: UAPI.SetRequest) -> EventLoopFuture<Void> {
        eventLoop.flatSubmit {
            let loop = self.interfaceLoop
            guard !loop.isClosed else { return loop.eventLoop.makeFailedFuture(UAPI.Fault.io) }
            let formerMark = loop.sockets.mark
            do throws(InterfaceError) {
                if let mark = request.fwmark { try loop.sockets.setMark(mark) }
            } catch {
                return loop.eventLoop.makeFailedFuture(UAPI.Fault(error))
            }
            let moved = request.listenPort.map { self.move(to: $0) } ?? loop.eventLoop.makeSucceededVoidFuture()
            return moved.flatMapErrorThrowing { error in
                // What could be set can be set back.
                if !loop.isClosed { try? loop.sockets.setMark(formerMark) }
                throw (error as? InterfaceError).map(UAPI.Fault.init) ?? UAPI.Fault.io
            }.flatMapThrowing {
                guard !loop.isClosed else { throw UAPI.Fault.io }
                loop.apply(request, resolver: self.resolver)
                if case .set(let key) = request.privateKey { self.facts.withLockedValue { $0.publicKey = key.key.publicKey } }
            }
        }
    }

    /// The interface as `wg show` and `wg showconf` see it, with its keys.
    /// - Throws: (the future fails with) `UAPI.Fault`.
    public func uapiState() -> EventLoopFuture<UAPI.State> {
        eventLoop.submit {
            guard !self.interfaceLoop.isClosed else { throw UAPI.Fault.io }
            return self.interfaceLoop.uapiState()
        }
    }

    /// On the interface's loop. Peers with a session hear of it at once.
    private func move(to port: UInt16) -> EventLoopFuture<Void> {
        let loop = interfaceLoop
        return loop.sockets.rebind(port: port).map {
            self.facts.withLockedValue { $0.listenPort = loop.sockets.port }
            loop.withCore { core, now in core.device.announceAddress(now: now) }
        }
    }
}

extension UAPI.Fault {
    fileprivate init(_ error: InterfaceError) {
        switch error {
        case .bindFailed(_, let errno), .markRefused(_, let errno): self.init(errno: errno)
        case .noPrivateKey, .noAddress: self = .invalid
        }
    }
}
