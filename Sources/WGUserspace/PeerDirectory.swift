import Inet
import Noise

/// Whose inner addresses are whose, of all loops of an interface: for the door of the interface, which has to know the loop of a
/// connection before there is one, and to tell each loop which prefixes have come to, or gone from, the others.
///
/// It follows the same changes as the devices do, by the same rules: the last writer owns a prefix. Each change answers with the
/// prefixes that it touched and the loops that have them now, for ``Device/place(_:)``. With one loop there is nothing to follow, and it
/// keeps nothing.
package struct PeerDirectory: Sendable {
    private let share: LoopShare
    /// The interface's own key: nobody's while it has none.
    private var publicKey: PublicKey?
    private var prefixes: [PublicKey: Set<IPPrefix>] = [:]
    private var owners: [IPPrefix: PublicKey] = [:]
    /// In place of peers, their loops.
    private var routes = AllowedIPs()
    private var touched: Set<IPPrefix> = []

    /// - Parameter loopCount: 1 to ``LoopShare/maximumCount``.
    package init(loopCount: Int, publicKey: PublicKey) {
        share = LoopShare(0, of: loopCount)
        self.publicKey = publicKey
    }

    package var loopCount: Int { share.count }

    /// The loop that has the peer, or would.
    package func loop(of key: PublicKey) -> Int { share.loop(of: key) }

    /// The loop of the peer that owns the longest prefix with `address` in it; the first one if nobody does.
    package func loop(owning address: IPAddress) -> Int { share.count == 1 ? 0 : routes.lookup(address) ?? 0 }

    // MARK: - Changes, as those of a device

    package mutating func setPeer(_ key: PublicKey, allowedIPs: [IPPrefix]) -> [AllowedIPsPlacement] {
        change { directory in
            guard key != directory.publicKey else { return }
            directory.replace(Set(allowedIPs), of: key)
        }
    }

    package mutating func removePeer(_ key: PublicKey) -> [AllowedIPsPlacement] { change { $0.remove(key) } }

    package mutating func setPublicKey(_ key: PublicKey) -> [AllowedIPsPlacement] { change { $0.become(key) } }

    package mutating func apply(_ request: UAPI.SetRequest) -> [AllowedIPsPlacement] {
        change { directory in
            switch request.privateKey {
            case .set(let key): directory.become(key.key.publicKey)
            case .remove: directory.publicKey = nil
            case nil: break
            }
            if request.replacePeers {
                let staying = request.stayingPeers
                for key in Array(directory.prefixes.keys) where !staying.contains(key) { directory.remove(key) }
            }
            for change in request.effectiveChanges { directory.apply(change) }
        }
    }

    // MARK: - Inside

    private mutating func change(_ body: (inout PeerDirectory) -> Void) -> [AllowedIPsPlacement] {
        guard share.count > 1 else { return [] }
        body(&self)
        defer { touched = [] }
        return touched.map { prefix in AllowedIPsPlacement(prefix, loop: owners[prefix].map(loop(of:))) }
    }

    private mutating func become(_ key: PublicKey) {
        publicKey = key
        remove(key)
    }

    private mutating func apply(_ change: PeerChange) {
        guard !change.remove else { return remove(change.publicKey) }
        guard change.publicKey != publicKey, !change.updateOnly || prefixes[change.publicKey] != nil else { return }
        let removed = Set(change.removedAllowedIPs)
        if change.replaceAllowedIPs {
            replace(Set(change.addedAllowedIPs).subtracting(removed), of: change.publicKey)
        } else {
            let former = prefixes[change.publicKey] ?? []
            replace(former.union(change.addedAllowedIPs).subtracting(removed), of: change.publicKey)
        }
    }

    private mutating func replace(_ wanted: Set<IPPrefix>, of key: PublicKey) {
        let former = prefixes[key] ?? []
        for prefix in former.subtracting(wanted) { disown(prefix) }
        for prefix in wanted.subtracting(former) {
            if let owner = owners[prefix] { prefixes[owner]?.remove(prefix) }
            touched.insert(prefix)
            owners[prefix] = key
            routes.insert(prefix, peer: loop(of: key))
        }
        prefixes[key] = wanted
    }

    private mutating func remove(_ key: PublicKey) {
        for prefix in prefixes.removeValue(forKey: key) ?? [] { disown(prefix) }
    }

    private mutating func disown(_ prefix: IPPrefix) {
        guard let owner = owners.removeValue(forKey: prefix) else { return }
        touched.insert(prefix)
        routes.remove(prefix, peer: loop(of: owner))
    }
}

extension UAPI.SetRequest {
    /// The peers that a request with `replacePeers` leaves there.
    package var stayingPeers: Set<PublicKey> { Set(peers.lazy.filter { !$0.remove && !$0.updateOnly }.map(\.publicKey)) }

    /// The changes of `peers`: under `replacePeers` the first one of a peer says all of it.
    package var effectiveChanges: [PeerChange] {
        guard replacePeers else { return peers }
        var seen = Set<PublicKey>()
        return peers.map { change in
            guard !change.remove, seen.insert(change.publicKey).inserted else { return change }
            var change = change
            change.presharedKey = change.presharedKey ?? StoredPresharedKey(.zero())
            change.persistentKeepalive = change.persistentKeepalive ?? .zero
            change.replaceAllowedIPs = true
            return change
        }
    }

    /// What of the request one loop has to do.
    package func part(of loop: LoopShare) -> UAPI.SetRequest {
        guard loop.count > 1 else { return self }
        var part = self
        part.peers = peers.filter { loop.loop(of: $0.publicKey) == loop.index }
        return part
    }
}
