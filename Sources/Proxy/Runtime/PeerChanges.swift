import Inet
import NIOWireGuard
import Noise
import WGUserspace

/// What is different about the peers of two configurations: all else about them, and what was changed at run time, stays.
package struct PeerChanges: Sendable, CustomStringConvertible {
    package private(set) var removed: [PublicKey] = []
    package private(set) var added: [WGQuickFile.Peer] = []
    package private(set) var changed: [WGQuickFile.Peer] = []

    package init(from old: [WGQuickFile.Peer], to new: [WGQuickFile.Peer]) {
        let before = Dictionary(Self.effective(old).map { ($0.publicKey, $0) }, uniquingKeysWith: { $1 })
        var names: Set<PublicKey> = []
        for peer in Self.effective(new) {
            names.insert(peer.publicKey)
            guard let former = before[peer.publicKey] else {
                added.append(peer)
                continue
            }
            if !Self.isSame(former, peer) { changed.append(peer) }
        }
        removed = old.map(\.publicKey).filter { !names.contains($0) }
    }

    package var isEmpty: Bool { removed.isEmpty && added.isEmpty && changed.isEmpty }

    package var description: String {
        "\(added.count) \(added.count == 1 ? "peer" : "peers") added, \(removed.count) removed, \(changed.count) changed"
    }

    /// Applies one after the other. What fails ends it, and what was done until then is told: the next changes are from there on.
    /// - Parameter old: the peers that the changes are from.
    /// - Returns: the peers that run now.
    package func apply(
        to old: [WGQuickFile.Peer], remove: (PublicKey) async throws -> Void, set: (WGQuickFile.Peer) async throws -> Void
    ) async -> (peers: [WGQuickFile.Peer], failure: (any Error)?) {
        var gone: Set<PublicKey> = []
        var done: [WGQuickFile.Peer] = []
        var failure: (any Error)?
        do {
            for key in removed {
                try await remove(key)
                gone.insert(key)
            }
            for peer in changed + added {
                try await set(peer)
                gone.insert(peer.publicKey)
                done.append(peer)
            }
        } catch {
            failure = error
        }
        // A block that one of those has taken is its own: it is the last one that names it.
        return (old.filter { !gone.contains($0.publicKey) } + done, failure)
    }

    /// Each block with its owner alone, who is the last one that names it.
    private static func effective(_ peers: [WGQuickFile.Peer]) -> [WGQuickFile.Peer] {
        var owners: [IPPrefix: PublicKey] = [:]
        for peer in peers { for prefix in peer.allowedIPs { owners[prefix] = peer.publicKey } }
        return peers.map { peer in
            var peer = peer
            peer.allowedIPs.removeAll { owners[$0] != peer.publicKey }
            return peer
        }
    }

    private static func isSame(_ one: WGQuickFile.Peer, _ other: WGQuickFile.Peer) -> Bool {
        let isKeySame =
            switch (one.presharedKey, other.presharedKey) {
            case (nil, nil): true
            case (let one?, let other?): one.key.isEqual(to: other.key)
            case (nil, _?), (_?, nil): false
            }
        return isKeySame && Set(one.allowedIPs) == Set(other.allowedIPs) && one.endpoint == other.endpoint
            && one.persistentKeepalive == other.persistentKeepalive
    }
}

extension RunningInterface {
    /// Peers that the changes do not name keep their sessions and connections, and so do those of which only settings have changed.
    /// - Parameter old: the peers that the changes are from.
    /// - Returns: the peers that run now, which are those from which the next changes are.
    func apply(_ changes: PeerChanges, to old: [WGQuickFile.Peer]) async -> (peers: [WGQuickFile.Peer], failure: (any Error)?) {
        let accepted = timestamps?.timestamps.accepted ?? [:]
        let result = await changes.apply(to: old) { key in
            try await interface.removePeer(key).get()
        } set: { peer in
            var peer = InterfaceConfiguration.Peer(
                publicKey: peer.publicKey, presharedKey: peer.presharedKey, endpoint: peer.endpoint, allowedIPs: peer.allowedIPs,
                persistentKeepalive: peer.persistentKeepalive)
            peer.lastTimestamp = accepted[peer.publicKey]
            try await interface.setPeer(peer).get()
            if case .address(let endpoint)? = peer.endpoint { try await interface.contact(peer.publicKey, at: endpoint).get() }
        }
        if !changes.removed.isEmpty, let status = try? await interface.status().get() {
            timestamps?.forgetAll(but: Set(status.peers.map(\.publicKey)))
        }
        return result
    }
}
