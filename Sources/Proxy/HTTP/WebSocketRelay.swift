import Crypto
import FoundationEssentials
import NIOCore

/// Where frames of RFC 6455 §5.2 begin and end in bytes that pass unread, so that a close frame of ours can be put between two of them.
struct WebSocketFrames {
    private var header: [UInt8] = []
    private var payloadLeft: UInt64 = 0

    /// No frame is half through.
    var isAtBoundary: Bool { header.isEmpty && payloadLeft == 0 }

    /// - Returns: how many of the bytes end at a boundary, the last one there is; nil if there is none.
    mutating func receive(_ bytes: ByteBuffer) -> Int? {
        bytes.withUnsafeReadableBytes { bytes in
            var boundary: Int?
            var index = 0
            while index < bytes.count {
                if payloadLeft > 0 {
                    let count = min(payloadLeft, UInt64(bytes.count - index))
                    payloadLeft -= count
                    index += Int(count)
                } else {
                    header.append(bytes[index])
                    index += 1
                    guard let length = Self.payloadLength(header) else { continue }
                    payloadLeft = length
                    header.removeAll(keepingCapacity: true)
                }
                if isAtBoundary { boundary = index }
            }
            return boundary
        }
    }

    /// Nil until the header is complete: at most 14 bytes.
    private static func payloadLength(_ header: [UInt8]) -> UInt64? {
        guard header.count >= 2 else { return nil }
        let short = header[1] & 0x7F
        let lengthBytes = short == 127 ? 8 : short == 126 ? 2 : 0
        guard header.count == 2 + lengthBytes + (header[1] & 0x80 != 0 ? 4 : 0) else { return nil }
        guard lengthBytes > 0 else { return UInt64(short) }
        return header[2..<(2 + lengthBytes)].reduce(0) { $0 << 8 | UInt64($1) }
    }
}

/// The two directions of a WebSocket that is relayed, and how they are told that the proxy ends: close 1001, RFC 6455 §7.4.1.
final class WebSocketRelay {
    private struct Direction {
        var frames = WebSocketFrames()
        var sendClose: ((ByteBuffer) -> Void)?
        var isClosed = false

        /// Whether the bytes may pass as they are.
        mutating func receive(_ bytes: ByteBuffer, close: ByteBuffer) -> Bool {
            guard !isClosed else { return false }
            let boundary = frames.receive(bytes)
            guard let send = sendClose, let boundary else { return true }
            isClosed = true
            sendClose = nil
            if let whole = bytes.getSlice(at: bytes.readerIndex, length: boundary) { send(whole) }
            send(close)
            return false
        }

        mutating func drain(close: ByteBuffer, _ send: @escaping (ByteBuffer) -> Void) {
            guard !isClosed else { return }
            if frames.isAtBoundary {
                isClosed = true
                send(close)
            } else {
                sendClose = send
            }
        }
    }

    private var fromClient = Direction()
    private var fromUpstream = Direction()

    /// False if the bytes are not to be passed on by the caller.
    func receiveFromClient(_ bytes: ByteBuffer) -> Bool { fromClient.receive(bytes, close: Self.maskedClose) }
    func receiveFromUpstream(_ bytes: ByteBuffer) -> Bool { fromUpstream.receive(bytes, close: Self.close) }

    /// Puts a close frame behind the frame in hand of each direction.
    func drain(toClient: @escaping (ByteBuffer) -> Void, toUpstream: @escaping (ByteBuffer) -> Void) {
        fromUpstream.drain(close: Self.close, toClient)
        fromClient.drain(close: Self.maskedClose, toUpstream)
    }

    /// FIN, opcode 8, two bytes: 1001.
    private static let close = ByteBuffer(bytes: [0x88, 0x02, 0x03, 0xE9])
    /// The same as a client sends it, with a mask of zeros.
    private static let maskedClose = ByteBuffer(bytes: [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9])
}

/// The keys of RFC 6455 §4, for upgrades that began without them.
enum WebSocketHandshake {
    static func makeKey() -> String {
        var random = SystemRandomNumberGenerator()
        return Data((0..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) }).base64EncodedString()
    }

    static func accept(_ key: String) -> String {
        Data(Insecure.SHA1.hash(data: Data((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8))).base64EncodedString()
    }
}
