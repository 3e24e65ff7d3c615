import Inet

/// What a responder under load hands out, and wants to see used in mac2 before it computes anything expensive:
/// the sender then owns the address that it sends from.
///
/// Source: WG §5.3, §5.4.7.
public struct Cookie: Sendable {
    private let mac: MAC

    /// The cookie for a source.
    ///
    /// - Parameters:
    ///   - source: the bytes of its IP address followed by its port in network order.
    ///   - secret: the responder's random 32 bytes, changed every two minutes.
    public init(source: RawSpan, secret: borrowing SecretBytes) {
        mac = secret.withBytes { KeyedMAC(key: $0).mac(over: source) }
    }

    private init(_ mac: MAC) { self.mac = mac }

    /// Writes mac2 to the handshake message that takes the first `byteCount` bytes of `message`; its mac1 must be there already.
    public func writeMAC2(into message: inout MutableRawSpan, byteCount: Int) {
        precondition(byteCount > MACKeys.trailerByteCount && byteCount <= message.byteCount, "not a handshake message")
        let offset = byteCount - MAC.byteCount
        mac2(over: message.bytes.extracting(0..<offset)).write(into: &message, at: offset)
    }

    /// Whether the mac2 of a handshake message was made with this cookie, in constant time; `false` if it has none.
    public func isValidMAC2(message: RawSpan) -> Bool {
        let offset = message.byteCount - MAC.byteCount
        guard offset >= MAC.byteCount else { return false }
        return mac2(over: message.extracting(0..<offset)).matches(message, at: offset)
    }

    /// Writes the cookie reply, 64 bytes, to the beginning of `reply`.
    ///
    ///     0   type = 3   reserved 0 0 0
    ///     4   receiver index, LE32
    ///     8   nonce, 24
    ///     32  cookie, 16 + tag 16
    ///
    /// - Parameters:
    ///   - receiverIndex: the sender index of the message that is answered.
    ///   - mac1: the mac1 of that message.
    ///   - keys: the responder's own.
    ///   - random: gives the nonce.
    public func writeReply(
        into reply: inout MutableRawSpan, receiverIndex: UInt32, mac1: MAC, keys: MACKeys, random: RandomSource
    ) {
        precondition(reply.byteCount >= HandshakeMessage.cookieReplyByteCount, "no room for a cookie reply")
        // Integers have no padding, so that looking at their bytes is sound, here and below.
        let nonce: InlineArray<3, UInt64> = [random.nextUInt64(), random.nextUInt64(), random.nextUInt64()]
        reply.storeLittleEndian(Self.replyType, at: 0)
        reply.storeLittleEndian(receiverIndex, at: 4)
        reply.copy(unsafe nonce.span.bytes, at: Self.nonce.lowerBound)
        mac.write(into: &reply, at: Self.sealedCookie.lowerBound)
        XChaChaPoly.seal(
            &reply, plaintext: Self.sealedCookie.lowerBound..<Self.sealedCookie.lowerBound + MAC.byteCount,
            nonce: unsafe nonce.span.bytes, key: unsafe keys.cookieKey.words.span.bytes, additionalData: unsafe mac1.words.span.bytes)
    }

    /// Opens a cookie reply.
    ///
    /// - Parameters:
    ///   - reply: all of the message.
    ///   - mac1: the mac1 of the message that we sent last.
    ///   - keys: those of the peer that we sent it to.
    /// - Returns: `nil` if it is malformed, forged, or answers another message.
    public init?(reply: RawSpan, mac1: MAC, keys: MACKeys) {
        guard reply.byteCount == HandshakeMessage.cookieReplyByteCount, reply.littleEndian32(at: 0) == Self.replyType else { return nil }
        var work = InlineArray<4, UInt64>(repeating: 0)
        var words = work.mutableSpan
        var bytes = unsafe words.mutableBytes
        bytes.copy(reply.extracting(Self.sealedCookie), at: 0)
        guard
            XChaChaPoly.open(
                &bytes, ciphertext: 0..<Self.sealedCookie.count, nonce: reply.extracting(Self.nonce),
                key: unsafe keys.cookieKey.words.span.bytes, additionalData: unsafe mac1.words.span.bytes),
            let mac = MAC(bytes.bytes)
        else { return nil }
        self.init(mac)
    }

    /// For tests.
    package var value: MAC { mac }

    private func mac2(over message: RawSpan) -> MAC { KeyedMAC(key: unsafe mac.words.span.bytes).mac(over: message) }

    private static let replyType: UInt32 = 3
    private static let nonce = 8..<32
    private static let sealedCookie = 32..<64
}
