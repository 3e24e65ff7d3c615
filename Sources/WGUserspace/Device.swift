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
    public internal(set) var publicKey: PublicKey
    /// Every drop since the device was made.
    public internal(set) var drops = DropCounters()
    /// What else happened since the device was made.
    public internal(set) var counters = DeviceCounters()
    /// The greatest timestamp of all sent initiations, to keep across a restart.
    public internal(set) var lastSentTimestamp: TAI64N?

    /// A key that nobody has while ``hasPrivateKey`` is false.
    var privateKey: PrivateKey
    /// Whether there is an identity; without one no handshake takes place.
    public internal(set) var hasPrivateKey = true
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
    /// Initiations for peers of other loops, until they are polled.
    var handOvers = Queue<HandOver>()
    /// Initiations that other loops have handed over.
    var handedInitiations = Queue<HandedInitiation>()
    var load = LoadSignal()
    /// What the owner was told last.
    var wasUnderLoad = false
    var cookieChecker: CookieChecker
    var rateLimiter = HandshakeRateLimiter()
    var cookieReplies = Queue<CookieReply>()
    var events = Queue<DeviceEvent>()
    /// No timestamp to a peer that is new to us may be below: those of the last run and of removed peers.
    var timestampFloor: TAI64N?
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
        indices = IndexTable(tag: configuration.share.indexTag)
        cookieChecker = CookieChecker(root: configuration.cookieRoot)
        lastSentTimestamp = configuration.lastSentTimestamp
        timestampFloor = configuration.lastSentTimestamp
    }

    // MARK: - Output

    /// The next event, oldest first.
    public mutating func pollEvent() -> DeviceEvent? { events.popFirst() }

    /// When ``handleTimeout(now:)`` wants to be called next; `nil` if nothing is pending. It may be early, never late.
    public var nextDeadline: Instant? {
        // That the load is over is told by a timeout, when no handshake comes to tell it.
        wasUnderLoad ? min(deadlines.earliest ?? .distantFuture, load.until) : deadlines.earliest
    }

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
}
