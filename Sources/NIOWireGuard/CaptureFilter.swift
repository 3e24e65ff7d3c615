import Inet
import Noise

/// Which packets a capture takes: those that meet one condition. Written as a public key, an address or block, or a port.
public enum CaptureFilter: Hashable, Sendable, CustomStringConvertible {
    /// From or to this peer.
    case peer(PublicKey)
    /// From or to an inner address of this block.
    case block(IPPrefix)
    /// From or to this TCP or UDP port. Fragments behind the first have none and are not taken.
    case port(UInt16)

    /// - Returns: `nil` if the text is none of these.
    public init?(_ text: String) {
        if let key = PublicKey(base64: text) {
            self = .peer(key)
        } else if (1...5).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) {
            guard let port = UInt16(text), port > 0 else { return nil }
            self = .port(port)
        } else if let block = IPPrefix(text) {
            self = .block(block)
        } else {
            return nil
        }
    }

    public var description: String {
        switch self {
        case .peer(let key): key.base64
        case .block(let block): block.length == block.address.bitWidth ? "\(block.address)" : "\(block)"
        case .port(let port): "\(port)"
        }
    }

    /// - Parameters:
    ///   - packet: a whole inner packet.
    ///   - peer: whom it came from or goes to; `nil` if nobody owns its destination.
    package func matches(_ packet: RawSpan, peer: PublicKey?) -> Bool {
        switch self {
        case .peer(let key): return key == peer
        case .block(let block):
            guard let inner = IPHeader.routing(of: packet) else { return false }
            return block.contains(inner.source) || block.contains(inner.destination)
        case .port(let port):
            guard let header = try? IPHeader(parsing: packet), header.upperProtocol == .tcp || header.upperProtocol == .udp,
                header.fragment?.offset ?? 0 == 0, header.payload.count >= 4
            else { return false }
            return packet.bigEndian16(at: header.headerLength) == port || packet.bigEndian16(at: header.headerLength + 2) == port
        }
    }
}
