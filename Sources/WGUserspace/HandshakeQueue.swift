import Inet

/// Handshake messages that wait until the data of their batch is through, oldest first; when it is full, the newest is refused.
///
/// A flood that fills it must not cost memory: a message takes 184 bytes of a chunk, chunks are made when they are needed and freed
/// when they were read, so that 4,096 messages take 736 KB and none takes 46 KB at most.
///
/// Source: WG §5.3; Linux `receive.c` (MAX_QUEUED_INCOMING_HANDSHAKES is 4,096 there too).
struct HandshakeQueue {
    /// What came with a message.
    struct Arrival {
        /// 148 or 92.
        var byteCount: Int
        var source: SocketEndpoint
        /// The address of ours that it was sent to, if that is known.
        var local: IPAddress?
    }

    /// Room for either message.
    typealias MessageBuffer = InlineArray<19, UInt64>

    private(set) var count = 0
    /// The first holds the oldest messages.
    private var chunks: [[UInt8]] = []
    /// Places of the first chunk that were read.
    private var readInFirst = 0
    /// Places of the last chunk that were written.
    private var writtenInLast = 0
    /// One empty chunk is kept, so that a quiet device does not allocate for each handshake.
    private var spare: [UInt8]?

    var isEmpty: Bool { count == 0 }

    /// Copies a message whose type and length were checked.
    ///
    /// - Returns: `false` if the queue is full.
    mutating func append(_ message: RawSpan, from source: SocketEndpoint, to local: IPAddress?) -> Bool {
        guard count < Self.capacity, message.byteCount <= Slot.initiationByteCount else { return false }
        if chunks.isEmpty || writtenInLast == Self.slotsPerChunk {
            chunks.append(spare.take() ?? [UInt8](repeating: 0, count: Self.slotsPerChunk * Slot.byteCount))
            writtenInLast = 0
        }
        chunks[chunks.count - 1].write(message, from: source, to: local, at: writtenInLast * Slot.byteCount)
        writtenInLast += 1
        count += 1
        return true
    }

    /// Takes out the oldest message.
    mutating func popFirst(into message: inout MessageBuffer) -> Arrival? {
        guard count > 0 else { return nil }
        let arrival = chunks[0].read(into: &message, at: readInFirst * Slot.byteCount)
        readInFirst += 1
        count -= 1
        if readInFirst == Self.slotsPerChunk || count == 0 {
            spare = chunks.removeFirst()
            readInFirst = 0
        }
        return arrival
    }

    /// Messages that wait, at most.
    static let capacity = 4096
    static let slotsPerChunk = 256

    /// For tests: chunks that are allocated.
    var chunkCount: Int { chunks.count + (spare == nil ? 0 : 1) }

    /// How a message lies in a chunk.
    ///
    ///     0    message 148
    ///     148  1 if it is a response   149  family of the source   150  source port
    ///     152  source 16   168  local address 16   184
    ///
    /// The family of the local address shares byte 148: 0 if there is none, else 4 or 6 in the upper half.
    fileprivate enum Slot {
        static let flags = 148
        static let family = 149
        static let port = 150
        static let source = 152
        static let local = 168
        static let byteCount = 184
        static let responseByteCount = 92
        static let initiationByteCount = 148
    }
}

extension [UInt8] {
    fileprivate typealias Slot = HandshakeQueue.Slot

    fileprivate mutating func write(_ message: RawSpan, from source: SocketEndpoint, to local: IPAddress?, at offset: Int) {
        // Bytes have no invalid pattern, here and below.
        var span = mutableSpan
        var bytes = unsafe span.mutableBytes
        bytes.copy(message, at: offset)
        let isResponse: UInt8 = message.byteCount == Slot.responseByteCount ? 1 : 0
        bytes.store(isResponse | (local?.family.rawValue ?? 0) << 4, at: offset + Slot.flags)
        bytes.store(source.address.family.rawValue, at: offset + Slot.family)
        bytes.storeBigEndian(source.port, at: offset + Slot.port)
        source.address.write(into: &bytes, at: offset + Slot.source)
        local?.write(into: &bytes, at: offset + Slot.local)
    }

    fileprivate func read(into message: inout HandshakeQueue.MessageBuffer, at offset: Int) -> HandshakeQueue.Arrival {
        let bytes = unsafe span.bytes
        let flags = bytes.byte(at: offset + Slot.flags)
        let byteCount = flags & 1 == 1 ? Slot.responseByteCount : Slot.initiationByteCount
        var words = message.mutableSpan
        var output = unsafe words.mutableBytes
        output.copy(bytes.extracting(offset..<offset + byteCount), at: 0)
        let address = IPAddress(
            IPAddress.Family(rawValue: bytes.byte(at: offset + Slot.family)) ?? .v4, in: bytes, at: offset + Slot.source)
        return HandshakeQueue.Arrival(
            byteCount: byteCount, source: SocketEndpoint(address, port: bytes.bigEndian16(at: offset + Slot.port)),
            local: IPAddress.Family(rawValue: flags >> 4).map { IPAddress($0, in: bytes, at: offset + Slot.local) })
    }
}
