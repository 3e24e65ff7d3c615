import Inet
import WGUserspace

/// Datagrams that lie back to back and may leave as one super-datagram: one destination, one size, only the last shorter.
struct DatagramBatch {
    private(set) var range: Range<Int>
    let segmentSize: Int
    let endpoint: SocketEndpoint
    let isHandshake: Bool
    private(set) var count = 1
    private var hasShortTail = false

    init(_ first: Transmit) {
        range = first.range
        segmentSize = first.range.count
        endpoint = first.endpoint
        isHandshake = first.isHandshake
    }

    var isFull: Bool {
        isHandshake || hasShortTail || count == Self.maximumSegments
            || range.upperBound + segmentSize > Self.maximumBytes
    }

    mutating func take(_ next: Transmit) -> Bool {
        guard next.endpoint == endpoint, !next.isHandshake, next.range.lowerBound == range.upperBound,
            next.range.count <= segmentSize
        else { return false }
        range = range.lowerBound..<next.range.upperBound
        count += 1
        hasShortTail = next.range.count < segmentSize
        return true
    }

    /// UDP_SEGMENT's limits.
    private static let maximumSegments = 64
    static let maximumBytes = 65_000
}
