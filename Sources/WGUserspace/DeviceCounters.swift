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
    /// Responses, cookie replies and data that came to this loop and were for another one.
    public var misdirectedMessages: UInt64 = 0
    /// Initiations that were read as far as their static key and handed to the peer's loop.
    public var initiationsHandedOver: UInt64 = 0

    public init() {}

    /// Adds those of another loop.
    package mutating func add(_ other: DeviceCounters) {
        initiationsSent &+= other.initiationsSent
        initiationsReceived &+= other.initiationsReceived
        responsesSent &+= other.responsesSent
        responsesReceived &+= other.responsesReceived
        sessionsEstablished &+= other.sessionsEstablished
        sessionsAsInitiator &+= other.sessionsAsInitiator
        sessionsAsResponder &+= other.sessionsAsResponder
        handshakesRetried &+= other.handshakesRetried
        handshakesGivenUp &+= other.handshakesGivenUp
        cookieRepliesSent &+= other.cookieRepliesSent
        cookiesReceived &+= other.cookiesReceived
        keepalivesSent &+= other.keepalivesSent
        keepalivesReceived &+= other.keepalivesReceived
        packetsSent &+= other.packetsSent
        packetsReceived &+= other.packetsReceived
        misdirectedMessages &+= other.misdirectedMessages
        initiationsHandedOver &+= other.initiationsHandedOver
    }
}
