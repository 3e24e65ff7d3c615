import NIOCore
import NIOHPACK

/// Reads the frames that ours sends and judges them: RFC 9113 §4 to §8, as far as one direction shows.
struct HTTP2Watch {
    enum Side { case server, client }

    private struct Stream {
        var hasHead = false
        var isEnded = false
        var isReset = false
        var length: Int?
        var count = 0
    }

    private let side: Side
    private var bytes = ByteBuffer()
    private var frames = 0
    private var decoder = HPACKDecoder(allocator: ByteBufferAllocator(), maxDynamicTableSize: 4096, maxHeaderListSize: 1 << 24)
    private var streams: [Int: Stream] = [:]
    /// In the order of their first frames.
    private(set) var opened: [Int] = []
    private var hasPreface: Bool
    /// Of requests, by stream: those that a client sends, or those whose answers a server is to send. An answer names its request in `x-from`.
    var paths: [Int: String] = [:]

    init(_ side: Side) {
        self.side = side
        // As much as the peer may have allowed.
        decoder.maxDynamicTableLength = 1 << 32
        hasPreface = side == .server
    }

    mutating func receive(_ more: ByteBuffer) {
        bytes.writeImmutableBuffer(more)
        if !hasPreface {
            guard let preface = bytes.readBytes(length: HTTP2Bytes.preface.count) else { return }
            require(preface == HTTP2Bytes.preface, "no preface")
            hasPreface = true
        }
        while let head = bytes.getBytes(at: bytes.readerIndex, length: 9) {
            let length = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
            guard bytes.readableBytes >= 9 + length else { break }
            bytes.moveReaderIndex(forwardBy: 9)
            let id = head[5...8].reduce(0) { $0 << 8 | Int($1) }
            guard let payload = bytes.readSlice(length: length) else { break }
            judge(head[3], flags: head[4], id, payload)
        }
        bytes.discardReadBytes()
    }

    private mutating func judge(_ type: UInt8, flags: UInt8, _ id: Int, _ payload: ByteBuffer) {
        frames += 1
        require(frames > 1 || type == 4, "the first frame is of type \(type)")
        let isEnd = flags & 1 != 0
        switch type {
        case 0:
            require(flags & 8 == 0, "padding")
            require(streams[id]?.hasHead ?? false, "DATA of stream \(id) before a head")
            takes(id, "DATA")
            streams[id]?.count += payload.readableBytes
            end(id, isEnd)
        case 1: headers(id, flags: flags, payload)
        case 3: streams[id, default: Stream()].isReset = true
        case 4, 6, 7: require(id == 0, "a frame of type \(type) on stream \(id)")
        case 8: require(payload.getInteger(at: payload.readerIndex, as: UInt32.self) ?? 0 > 0, "an empty WINDOW_UPDATE")
        default: require(false, "a frame of type \(type)")
        }
    }

    private mutating func headers(_ id: Int, flags: UInt8, _ payload: ByteBuffer) {
        require(flags & 4 != 0 && flags & 0x28 == 0, "HEADERS with flags \(flags)")
        require(id % 2 == 1, "HEADERS on stream \(id)")
        takes(id, "HEADERS")
        if streams[id] == nil {
            require(side == .server || id > opened.last ?? 0, "stream \(id) behind \(opened)")
            opened.append(id)
        }
        var stream = streams[id] ?? Stream()
        let isEnd = flags & 1 != 0
        defer {
            streams[id] = stream
            end(id, isEnd)
        }
        var block = payload
        let fields: HPACKHeaders
        do {
            fields = try decoder.decodeHeaders(from: &block)
        } catch {
            fatalError("HEADERS of stream \(id) cannot be read: \(error)")
        }
        if stream.hasHead {
            require(isEnd && !fields.contains { $0.name.hasPrefix(":") }, "a second head on stream \(id): \(fields)")
            return
        }
        switch side {
        case .server:
            let status = fields[":status"].first.flatMap { Int($0) } ?? 0
            require((100..<600).contains(status) && status != 101, "status \(fields[":status"])")
            if let from = fields["x-from"].first, let path = paths[id] {
                require(from == path, "the answer to \(from) goes to \(path) on stream \(id)")
            }
            if status < 200 {
                require(!isEnd, "\(status) ends stream \(id)")
                return
            }
        case .client:
            require(fields[":method"].count == 1 && fields[":path"].count == 1, "a request without a method: \(fields)")
            paths[id] = fields[":path"].first
        }
        stream.hasHead = true
        stream.length = fields["content-length"].first.flatMap { Int($0) }
    }

    private func takes(_ id: Int, _ name: String) {
        require(!(streams[id]?.isEnded ?? false), "\(name) behind the end of stream \(id)")
        require(!(streams[id]?.isReset ?? false), "\(name) behind the reset of stream \(id)")
    }

    /// Half of a body is not to pass for the whole, RFC 9113 §8.1.1. An answer without any may be one to HEAD.
    private mutating func end(_ id: Int, _ isEnd: Bool) {
        guard let stream = streams[id] else { return }
        if let length = stream.length {
            require(stream.count <= length, "\(stream.count) bytes of \(length) on stream \(id)")
            let mayBeBare = side == .server && stream.count == 0
            require(!isEnd || mayBeBare || stream.count == length, "\(stream.count) bytes of \(length) end stream \(id)")
        }
        if isEnd { streams[id]?.isEnded = true }
    }
}
