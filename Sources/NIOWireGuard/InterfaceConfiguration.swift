import Inet
import Noise
import TCPStack
import WGUserspace

/// An address of an interface and the block that it lies in.
public typealias InterfaceAddress = WGQuickFile.Address
/// Where a peer is reached: an address, or a name that is resolved again when a handshake goes unanswered.
public typealias PeerEndpoint = WGQuickFile.Endpoint

extension InterfaceAddress {
    /// The address to dial `remote` from: the one whose block holds it, else the first of its family.
    /// - Returns: `nil` if no address has the family of `remote`.
    public static func source(for remote: IPAddress, among addresses: [InterfaceAddress]) -> IPAddress? {
        addresses.first { $0.prefix.contains(remote) }?.address ?? addresses.first { $0.address.family == remote.family }?.address
    }
}

/// What a WireGuard interface is made from.
public struct InterfaceConfiguration: Sendable {
    /// A peer of the interface.
    public struct Peer: Sendable {
        public var publicKey: PublicKey
        public var presharedKey: StoredPresharedKey?
        public var endpoint: PeerEndpoint?
        /// The inner addresses that belong to the peer.
        public var allowedIPs: [IPPrefix]
        /// How often to send something when there is nothing to say; `nil` or zero is never.
        public var persistentKeepalive: Duration?
        /// The last timestamp that was accepted of the peer before a restart; matters when the peer is added.
        public var lastTimestamp: TAI64N?

        public init(
            publicKey: PublicKey, presharedKey: StoredPresharedKey? = nil, endpoint: PeerEndpoint? = nil, allowedIPs: [IPPrefix],
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

    public var privateKey: StoredPrivateKey
    public var addresses: [InterfaceAddress]
    /// The UDP port; 0 lets the system choose.
    public var listenPort: UInt16
    /// Bytes of the largest inner packet.
    public var mtu: Int
    public var peers: [Peer]
    /// The mark of all datagrams sent (SO_MARK), for firewalls and routing rules; 0 is none. Takes CAP_NET_ADMIN.
    public var fwmark: UInt32 = 0
    /// The greatest timestamp that was sent before a restart, so that peers accept the next one.
    public var lastSentTimestamp: TAI64N?
    /// What seals and opens the tunnel's data. ``Noise/TransportCipher`` has ``speeds()`` to choose by.
    public var cipher = TransportCipher.libsodium

    public init(privateKey: StoredPrivateKey, addresses: [InterfaceAddress], listenPort: UInt16 = 0, mtu: Int = 1420, peers: [Peer]) {
        self.privateKey = privateKey
        self.addresses = addresses
        self.listenPort = listenPort
        self.mtu = mtu
        self.peers = peers
    }

    /// Takes over a wg-quick file that has been read.
    /// - Throws: `InterfaceError.noPrivateKey` or `.noAddress` if the file lacks what every interface needs.
    public init(_ file: WGQuickFile) throws(InterfaceError) {
        guard let key = file.privateKey else { throw .noPrivateKey }
        guard !file.addresses.isEmpty else { throw .noAddress }
        self.init(
            privateKey: key, addresses: file.addresses, listenPort: file.listenPort ?? 0, mtu: file.mtu ?? 1420,
            peers: file.peers.map {
                Peer(
                    publicKey: $0.publicKey, presharedKey: $0.presharedKey, endpoint: $0.endpoint, allowedIPs: $0.allowedIPs,
                    persistentKeepalive: $0.persistentKeepalive)
            })
    }

    /// Reads wg-quick text: `[Interface]` and `[Peer]` sections.
    public init(wgQuick text: String) throws {
        let bytes = Array(text.utf8)
        try self.init(WGQuickFile(bytes.span.bytes))
    }
}

/// Why an interface could not be made.
public enum InterfaceError: Error, Equatable, Sendable, CustomStringConvertible {
    case noPrivateKey
    case noAddress
    case bindFailed(port: UInt16, errno: CInt)
    /// Several loops cannot have one port.
    case portNotShared(port: UInt16, errno: CInt)
    /// The sockets may not be marked.
    case markRefused(mark: UInt32, errno: CInt)

    public var description: String {
        switch self {
        case .noPrivateKey: "the [Interface] section has no PrivateKey: make one with 'kakuremichi keys' or 'wg genkey'"
        case .noAddress: "the [Interface] section has no Address: write the virtual IP, 'Address = 10.1.0.2/24' say"
        case .bindFailed(let port, let errno):
            errno == 98
                ? "UDP port \(port) is in use: choose another ListenPort, or stop the program that holds it"
                : "UDP port \(port) cannot be bound (errno \(errno)): choose another ListenPort"
        case .portNotShared(let port, let errno):
            "UDP port \(port) cannot be shared by several loops (errno \(errno)): use one loop"
        case .markRefused(let mark, let errno):
            "the firewall mark \(mark) cannot be set (errno \(errno)): it takes the capability CAP_NET_ADMIN; give it, or leave FwMark out"
        }
    }
}
