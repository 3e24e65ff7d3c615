import Inet
import Noise

/// A WireGuard device without sockets or clocks: datagrams and inner packets come in as bytes, time and randomness as arguments;
/// datagrams, inner packets and events come out as values.
///
/// ```
///   receive(datagram) ──► packet(range, from)        send(packet) ──► datagram(range, to)
///            │                                                │ no session: staged
///            └──► outbox (handshakes, keepalives, staged) ◄───┘◄── handleTimeout
///                           └──► pollTransmit
/// ```
/// After any of `receive`, `send`, `handleTimeout` and the verbs that change peers, call ``pollTransmit(into:at:now:wallTime:)`` until it
/// gives `nil`, and be back with ``handleTimeout(now:)`` at ``nextDeadline``.
///
/// Initiations and responses are queued behind data: call ``handleQueuedHandshake(now:wallTime:)`` for each when the data at hand is
/// through, and say with ``recordHandshakeWork(_:now:)`` how long it took.
///
/// It deliberately does not: read a clock to judge its load, resolve names, look at more of an inner packet than its length,
/// addresses and congestion bits. It belongs to one thread.
///
/// Source: WG; the file names follow its sections.
public struct Device: ~Copyable {
    /// What ``DeviceConfiguration`` bounds; may change at any time.
    public var configuration: DeviceConfiguration
    /// The public key of the device.
    public private(set) var publicKey: PublicKey
    /// Every drop since the device was made.
    public internal(set) var drops = DropCounters()
    /// What else happened since the device was made.
    public internal(set) var counters = DeviceCounters()
    /// The greatest timestamp of all sent initiations, to keep across a restart.
    public internal(set) var lastSentTimestamp: TAI64N?

    /// A key that nobody has while ``hasPrivateKey`` is false.
    var privateKey: PrivateKey
    /// Whether there is an identity; without one no handshake takes place.
    public private(set) var hasPrivateKey = true
    /// For messages to us.
    var macKeys: MACKeys
    let random: RandomSource

    var peers = PeerSlab()
    var placeByKey: [PublicKey: Int] = [:]
    var routes = AllowedIPs()
    var indices: IndexTable
    var deadlines = DeadlineQueue()
    var outbox = Outbox()
    var handshakes = HandshakeQueue()
    var load = LoadSignal()
    var wasUnderLoad = false
    var cookieChecker = CookieChecker()
    var rateLimiter = HandshakeRateLimiter()
    var cookieReplies = Queue<CookieReply>()
    var events = Queue<DeviceEvent>()
    /// Bytes of all peers' staged packets.
    var stagedByteCount = 0

    /// - Parameters:
    ///   - privateKey: the device's identity.
    ///   - random: must be cryptographically secure outside tests.
    public init(privateKey: consuming PrivateKey, configuration: DeviceConfiguration, random: RandomSource) {
        publicKey = privateKey.publicKey
        macKeys = MACKeys(publicKey: publicKey)
        self.privateKey = privateKey
        self.configuration = configuration
        self.random = random
        indices = IndexTable(tag: configuration.indexTag)
        lastSentTimestamp = configuration.lastSentTimestamp
    }

    // MARK: - Peers

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

    /// Changes one peer as far as `change` says so; all else goes on. A change of the device's own key is passed over.
    ///
    /// - Returns: the peer's ID; `nil` if it was removed, or is not there and was only to be updated.
    @discardableResult
    public mutating func apply(_ change: PeerChange, now: Instant) -> PeerID? {
        guard change.publicKey != publicKey else { return nil }
        let known = placeByKey[change.publicKey]
        if change.remove {
            if let known { removePeer(peers[known].id, now: now) }
            return nil
        }
        if known == nil, change.updateOnly { return nil }
        let place = known ?? addPeer(change.publicKey, lastTimestamp: nil)
        if let presharedKey = change.presharedKey { peers[place].presharedKey = presharedKey.key.isZero ? nil : presharedKey }
        if change.replaceAllowedIPs || !change.addedAllowedIPs.isEmpty || !change.removedAllowedIPs.isEmpty {
            let removed = Set(change.removedAllowedIPs)
            let kept = change.replaceAllowedIPs ? [] : peers[place].allowedIPs.filter { !removed.contains($0) }
            setAllowedIPs(kept + change.addedAllowedIPs, of: place)
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
        deadlines.remove(place)
        peers.remove(at: place)
    }

    /// Changes the device's identity: all sessions end, and a peer with the new key is removed.
    public mutating func setPrivateKey(_ key: consuming PrivateKey, now: Instant) {
        guard !hasPrivateKey || !key.isEqual(to: privateKey) else { return }
        hasPrivateKey = true
        replacePrivateKey(key, now: now)
    }

    /// Takes the device's identity away: all sessions end, and no handshake takes place until there is a key again.
    public mutating func removePrivateKey(now: Instant) {
        guard hasPrivateKey else { return }
        hasPrivateKey = false
        replacePrivateKey(.generate(using: random), now: now)
    }

    /// Another value with the private key, for whoever may see it; `nil` if there is none.
    package func copyPrivateKey() -> PrivateKey? { hasPrivateKey ? privateKey.copy() : nil }

    /// A peer's preshared key, for whoever may see it; `nil` if there is none.
    package func presharedKey(of id: PeerID) -> StoredPresharedKey? { peers.place(of: id).flatMap { peers[$0].presharedKey } }

    private mutating func replacePrivateKey(_ key: consuming PrivateKey, now: Instant) {
        publicKey = key.publicKey
        macKeys = MACKeys(publicKey: publicKey)
        privateKey = key
        if let own = peer(for: publicKey) { removePeer(own, now: now) }
        for place in peers.places where peers.contains(place) {
            peers[place].wipe(indices: &indices)
            agree(withPeerAt: place)
        }
    }

    /// Moves a peer's endpoint, say because its host name has another address now. A peer that has or wants a session gets a new
    /// handshake there at once.
    public mutating func setEndpoint(_ endpoint: SocketEndpoint, of id: PeerID, now: Instant) {
        guard let place = peers.place(of: id) else { return }
        moveEndpoint(of: place, to: endpoint, now: now)
        reschedule(place)
    }

    /// Starts a handshake unless one is under way. Nothing happens as long as the endpoint is not known.
    public mutating func initiateHandshake(with id: PeerID, now: Instant) {
        guard let place = peers.place(of: id) else { return }
        startHandshake(with: place, now: now)
        reschedule(place)
    }

    /// Wipes all sessions and handshakes, as before the machine suspends. Peers stay, and begin anew when there is traffic.
    public mutating func wipeSessions() {
        for place in peers.places where peers.contains(place) { peers[place].wipe(indices: &indices) }
    }

    /// Forgets the last accepted timestamp of a peer whose clock was ahead when it was accepted.
    public mutating func forgetTimestamp(of id: PeerID) {
        guard let place = peers.place(of: id) else { return }
        peers[place].lastTimestamp = nil
        peers[place].lastFarAheadTimestamp = nil
        peers[place].refusedTimestamps = 0
        peers[place].lastRefusedTimestamp = nil
    }

    /// The peer with a public key.
    public func peer(for publicKey: PublicKey) -> PeerID? { placeByKey[publicKey].map { peers[$0].id } }

    /// All peers.
    public var peerIDs: [PeerID] { peers.places.filter { peers.contains($0) }.map { peers[$0].id } }

    /// The peer that owns the longest prefix with an inner address in it.
    public func peer(owning address: IPAddress) -> PeerID? { routes.lookup(address).map { peers[$0].id } }

    /// A peer as it stands; `nil` if it was removed.
    ///
    /// - Parameter now: decides whether the session is still young enough; without it, only whether there is one.
    public func status(of id: PeerID, now: Instant = Instant(nanoseconds: 0)) -> PeerStatus? {
        guard let place = peers.place(of: id) else { return nil }
        return peers[place].status(now: now)
    }

    // MARK: - Output

    /// The next event, oldest first.
    public mutating func pollEvent() -> DeviceEvent? { events.popFirst() }

    /// When ``handleTimeout(now:)`` wants to be called next; `nil` if nothing is pending. It may be early, never late.
    public var nextDeadline: Instant? { deadlines.earliest }

    /// For tests: the counter of the next packet to a peer.
    package mutating func setSendCounter(_ counter: UInt64, of id: PeerID) {
        if let place = peers.place(of: id) { peers[place].keypairs.setSendCounter(counter) }
    }

    /// For tests: how many receiver indices are in use.
    package var indexCount: Int { indices.count }

    /// For tests: bytes of all staged packets.
    package var stagedBytes: Int { stagedByteCount }

    // MARK: - Inside

    mutating func emit(_ event: DeviceEvent) {
        guard events.count < Constants.maximumEvents else { return drops.count(.eventQueueFull) }
        events.append(event)
    }

    /// Makes sure that the peer's first deadline is met. Comes after everything that arms a timer.
    @inline(__always)
    mutating func reschedule(_ place: Int) { deadlines.schedule(place, by: peers[place].timers.earliest) }

    mutating func dropStaged(of place: Int, reason: DropReason) {
        drops.count(reason, times: peers[place].staged.count)
        stagedByteCount -= peers[place].staged.byteCount
        peers[place].staged.removeAll()
    }

    private mutating func addPeer(_ key: PublicKey, lastTimestamp: TAI64N?) -> Int {
        let place = peers.insert(Peer(id: peers.nextID(), publicKey: key))
        agree(withPeerAt: place)
        peers[place].lastTimestamp = lastTimestamp
        placeByKey[key] = place
        return place
    }

    private mutating func agree(withPeerAt place: Int) {
        let remote = peers[place].publicKey
        do throws(HandshakeError) {
            peers[place].staticStatic = try privateKey.staticStatic(with: remote)
            peers[place].isUsable = hasPrivateKey
        } catch {
            peers[place].staticStatic = SecretBytes(count: 0)
            peers[place].isUsable = false
        }
        peers[place].isPreferredInitiator = publicKey.isLess(than: remote)
    }

    private mutating func setAllowedIPs(_ wanted: [IPPrefix], of place: Int) {
        var seen = Set<IPPrefix>()
        let prefixes = wanted.filter { seen.insert($0).inserted }
        for prefix in peers[place].allowedIPs where !seen.contains(prefix) { routes.remove(prefix, peer: place) }
        peers[place].allowedIPs = prefixes
        for prefix in prefixes {
            guard let former = routes.insert(prefix, peer: place), former != place else { continue }
            peers[former].allowedIPs.removeAll { $0 == prefix }
        }
    }

    private mutating func moveEndpoint(of place: Int, to endpoint: SocketEndpoint, now: Instant) {
        guard peers[place].endpoint != endpoint else { return }
        peers[place].endpoint = endpoint
        // The way there may be another.
        peers[place].localAddress = nil
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

/// How often things happened since the device was made.
public struct DeviceCounters: Equatable, Sendable {
    public var initiationsSent: UInt64 = 0
    /// Authentic ones of known peers, accepted.
    public var initiationsReceived: UInt64 = 0
    public var responsesSent: UInt64 = 0
    /// Authentic ones to a handshake of ours.
    public var responsesReceived: UInt64 = 0
    /// New keys in use, by either side's handshake.
    public var sessionsEstablished: UInt64 = 0
    /// The part of them that we began.
    public var sessionsAsInitiator: UInt64 = 0
    /// The part of them that the peer began.
    public var sessionsAsResponder: UInt64 = 0
    /// Initiations that nobody answered in time and that were sent again.
    public var handshakesRetried: UInt64 = 0
    /// Handshakes that nobody answered for 90 s.
    public var handshakesGivenUp: UInt64 = 0
    public var cookieRepliesSent: UInt64 = 0
    public var cookiesReceived: UInt64 = 0
    public var keepalivesSent: UInt64 = 0
    public var keepalivesReceived: UInt64 = 0
    /// Inner packets.
    public var packetsSent: UInt64 = 0
    public var packetsReceived: UInt64 = 0

    public init() {}
}

extension Peer {
    func status(now: Instant) -> PeerStatus {
        PeerStatus(
            id: id, publicKey: publicKey, hasPresharedKey: presharedKey.map { !$0.key.isZero } ?? false, endpoint: endpoint,
            localAddress: localAddress, allowedIPs: allowedIPs, persistentKeepalive: keepaliveInterval?.duration,
            lastHandshake: lastHandshake,
            lastHandshakeWallTime: lastHandshakeWallTime, receivedBytes: receivedBytes, sentBytes: sentBytes,
            hasSession: keypairs.isReady(now: now), stagedPackets: staged.count, lastTimestamp: lastTimestamp,
            refusedTimestamps: refusedTimestamps, lastRefusedTimestamp: lastRefusedTimestamp)
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
