import Inet
import Noise

/// Initiations and responses with a right mac1 that wait for their turn behind data, oldest first. What comes when it is full is
/// the newest, and is dropped: a flood gains nothing by pushing out what waits already.
///
/// One ring of fixed records, allocated when the first message comes; an empty queue starts again at its first record, so that only
/// a flood touches more than the first pages.
///
///     0    message, 148 or 92, + padding
///     148  bytes of the message
///     149  family of the remote address
///     150  family of the local address, 0 for none
///     152  remote port, LE32
///     156  remote address, 16
///     172  local address, 16
///
/// Source: WG §5.3; Linux `receive.c` (MAX_QUEUED_INCOMING_HANDSHAKES is 4,096 there too).
@safe struct HandshakeQueue: ~Copyable, @unchecked Sendable {
    /// A message that waited, without its bytes.
    struct Entry {
        var byteCount: Int
        var source: SocketEndpoint
        /// The local address that it came to.
        var local: IPAddress?
    }

    private(set) var count = 0
    private var head = 0
    /// `capacity` records, which the value owns alone.
    private var records: UnsafeMutableRawPointer?

    deinit { unsafe records?.deallocate() }

    /// - Returns: `false` if there is no room.
    mutating func append(_ message: RawSpan, from source: SocketEndpoint, to local: IPAddress?) -> Bool {
        guard count < Self.capacity, message.byteCount <= Record.maximumMessage else { return false }
        if count == 0 { head = 0 }
        var record = unsafe MutableRawSpan(_unsafeBytes: place((head + count) % Self.capacity))
        record.copy(message, at: 0)
        record.store(UInt8(truncatingIfNeeded: message.byteCount), at: Record.byteCount)
        record.store(source.address.family.rawValue, at: Record.remoteFamily)
        record.store(local?.family.rawValue ?? 0, at: Record.localFamily)
        record.storeLittleEndian(UInt32(source.port), at: Record.port)
        source.address.write(into: &record, at: Record.remote)
        local?.write(into: &record, at: Record.local)
        count += 1
        return true
    }

    /// Takes out the oldest message; its bytes go to the beginning of `buffer`, which has at least 148.
    mutating func popFirst(into buffer: inout MutableRawSpan) -> Entry? {
        guard count > 0 else { return nil }
        let record = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(place(head)))
        head = (head + 1) % Self.capacity
        count -= 1
        let byteCount = Int(record.byte(at: Record.byteCount))
        buffer.copy(record.extracting(0..<byteCount), at: 0)
        // The families were written by `append`.
        let family = IPAddress.Family(rawValue: record.byte(at: Record.remoteFamily)) ?? .v4
        let source = SocketEndpoint(
            IPAddress(family, in: record, at: Record.remote), port: UInt16(truncatingIfNeeded: record.littleEndian32(at: Record.port)))
        let local = IPAddress.Family(rawValue: record.byte(at: Record.localFamily)).map { IPAddress($0, in: record, at: Record.local) }
        return Entry(byteCount: byteCount, source: source, local: local)
    }

    private mutating func place(_ index: Int) -> UnsafeMutableRawBufferPointer {
        if unsafe records == nil { unsafe records = .allocate(byteCount: Self.capacity * Record.stride, alignment: 8) }
        // Allocated just now if not before; every index is below the capacity.
        return unsafe UnsafeMutableRawBufferPointer(start: records?.advanced(by: index * Record.stride), count: Record.stride)
    }

    /// Messages that wait, at most.
    static let capacity = 4096

    private enum Record {
        static let maximumMessage = HandshakeMessage.initiationByteCount
        static let byteCount = 148
        static let remoteFamily = 149
        static let localFamily = 150
        static let port = 152
        static let remote = 156
        static let local = 172
        static let stride = 192
    }
}
