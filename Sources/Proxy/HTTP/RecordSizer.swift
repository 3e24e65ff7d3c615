import NIOCore

/// Cuts what goes out into pieces that each become one TLS record. A connection that starts, or starts again after a pause, sends records of
/// one segment each, which a client can decrypt as they arrive; a long transfer sends the largest there are, which cost least.
struct RecordSizer {
    private var sent = 0
    private var last = NIODeadline.uptimeNanoseconds(0)

    /// - Parameter now: may lag by the clock's resolution.
    mutating func split(_ bytes: ByteBuffer, now: NIODeadline, write: (ByteBuffer) -> Void) {
        if now - last > Self.pause { sent = 0 }
        last = now
        guard sent < Self.smallRecords, bytes.readableBytes > Self.smallRecord else {
            sent &+= bytes.readableBytes
            return write(bytes)
        }
        var rest = bytes
        while sent < Self.smallRecords, rest.readableBytes > Self.smallRecord, let piece = rest.readSlice(length: Self.smallRecord) {
            sent &+= Self.smallRecord
            write(piece)
        }
        sent &+= rest.readableBytes
        write(rest)
    }

    /// With the record's own 29 bytes, TCP options and an IPv6 header it fits into 1,500.
    private static let smallRecord = 1370
    /// About the first two congestion windows: ten segments, then twenty.
    private static let smallRecords = 30 * smallRecord
    private static let pause = TimeAmount.seconds(1)
}
