import Inet

/// A port in LISTEN. Half-open connections and those that the application has not taken yet are counted against their bounds.
struct Listener {
    /// `nil`: any of our addresses.
    let address: IPAddress?
    let port: UInt16
    /// The most established connections that wait for `pollEvent`.
    let backlog: Int
    let options: ConnectionOptions
    /// Connections in SYN-RECEIVED.
    var halfOpen = 0
    /// Until then a cookie that was sent from here may come back.
    var cookiesUntil = Instant(nanoseconds: 0)
    /// Established connections whose `.accepted` event has not been taken.
    var waiting = 0

    var hasRoom: Bool { waiting < backlog }
}
