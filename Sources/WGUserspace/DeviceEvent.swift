import Inet

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
}

/// What became of a datagram.
public enum ReceiveResult: Equatable, Sendable {
    /// It was data: the range of the inner IP packet in it, without padding, and whose it is.
    case packet(Range<Int>, from: PeerID)
    /// A handshake message or a keepalive.
    case handled
    case dropped(DropReason)
}

/// What became of an inner packet.
public enum SendResult: Equatable, Sendable {
    /// It is sealed: the range of the datagram in the buffer, which has to be sent now.
    case datagram(Range<Int>, to: SocketEndpoint, PeerID)
    /// There is no session yet; a copy waits for one.
    case staged(PeerID)
    case dropped(DropReason)
}

/// A datagram to send.
public struct Transmit: Equatable, Sendable {
    /// Where it lies in the buffer.
    public var range: Range<Int>
    public var endpoint: SocketEndpoint
    public var peer: PeerID
    /// Whether it is a handshake message, which goes out with DSCP AF41 (as Linux does).
    public var isHandshake: Bool

    public init(range: Range<Int>, endpoint: SocketEndpoint, peer: PeerID, isHandshake: Bool) {
        self.range = range
        self.endpoint = endpoint
        self.peer = peer
        self.isHandshake = isHandshake
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
