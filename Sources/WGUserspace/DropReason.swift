/// Why a packet or a message went no further. Every drop is counted under one of these; none is an error.
public enum DropReason: Int, CaseIterable, Hashable, Sendable {
    // What is no WireGuard message.
    /// Too short to have a type.
    case truncated
    /// No known type, or a reserved byte that is not zero.
    case unknownType
    /// Not the length that its type has.
    case wrongLength

    // Handshake messages.
    /// mac1 is wrong: the sender does not know our public key, or the message is damaged.
    case invalidMAC1
    /// A field of a handshake message does not decrypt.
    case handshakeNotAuthentic
    /// A key of low order.
    case lowOrderPoint
    /// An authentic initiation of nobody we know.
    case unknownPeer
    /// An initiation that is not later than the last one: replayed, or the peer's clock stepped back.
    case staleTimestamp
    /// Less than 20 ms after the peer's last initiation.
    case initiationFlood
    /// A response to no handshake of ours, or data for no session of ours.
    case unknownReceiverIndex
    /// A cookie reply that answers nothing we sent, or is forged.
    case invalidCookieReply
    /// The queue of handshake messages was full.
    case handshakeQueueFull
    /// Under load, a handshake message without a cookie; it was answered with one.
    case cookieRequired
    /// The same, and there was no room for the answer.
    case cookieReplyQueueFull
    /// Under load, more handshakes of one source than it may ask for.
    case rateLimited
    /// The device has no private key now.
    case noPrivateKey
    /// A message for a peer of another loop, which had no room for it.
    case handOverFull

    // Data messages.
    /// The session's keys are too old (REJECT-AFTER-TIME).
    case expiredKeypair
    /// The counter is beyond REJECT-AFTER-MESSAGES.
    case counterLimit
    /// The data does not decrypt.
    case dataNotAuthentic
    /// The counter was seen before, or is older than the window.
    case replayedCounter
    /// What was inside is no IP packet, or is shorter than it says.
    case malformedInnerPacket
    /// The inner source address is not the peer's.
    case sourceNotAllowed
    /// A router on the way was congested, and the inner packet's transport would not see it (RFC 6040 §4.2).
    case congestionUnseen

    // Packets that we were to send.
    /// No IP packet.
    case malformedOutboundPacket
    /// The destination belongs to no peer.
    case noRoute
    /// The peer's key cannot be used in a handshake.
    case unusablePeer
    /// A staged packet gave way to a newer one of the same peer, or was larger than the bound.
    case stagingPeerFull
    /// The staged packets of all peers together were too many.
    case stagingFull
    /// A staged packet whose handshake was given up.
    case handshakeGaveUp
    /// A staged packet whose peer was removed.
    case peerRemoved
    /// An event that nobody polled (not a packet).
    case eventQueueFull
}

/// How often each ``DropReason`` happened since the device was made.
public struct DropCounters: Equatable, Sendable {
    private var counts = InlineCounts(repeating: 0)

    public init() {}

    public subscript(reason: DropReason) -> UInt64 { counts[reason.rawValue] }

    /// All drops together.
    public var total: UInt64 {
        var sum: UInt64 = 0
        for reason in DropReason.allCases { sum &+= self[reason] }
        return sum
    }

    /// The reasons that happened, in the order of the enumeration.
    public var nonZero: [(reason: DropReason, count: UInt64)] {
        DropReason.allCases.compactMap { self[$0] == 0 ? nil : ($0, self[$0]) }
    }

    mutating func count(_ reason: DropReason, times: Int = 1) { counts[reason.rawValue] &+= UInt64(clamping: times) }

    public static func == (left: DropCounters, right: DropCounters) -> Bool {
        DropReason.allCases.allSatisfy { left[$0] == right[$0] }
    }

    /// Room for every reason; a test compares it with `allCases`.
    private typealias InlineCounts = InlineArray<40, UInt64>
    package static let capacity = 40
}
