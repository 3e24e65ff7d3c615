import Inet

/// What the sockets tell the device.
extension Device {
    /// The system refuses to send from the local address that the peer talked to. It chooses one until the peer is heard again.
    public mutating func forgetLocalAddress(of id: PeerID) {
        guard let place = peers.place(of: id) else { return }
        peers[place].localAddress = nil
    }

    /// Our address has changed, the port say: every peer with a session gets an empty packet, by which it finds us.
    public mutating func announceAddress(now: Instant) {
        for place in peers.places where peers.contains(place) && peers[place].keypairs.isReady(now: now) {
            peers[place].wantsKeepalive = true
            outbox.enqueue(&peers[place])
        }
    }
}
