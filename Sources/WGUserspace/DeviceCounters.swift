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
