import Inet
import Noise

/// What the owner of a device says about one peer.
public struct PeerConfiguration: Sendable {
    public var publicKey: PublicKey
    /// `nil` for none. A change takes effect at the next handshake.
    public var presharedKey: StoredPresharedKey?
    /// Where the peer is until it is heard from elsewhere; `nil` if it has to come to us first.
    public var endpoint: SocketEndpoint?
    /// The inner addresses that belong to the peer.
    public var allowedIPs: [IPPrefix]
    /// How often to send something when there is nothing to say, 1 to 65,535 s; `nil` or zero is never.
    public var persistentKeepalive: Duration?
    /// The last timestamp that was accepted of this peer before a restart; older initiations are replays.
    public var lastTimestamp: TAI64N?

    public init(
        publicKey: PublicKey, presharedKey: StoredPresharedKey? = nil, endpoint: SocketEndpoint? = nil, allowedIPs: [IPPrefix],
        persistentKeepalive: Duration? = nil, lastTimestamp: TAI64N? = nil
    ) {
        self.publicKey = publicKey
        self.presharedKey = presharedKey
        self.endpoint = endpoint
        self.allowedIPs = allowedIPs
        self.persistentKeepalive = persistentKeepalive
        self.lastTimestamp = lastTimestamp
    }
}

/// What the owner of a device says about all of it.
public struct DeviceConfiguration: Sendable {
    /// Bytes of the largest inner packet; padding does not go beyond it. 1,420 fits both outer families into 1,500.
    public var mtu = 1420
    /// Packets of one peer that wait for its session, at most. Linux MAX_STAGED_PACKETS is 128 too.
    public var stagedPacketsPerPeer = 128
    /// Bytes of one peer's packets that wait for its session, at most.
    public var stagedBytesPerPeer = 192 * 1024
    /// Bytes of all peers' packets that wait, at most.
    public var stagedBytesTotal = 16 * 1024 * 1024
    /// The last timestamp that was sent before a restart (see ``Device/lastSentTimestamp``); later ones are greater.
    public var lastSentTimestamp: TAI64N?
    /// Which of an interface's loops the device belongs to. Read when the device is made.
    public var share = LoopShare()
    /// What the cookies of all loops are made from, so that each takes those of the others; `nil`: the device draws its own. Read when the
    /// device is made.
    public var cookieRoot: CookieRoot?
    /// What seals and opens transport data of sessions that are made from now on.
    public var cipher = TransportCipher.libsodium

    public init() {}
}

/// A peer as it stands.
public struct PeerStatus: Sendable {
    public var id: PeerID
    public var publicKey: PublicKey
    public var hasPresharedKey: Bool
    public var endpoint: SocketEndpoint?
    /// The local address that the peer talked to last.
    public var localAddress: IPAddress?
    public var allowedIPs: [IPPrefix]
    public var persistentKeepalive: Duration?
    /// When the last session was agreed on, on both clocks; the civil one is what `wg show` reports.
    public var lastHandshake: Instant?
    public var lastHandshakeWallTime: WallTime?
    /// Bytes of authentic messages received, and of messages sent, headers included.
    public var receivedBytes: UInt64
    public var sentBytes: UInt64
    /// Whether a packet can be sealed now, without a handshake.
    public var hasSession: Bool
    /// Whether an initiation of ours is unanswered and nothing else has come from the peer since it left.
    public var isSilent: Bool
    /// Packets that wait for a session.
    public var stagedPackets: Int
    /// The last timestamp that was accepted of it, to keep across a restart.
    public var lastTimestamp: TAI64N?
    /// Initiations refused since the last accepted one because their timestamps were not later, and the last of those: a clock
    /// that stepped back looks like this.
    public var refusedTimestamps: UInt64
    public var lastRefusedTimestamp: TAI64N?
    /// By how much the last refused timestamp was behind the one that it should have been later than; `nil` if none was refused since.
    public var refusedTimestampBehind: Duration?
    /// What became of handshakes with the peer.
    public var handshakes: HandshakeCounters

    /// Handshakes with one peer since it was added; each wraps around.
    public struct HandshakeCounters: Equatable, Sendable {
        public var initiationsSent: UInt32 = 0
        /// Accepted ones.
        public var initiationsReceived: UInt32 = 0
        /// Sessions that came to be used.
        public var established: UInt32 = 0
        /// Handshakes that nobody answered for 90 s.
        public var gaveUp: UInt32 = 0

        public init() {}
    }
}

/// Names a peer of one device. A peer that was removed is never named again, though its place is used anew.
public struct PeerID: Hashable, Sendable, CustomStringConvertible {
    package let index: UInt32
    package let generation: UInt32

    public var description: String { "peer \(index).\(generation)" }

    /// Names nobody.
    static let nobody = PeerID(index: .max, generation: .max)
}
