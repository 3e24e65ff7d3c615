import Inet
import Noise

/// All that is known of one peer. It lives in the device's slab; dropping it wipes its keys.
///
/// The initiator's state (`initiation`) and the responder's (`KeypairSlots.next`) are apart, so that two initiations that cross
/// on the way both complete.
struct Peer: ~Copyable {
    /// An initiation that waits for its response.
    struct Initiation: ~Copyable {
        let handshake: InitiatorHandshake
        let sentAt: Instant
    }

    /// A response that waits to be sent.
    struct PendingResponse {
        var message: [UInt8]
        var endpoint: SocketEndpoint
        var localAddress: IPAddress?
    }

    /// What is known of the key agreement of both static keys.
    enum Agreement {
        /// It was not needed yet.
        case unknown
        case agreed
        /// The peer's key is of low order: no handshake is possible.
        case impossible
    }

    let id: PeerID
    let publicKey: PublicKey
    var agreement = Agreement.unknown
    /// The key agreement of both static keys, computed once; empty unless `agreement` says that it was.
    var staticStatic: SecretBytes
    /// Whether a crossing handshake of the peer's wins over ours (see ``KeypairSlots``).
    var isPreferredInitiator: Bool

    var presharedKey: StoredPresharedKey?
    var allowedIPs: [IPPrefix] = []
    /// What the configuration said last; `endpoint` may have moved on since.
    var configuredEndpoint: SocketEndpoint?
    var endpoint: SocketEndpoint?
    /// The local address that the peer talked to, which answers go out from.
    var localAddress: IPAddress?
    var keepaliveInterval: Interval?

    var keypairs = KeypairSlots()
    var initiation: Initiation?
    /// The index of `initiation`, in the device's table.
    var initiationIndex: UInt32?
    var pendingResponse: PendingResponse?
    var cookies = CookieJar()
    var timers = PeerTimers()
    var staged = StagedPackets()

    /// What the outbox has to send, beside a response and staged packets.
    var wantsInitiation = false
    var wantsKeepalive = false
    var isInOutbox = false

    var lastInitiationSentAt: Instant?
    var lastInitiationAcceptedAt: Instant?
    var lastSentTimestamp: TAI64N?
    var timestamps = TimestampGuard()
    var handshakes = PeerStatus.HandshakeCounters()

    /// When anything authentic came last.
    var lastReceivedAt = Instant(nanoseconds: 0)
    var lastHandshake: Instant?
    var lastHandshakeWallTime: WallTime?
    var receivedBytes: UInt64 = 0
    var sentBytes: UInt64 = 0

    init(id: PeerID, publicKey: PublicKey) {
        self.id = id
        self.publicKey = publicKey
        staticStatic = SecretBytes(count: 0)
        isPreferredInitiator = false
    }

    /// Whether the outbox has reason to look at the peer.
    func hasSomethingToSend(now: Instant) -> Bool {
        pendingResponse != nil || wantsInitiation || wantsKeepalive || (!staged.isEmpty && keypairs.isReady(now: now))
    }

    /// Whether a handshake of ours is under way: waiting to leave, or for its response, or for the next attempt.
    var isHandshaking: Bool { wantsInitiation || timers.retransmitHandshake != PeerTimers.off }

    /// Whether nothing has come from the peer since the initiation left that nobody has answered.
    var isSilent: Bool {
        switch initiation {
        case .some(let initiation): lastReceivedAt < initiation.sentAt
        case .none: false
        }
    }

    /// Any authenticated message came (WG §6.5).
    @inline(__always)
    mutating func authenticatedReceived(byteCount: Int, now: Instant) {
        receivedBytes &+= UInt64(byteCount)
        lastReceivedAt = now
        timers.sendAnsweredByReceiving()
        rearmPersistentKeepalive(now: now)
    }

    /// Any authenticated message leaves.
    @inline(__always)
    mutating func authenticatedSent(byteCount: Int, now: Instant) {
        sentBytes &+= UInt64(byteCount)
        timers.receiveAnsweredBySending()
        rearmPersistentKeepalive(now: now)
    }

    @inline(__always)
    private mutating func rearmPersistentKeepalive(now: Instant) {
        if let keepaliveInterval { timers.persistentKeepalive = now + keepaliveInterval }
    }

    /// Drops the initiator's state.
    mutating func forgetInitiation(indices: inout IndexTable) {
        if let index = initiationIndex.take() { indices.remove(index) }
        initiation = nil
    }

    /// All keys and handshake state go; indices are freed.
    mutating func wipe(indices: inout IndexTable) {
        keypairs.wipe(indices: &indices)
        forgetInitiation(indices: &indices)
        pendingResponse = nil
    }

    /// The handshake that the peer or we began is through: keys are in use.
    mutating func handshakeCompleted(now: Instant, wallTime: WallTime) {
        wantsInitiation = false
        timers.retransmitHandshake = PeerTimers.off
        timers.giveUp = PeerTimers.off
        handshakes.established &+= 1
        lastHandshake = now
        lastHandshakeWallTime = wallTime
    }
}
