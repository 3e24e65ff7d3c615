import Inet
import Noise

/// The verbs that change peers and the device's identity. All are differences: what they do not touch goes on.
extension Device {
    /// Adds a peer, or changes it as far as the configuration differs: a session goes on, the endpoint that the peer has roamed to
    /// stays unless the configured one changed, and a prefix that another peer had is this one's now.
    ///
    /// - Returns: the peer's ID. A peer with the device's own key is not added; the ID that comes back names nobody.
    @discardableResult
    public mutating func setPeer(_ configuration: PeerConfiguration, now: Instant) -> PeerID {
        guard configuration.publicKey != publicKey else { return .nobody }
        let place = placeByKey[configuration.publicKey] ?? addPeer(configuration.publicKey, lastTimestamp: configuration.lastTimestamp)
        peers[place].presharedKey = configuration.presharedKey
        setAllowedIPs(configuration.allowedIPs, of: place)
        if let endpoint = configuration.endpoint, endpoint != peers[place].configuredEndpoint {
            peers[place].configuredEndpoint = endpoint
            moveEndpoint(of: place, to: endpoint, now: now)
        }
        setPersistentKeepalive(configuration.persistentKeepalive, of: place, now: now)
        reschedule(place)
        return peers[place].id
    }

    /// Changes one peer as `wg set` and its like ask for; what the change does not mention stays.
    ///
    /// - Returns: the peer's ID; `nil` if it was removed, is not there, or has the device's own key.
    @discardableResult
    public mutating func apply(_ change: PeerChange, now: Instant) -> PeerID? {
        guard !change.remove else {
            if let id = peer(for: change.publicKey) { removePeer(id, now: now) }
            return nil
        }
        guard change.publicKey != publicKey else { return nil }
        let place: Int
        if let known = placeByKey[change.publicKey] {
            place = known
        } else {
            guard !change.updateOnly else { return nil }
            place = addPeer(change.publicKey, lastTimestamp: nil)
        }
        if let presharedKey = change.presharedKey { peers[place].presharedKey = presharedKey.key.isZero ? nil : presharedKey }
        if change.replaceAllowedIPs {
            let removed = Set(change.removedAllowedIPs)
            setAllowedIPs(change.addedAllowedIPs.filter { !removed.contains($0) }, of: place)
        } else {
            addAllowedIPs(change.addedAllowedIPs, to: place)
            removeAllowedIPs(change.removedAllowedIPs, from: place)
        }
        if let endpoint = change.endpoint {
            peers[place].configuredEndpoint = endpoint
            moveEndpoint(of: place, to: endpoint, now: now)
        }
        if let keepalive = change.persistentKeepalive { setPersistentKeepalive(keepalive, of: place, now: now) }
        reschedule(place)
        return peers[place].id
    }

    /// Removes a peer; its keys are wiped, its indices freed, its staged packets dropped. An unknown ID does nothing.
    public mutating func removePeer(_ id: PeerID, now: Instant) {
        guard let place = peers.place(of: id) else { return }
        for prefix in peers[place].allowedIPs { routes.remove(prefix, peer: place) }
        dropStaged(of: place, reason: .peerRemoved)
        peers[place].wipe(indices: &indices)
        placeByKey[peers[place].publicKey] = nil
        // If it comes back, what it has seen of us still counts.
        if let last = peers[place].lastSentTimestamp { timestampFloor = max(timestampFloor ?? last, last) }
        deadlines.remove(place)
        peers.remove(at: place)
    }

    /// Changes the device's identity: all sessions end, and a peer with the new key is removed.
    public mutating func setPrivateKey(_ key: consuming PrivateKey, now: Instant) {
        guard !hasPrivateKey || !key.isEqual(to: privateKey) else { return }
        become(key, now: now)
        hasPrivateKey = true
    }

    /// Takes the device's identity away: all sessions end, and no handshake takes place until there is a key again.
    public mutating func removePrivateKey(now: Instant) {
        guard hasPrivateKey else { return }
        // A key that nobody knows stands in its place.
        become(.generate(using: random), now: now)
        hasPrivateKey = false
        for place in peers.places where peers.contains(place) { dropStaged(of: place, reason: .noPrivateKey) }
    }

    /// The private key, for `wg showconf`; `nil` if there is none.
    package func copyPrivateKey() -> PrivateKey? { hasPrivateKey ? privateKey.copy() : nil }

    /// The preshared key of a peer, for `wg showconf`.
    package func presharedKey(of id: PeerID) -> StoredPresharedKey? {
        guard let place = peers.place(of: id) else { return nil }
        return peers[place].presharedKey
    }

    /// Moves a peer's endpoint, say because its host name has another address now. A peer that has or wants a session gets a new
    /// handshake there at once; one that is under way goes on there, and is given up when it would have been.
    public mutating func setEndpoint(_ endpoint: SocketEndpoint, of id: PeerID, now: Instant) {
        guard let place = peers.place(of: id) else { return }
        let giveUp = peers[place].isHandshaking ? peers[place].timers.giveUp : PeerTimers.off
        moveEndpoint(of: place, to: endpoint, now: now)
        if giveUp != PeerTimers.off { peers[place].timers.giveUp = giveUp }
        reschedule(place)
    }

    /// Starts a handshake unless one is under way. Nothing happens as long as the endpoint is not known.
    public mutating func initiateHandshake(with id: PeerID, now: Instant) {
        guard let place = peers.place(of: id) else { return }
        startHandshake(with: place, now: now)
        reschedule(place)
    }

    /// Wipes all sessions and handshakes, because the machine was suspended or will be. Peers stay, and begin anew when there is traffic;
    /// those with a persistent keepalive at once.
    public mutating func wipeSessions(now: Instant) {
        cookieChecker = CookieChecker(root: configuration.cookieRoot)
        for place in peers.places where peers.contains(place) {
            peers[place].wipe(indices: &indices)
            guard peers[place].keepaliveInterval != nil else { continue }
            startHandshake(with: place, now: now)
            reschedule(place)
        }
    }

    /// Forgets the last accepted timestamp of a peer whose clock was ahead when it was accepted.
    public mutating func forgetTimestamp(of id: PeerID) {
        guard let place = peers.place(of: id) else { return }
        peers[place].timestamps = TimestampGuard()
    }

    /// The peer with a public key.
    public func peer(for publicKey: PublicKey) -> PeerID? { placeByKey[publicKey].map { peers[$0].id } }

    /// All peers.
    public var peerIDs: [PeerID] { peers.places.filter { peers.contains($0) }.map { peers[$0].id } }

    /// The peer that owns the longest prefix with an inner address in it.
    public func peer(owning address: IPAddress) -> PeerID? {
        guard let place = routes.lookup(address), place != AllowedIPs.elsewhere else { return nil }
        return peers[place].id
    }

    /// A peer as it stands; `nil` if it was removed.
    ///
    /// - Parameter now: decides whether the session is still young enough; without it, only whether there is one.
    public func status(of id: PeerID, now: Instant = Instant(nanoseconds: 0)) -> PeerStatus? {
        guard let place = peers.place(of: id) else { return nil }
        return peers[place].status(now: now)
    }

    // MARK: - Inside

    private mutating func addPeer(_ publicKey: PublicKey, lastTimestamp: TAI64N?) -> Int {
        var peer = Peer(id: peers.nextID(), publicKey: publicKey)
        peer.timestamps = TimestampGuard(last: lastTimestamp)
        peer.isPreferredInitiator = self.publicKey.isLess(than: publicKey)
        let place = peers.insert(peer)
        placeByKey[publicKey] = place
        return place
    }

    private mutating func become(_ key: consuming PrivateKey, now: Instant) {
        publicKey = key.publicKey
        macKeys = MACKeys(publicKey: publicKey)
        privateKey = key
        if let own = peer(for: publicKey) { removePeer(own, now: now) }
        for place in peers.places where peers.contains(place) {
            peers[place].wipe(indices: &indices)
            peers[place].agreement = .unknown
            peers[place].staticStatic = SecretBytes(count: 0)
            peers[place].isPreferredInitiator = publicKey.isLess(than: peers[place].publicKey)
        }
    }

    /// The key agreement of both static keys, computed when it is first needed: 10,000 peers would take a second at the start.
    ///
    /// - Returns: `false` if there is none: the peer's key is of low order.
    mutating func agree(withPeerAt place: Int) -> Bool {
        switch peers[place].agreement {
        case .agreed: return true
        case .impossible: return false
        case .unknown:
            do throws(HandshakeError) {
                peers[place].staticStatic = try privateKey.staticStatic(with: peers[place].publicKey)
                peers[place].agreement = .agreed
                return true
            } catch {
                peers[place].agreement = .impossible
                return false
            }
        }
    }

    private mutating func setAllowedIPs(_ wanted: [IPPrefix], of place: Int) {
        guard wanted != peers[place].allowedIPs else { return }
        let wantedSet = Set(wanted)
        for prefix in peers[place].allowedIPs where !wantedSet.contains(prefix) { routes.remove(prefix, peer: place) }
        peers[place].allowedIPs = []
        addAllowedIPs(wanted, to: place)
    }

    private mutating func addAllowedIPs(_ added: [IPPrefix], to place: Int) {
        guard !added.isEmpty else { return }
        var seen = Set(peers[place].allowedIPs)
        var taken: [Int: Set<IPPrefix>] = [:]
        for prefix in added where seen.insert(prefix).inserted {
            peers[place].allowedIPs.append(prefix)
            guard let former = routes.insert(prefix, peer: place), former != place, former != AllowedIPs.elsewhere else { continue }
            taken[former, default: []].insert(prefix)
        }
        for (former, prefixes) in taken { peers[former].allowedIPs.removeAll { prefixes.contains($0) } }
    }

    private mutating func removeAllowedIPs(_ removed: [IPPrefix], from place: Int) {
        guard !removed.isEmpty else { return }
        let removed = Set(removed)
        for prefix in removed { routes.remove(prefix, peer: place) }
        peers[place].allowedIPs.removeAll { removed.contains($0) }
    }

    private mutating func moveEndpoint(of place: Int, to endpoint: SocketEndpoint, now: Instant) {
        // The way there may be another, also to the endpoint that it has.
        peers[place].localAddress = nil
        guard peers[place].endpoint != endpoint else { return }
        peers[place].endpoint = endpoint
        guard peers[place].isHandshaking || !peers[place].keypairs.isEmpty || !peers[place].staged.isEmpty else { return }
        // Somebody else may have been asked before; the 5 s between initiations do not apply to another address.
        peers[place].timers.retransmitHandshake = PeerTimers.off
        peers[place].lastInitiationSentAt = nil
        startHandshake(with: place, now: now)
    }

    private mutating func setPersistentKeepalive(_ duration: Duration?, of place: Int, now: Instant) {
        let interval = duration.flatMap { $0 > .zero ? Interval(min(max($0, .seconds(1)), .seconds(65_535))) : nil }
        guard interval != peers[place].keepaliveInterval else { return }
        let wasOff = peers[place].keepaliveInterval == nil
        peers[place].keepaliveInterval = interval
        guard let interval else {
            peers[place].timers.persistentKeepalive = PeerTimers.off
            return
        }
        peers[place].timers.persistentKeepalive = now + interval
        if wasOff { sendKeepaliveOrHandshake(to: place, now: now) }
    }
}

extension Peer {
    func status(now: Instant) -> PeerStatus {
        PeerStatus(
            id: id, publicKey: publicKey, hasPresharedKey: presharedKey.map { !$0.key.isZero } ?? false, endpoint: endpoint,
            localAddress: localAddress, allowedIPs: allowedIPs, persistentKeepalive: keepaliveInterval?.duration,
            lastHandshake: lastHandshake,
            lastHandshakeWallTime: lastHandshakeWallTime, receivedBytes: receivedBytes, sentBytes: sentBytes,
            hasSession: keypairs.isReady(now: now), isSilent: isSilent, stagedPackets: staged.count,
            lastTimestamp: timestamps.last, refusedTimestamps: timestamps.refusedCount, lastRefusedTimestamp: timestamps.lastRefused,
            refusedTimestampBehind: timestamps.refusedBehind, handshakes: handshakes)
    }
}

extension PublicKey {
    /// Any total order that both sides see alike: that of the bytes.
    func isLess(than other: PublicKey) -> Bool {
        var bytes = InlineArray<64, UInt8>(repeating: 0)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        write(into: &raw, at: 0)
        other.write(into: &raw, at: 32)
        for offset in stride(from: 0, to: 32, by: 8) {
            let (left, right) = (raw.bytes.bigEndian64(at: offset), raw.bytes.bigEndian64(at: 32 + offset))
            if left != right { return left < right }
        }
        return false
    }
}

extension Device {
    /// For measurements: bytes of one peer's place.
    package static var peerByteCount: Int { MemoryLayout<Peer>.stride }
}
