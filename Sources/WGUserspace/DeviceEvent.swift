import Inet
import Noise

/// What the owner of a device may want to know; polled by ``Device/pollEvent()``.
public enum DeviceEvent: Equatable, Sendable {
    /// New keys are in use: by us at once as the initiator, with the peer's first data as the responder.
    case sessionEstablished(PeerID)
    /// The peer was heard from elsewhere than before, authenticated.
    case endpointChanged(PeerID, SocketEndpoint)
    /// No answer for 90 s; what was staged is dropped. New packets or the persistent keepalive start again.
    case handshakeGaveUp(PeerID)
    /// No answer to an initiation; the next one follows. Time to resolve the endpoint's host name again.
    case handshakeRetry(PeerID)
    /// A session that was there works no longer, or is too old to be used, and a new handshake begins. Time to resolve the endpoint's host name again.
    case sessionStale(PeerID)
    /// An initiation with this timestamp leaves; to keep across a restart.
    case timestampSent(TAI64N)
    /// A peer's initiation with this timestamp was accepted; to keep across a restart.
    case timestampAccepted(PeerID, TAI64N)
    /// A peer's initiation was refused because its timestamp is not later than the last accepted one: the first of a row.
    case timestampRefused(PeerID, TAI64N)
    /// A peer's initiation was accepted though its timestamp is more than a day ahead of our clock; not to be kept.
    case timestampFarAhead(PeerID, TAI64N)
    /// Whether handshakes have to show a cookie from now on.
    case underLoad(Bool)
}

/// What became of a datagram.
public enum ReceiveResult: Equatable, Sendable {
    /// It was data: the range of the inner IP packet in it, without padding, and whose it is.
    case packet(Range<Int>, from: PeerID)
    /// A handshake message that waits for ``Device/handleQueuedHandshake(now:wallTime:)``.
    case queued
    /// A handshake message or a keepalive that needs nothing more.
    case handled
    /// It is for a peer of another loop, by its number: a message of type 2, 3 or 4 is to be handed over as it is, an initiation by
    /// ``Device/pollHandOver()``.
    case misdirected(to: Int)
    case dropped(DropReason)
}

/// What became of an inner packet.
public enum SendResult: Equatable, Sendable {
    /// It is sealed, and has to be sent now.
    case datagram(Transmit)
    /// There is no session yet; a copy waits for one.
    case staged(PeerID)
    case dropped(DropReason)
}

/// A datagram to send.
public struct Transmit: Equatable, Sendable {
    /// Where it lies in the buffer.
    public var range: Range<Int>
    public var endpoint: SocketEndpoint
    /// The local address to send from: the one that the peer talked to. `nil` leaves it to the system.
    public var source: IPAddress?
    /// Whose it is; `nil` for a cookie reply, which answers nobody in particular.
    public var peer: PeerID?
    /// Whether it is a handshake message, which goes out with DSCP AF41 (as Linux does).
    public var isHandshake: Bool
    /// What the outer header carries of the inner one's congestion notification (RFC 6040 §4.1, normal mode).
    public var ecn: ECN

    public init(
        range: Range<Int>, endpoint: SocketEndpoint, source: IPAddress? = nil, peer: PeerID?, isHandshake: Bool, ecn: ECN = .notECT
    ) {
        self.range = range
        self.endpoint = endpoint
        self.source = source
        self.peer = peer
        self.isHandshake = isHandshake
        self.ecn = ecn
    }
}

/// First in, first out, in one array: no memory is moved for each element.
struct Queue<Element> {
    private var elements: [Element?] = []
    private var head = 0

    var isEmpty: Bool { head == elements.count }
    var count: Int { elements.count - head }

    mutating func append(_ element: Element) { elements.append(element) }

    var first: Element? { head < elements.count ? elements[head] : nil }

    mutating func popFirst() -> Element? {
        guard head < elements.count else { return nil }
        let element = elements[head].take()
        head += 1
        if head == elements.count {
            elements.removeAll(keepingCapacity: elements.capacity <= 1024)
            head = 0
        } else if head >= 64 && head * 2 >= elements.count {
            elements.removeFirst(head)
            head = 0
        }
        return element
    }

    mutating func removeAll() {
        elements.removeAll()
        head = 0
    }
}
