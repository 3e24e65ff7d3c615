import Inet
import Noise

/// What kind of message a datagram is, by type and exact length. Nothing is authenticated yet.
///
///     1 initiation     148 bytes
///     2 response        92 bytes
///     3 cookie reply    64 bytes
///     4 data         >= 32 bytes
///     0   type   1   reserved 0 0 0   4   ...
///
/// Source: WG §5.4.
package enum Message: Equatable, Sendable {
    case initiation
    case response
    case cookieReply
    /// The receiver's index and the sender's counter.
    case data(receiverIndex: UInt32, counter: UInt64)
    case invalid(DropReason)

    @inline(__always)
    package static func classify(_ datagram: RawSpan) -> Message {
        guard datagram.byteCount >= 4 else { return .invalid(.truncated) }
        // The type is one byte; the three reserved ones behind it must be zero, which reading them as one number checks.
        switch datagram.littleEndian32(at: 0) {
        case 4:
            guard datagram.byteCount >= DataMessage.minimumByteCount else { return .invalid(.wrongLength) }
            return .data(
                receiverIndex: datagram.littleEndian32(at: DataMessage.receiver), counter: datagram.littleEndian64(at: DataMessage.counter))
        case 1: return datagram.byteCount == HandshakeMessage.initiationByteCount ? .initiation : .invalid(.wrongLength)
        case 2: return datagram.byteCount == HandshakeMessage.responseByteCount ? .response : .invalid(.wrongLength)
        case 3: return datagram.byteCount == HandshakeMessage.cookieReplyByteCount ? .cookieReply : .invalid(.wrongLength)
        default: return .invalid(.unknownType)
        }
    }
}

/// Fixed offsets of a transport data message, in bytes.
///
///     0   type = 4   reserved 0 0 0
///     4   receiver index, LE32
///     8   counter, LE64
///     16  packet, sealed, + tag 16
///
/// Source: WG §5.4.6.
package enum DataMessage {
    static let receiver = 4
    static let counter = 8
    /// 16: bytes in front of the sealed packet.
    package static let headerByteCount = 16
    /// 16: bytes of the tag behind it.
    package static let tagByteCount = 16
    /// 32: header and tag of a keepalive.
    package static let minimumByteCount = 32
    static let type: UInt32 = 4

    static func writeHeader(into buffer: inout MutableRawSpan, at offset: Int, receiverIndex: UInt32, counter: UInt64) {
        buffer.storeLittleEndian(type, at: offset)
        buffer.storeLittleEndian(receiverIndex, at: offset + receiver)
        buffer.storeLittleEndian(counter, at: offset + self.counter)
    }

    /// Bytes that a packet of `length` bytes takes before sealing: the next multiple of 16, but no more than the MTU, which
    /// a packet that is longer than the MTU is not padded beyond.
    ///
    /// - Parameter mtu: 0 for none.
    package static func paddedLength(_ length: Int, mtu: Int) -> Int {
        let mask = Constants.paddingMultiple - 1
        let padded = (length + mask) & ~mask
        return mtu > 0 ? max(length, min(padded, mtu)) : padded
    }
}

/// Where the fields of the handshake messages lie that say whose they are.
enum HandshakeIndex {
    /// An initiation's or a response's sender.
    static let sender = 4
    /// A response's receiver.
    static let responseReceiver = 8
    /// A cookie reply's receiver.
    static let cookieReplyReceiver = 4
}
