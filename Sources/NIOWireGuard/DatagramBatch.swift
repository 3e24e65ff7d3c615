import Inet
import WGUserspace

/// Datagrams that lie back to back and may leave as one super-datagram: one peer, destination, source and congestion mark, one
/// size, only the last shorter.
package struct DatagramBatch {
    package private(set) var range: Range<Int>
    package let segmentSize: Int
    private let first: Transmit
    package private(set) var count = 1
    private var hasShortTail = false

    package init(_ first: Transmit) {
        self.first = first
        range = first.range
        segmentSize = first.range.count
    }

    /// DSCP AF41 marks handshake messages, as on Linux; the lower two bits are the congestion notification (RFC 6040).
    package var departure: Departure {
        Departure(
            to: first.endpoint, from: first.source, segmentSize: segmentSize,
            trafficClass: (first.isHandshake ? Self.assuredForwarding41 : 0) | first.ecn.rawValue, peer: first.peer)
    }

    package var isFull: Bool {
        first.isHandshake || hasShortTail || count == Self.maximumSegments
            || range.upperBound + segmentSize > Self.maximumBytes
    }

    package mutating func take(_ next: Transmit) -> Bool {
        guard next.endpoint == first.endpoint, next.peer == first.peer, next.source == first.source, next.ecn == first.ecn,
            !next.isHandshake, next.range.lowerBound == range.upperBound, next.range.count <= segmentSize
        else { return false }
        range = range.lowerBound..<next.range.upperBound
        count += 1
        hasShortTail = next.range.count < segmentSize
        return true
    }

    private static let assuredForwarding41: UInt8 = 0x88
    /// UDP_SEGMENT's limits.
    package static let maximumSegments = 64
    package static let maximumBytes = 65_000
}
