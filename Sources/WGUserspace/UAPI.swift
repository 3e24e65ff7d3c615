import Inet
import Noise

/// The text protocol by which `wg` and its like configure an interface: what is asked for, what is answered.
///
///     get=1 ⏎ ⏎                          →  the state, errno=0 ⏎ ⏎
///     set=1 ⏎ key=value ⏎ … ⏎ ⏎          →  errno=0 ⏎ ⏎, or a negative errno
///
/// A `set` is read to its end and checked as a whole before anything is applied: one bad line, and nothing has happened. It has this
/// stricter than wireguard-go, which has applied the lines above the bad one; the kernel's netlink form, which `wg` was made for,
/// refuses bad attributes before it applies any.
///
/// Source: wireguard.com/xplatform, "Configuration Protocol".
public enum UAPI {
    /// Bytes of one request, at most; more are read over and refused. 10,000 peers with 70 blocks each fit.
    public static let maximumRequest = 16 << 20
    /// Bytes of one line, at most. A key's line, the longest, has 77.
    public static let maximumLine = 512

    /// What came in.
    public enum Request: Sendable {
        case get
        case set(SetRequest)
    }

    /// What happens to the private key.
    public enum KeyChange: Sendable {
        case set(StoredPrivateKey)
        /// It was all zero: the interface has no key, and no handshake takes place, until there is one again.
        case remove
    }

    /// Changes to apply in this order: key, port, mark, then (if so) all peers removed, then each peer's change.
    public struct SetRequest: Sendable {
        public var privateKey: KeyChange?
        /// 0 lets the system choose; `nil` leaves it.
        public var listenPort: UInt16?
        /// 0 is none; `nil` leaves it.
        public var fwmark: UInt32?
        /// The peers that are not named in `peers` go. One that is named keeps its session, though it starts from no allowed IPs,
        /// no endpoint of its own and no keepalive only if the changes say so.
        public var replacePeers: Bool
        /// In the order of the request; a peer may be named more than once.
        public var peers: [PeerChange]

        public init(
            privateKey: KeyChange? = nil, listenPort: UInt16? = nil, fwmark: UInt32? = nil, replacePeers: Bool = false,
            peers: [PeerChange] = []
        ) {
            self.privateKey = privateKey
            self.listenPort = listenPort
            self.fwmark = fwmark
            self.replacePeers = replacePeers
            self.peers = peers
        }
    }

    /// An interface as it stands.
    public struct State: Sendable {
        public var privateKey: StoredPrivateKey?
        /// 0 if there is none.
        public var listenPort: UInt16
        /// 0 if there is none.
        public var fwmark: UInt32
        public var peers: [Peer]

        public init(privateKey: StoredPrivateKey? = nil, listenPort: UInt16 = 0, fwmark: UInt32 = 0, peers: [Peer] = []) {
            self.privateKey = privateKey
            self.listenPort = listenPort
            self.fwmark = fwmark
            self.peers = peers
        }

        public struct Peer: Sendable {
            public var publicKey: PublicKey
            /// `nil` or all zero if there is none.
            public var presharedKey: StoredPresharedKey?
            public var endpoint: SocketEndpoint?
            /// When the last session was agreed on; `nil` if none was.
            public var lastHandshake: WallTime?
            /// Bytes of authentic messages, headers included.
            public var receivedBytes: UInt64
            public var sentBytes: UInt64
            /// Whole seconds; `nil` or zero is never.
            public var persistentKeepalive: Duration?
            public var allowedIPs: [IPPrefix]

            public init(
                publicKey: PublicKey, presharedKey: StoredPresharedKey? = nil, endpoint: SocketEndpoint? = nil,
                lastHandshake: WallTime? = nil, receivedBytes: UInt64 = 0, sentBytes: UInt64 = 0, persistentKeepalive: Duration? = nil,
                allowedIPs: [IPPrefix] = []
            ) {
                self.publicKey = publicKey
                self.presharedKey = presharedKey
                self.endpoint = endpoint
                self.lastHandshake = lastHandshake
                self.receivedBytes = receivedBytes
                self.sentBytes = sentBytes
                self.persistentKeepalive = persistentKeepalive
                self.allowedIPs = allowedIPs
            }
        }
    }

    /// Why a request was refused. It never holds a part of the request.
    public struct Fault: Error, Hashable, Sendable, CustomStringConvertible {
        /// A positive number of Linux's `errno.h`; on the wire it is negative, as with wireguard-go.
        public var errno: Int32

        public init(errno: Int32) { self.errno = errno }

        /// EPROTO: a line is not `key=value`.
        public static let notKeyAndValue = Fault(errno: 71)
        /// EINVAL: no such key at this place, or a value that the key cannot have.
        public static let invalid = Fault(errno: 22)
        /// EADDRINUSE: the UDP port is taken, or the mark cannot be set.
        public static let portInUse = Fault(errno: 98)
        /// EMSGSIZE: a line or the request is longer than its bound.
        public static let tooLong = Fault(errno: 90)
        /// EIO: the interface is shut down, or the system failed.
        public static let io = Fault(errno: 5)
        /// ENOANO, which wireguard-go answers for what it has no number for.
        public static let unknown = Fault(errno: 55)

        public var description: String {
            switch self {
            case .notKeyAndValue: "a line of the request is not key=value"
            case .invalid: "a key or value of the request is not valid"
            case .portInUse: "the UDP port is taken, or the mark may not be set"
            case .tooLong: "the request is longer than \(UAPI.maximumRequest) bytes, or a line than \(UAPI.maximumLine)"
            case .io: "the interface is shut down"
            default: "error \(errno)"
            }
        }
    }
}
