import Inet
import Noise

/// A change of one peer: what it does not mention stays as it is, and so does the session.
///
/// Source: wireguard.com/xplatform, "Configuration Protocol".
public struct PeerChange: Sendable {
    public var publicKey: PublicKey
    /// Takes the peer away; the rest of the change then says nothing.
    public var remove: Bool
    /// The change is skipped unless the peer is there already.
    public var updateOnly: Bool
    /// The new preshared key, all zero for none; `nil` leaves it.
    public var presharedKey: StoredPresharedKey?
    /// The new endpoint; `nil` leaves it.
    public var endpoint: SocketEndpoint?
    /// How often to send something when there is nothing to say, 1 to 65,535 s; zero is never and `nil` leaves it.
    public var persistentKeepalive: Duration?
    /// All blocks that the peer had are taken from it first.
    public var replaceAllowedIPs: Bool
    /// Blocks that the peer gets, also from another peer.
    public var addedAllowedIPs: [IPPrefix]
    /// Blocks that are taken from the peer if they are its own. None of them is in `addedAllowedIPs`.
    public var removedAllowedIPs: [IPPrefix]

    public init(
        publicKey: PublicKey, remove: Bool = false, updateOnly: Bool = false, presharedKey: StoredPresharedKey? = nil,
        endpoint: SocketEndpoint? = nil, persistentKeepalive: Duration? = nil, replaceAllowedIPs: Bool = false,
        addedAllowedIPs: [IPPrefix] = [], removedAllowedIPs: [IPPrefix] = []
    ) {
        self.publicKey = publicKey
        self.remove = remove
        self.updateOnly = updateOnly
        self.presharedKey = presharedKey
        self.endpoint = endpoint
        self.persistentKeepalive = persistentKeepalive
        self.replaceAllowedIPs = replaceAllowedIPs
        self.addedAllowedIPs = addedAllowedIPs
        self.removedAllowedIPs = removedAllowedIPs
    }
}
