import Inet

/// The keys that protect messages *to* the owner of a public key: mac1 shows that the sender knows the public key, the
/// cookie key encrypts cookie replies *from* that owner. Both derive from the public key alone and are no secrets.
///
/// Safe to use from any thread.
///
/// Source: WG §5.4.4, §5.4.7.
public struct MACKeys: Sendable {
    /// Bytes of mac1 and mac2 together, which end every handshake message.
    public static let trailerByteCount = 2 * MAC.byteCount

    package let mac1Key: Digest
    package let cookieKey: Digest
    private let mac1: KeyedMAC

    public init(publicKey: PublicKey) {
        // Integers and characters have no padding.
        mac1Key = BLAKE2s.hash(unsafe "mac1----".utf8Span.span.bytes, unsafe publicKey.words.span.bytes)
        cookieKey = BLAKE2s.hash(unsafe "cookie--".utf8Span.span.bytes, unsafe publicKey.words.span.bytes)
        mac1 = KeyedMAC(key: unsafe mac1Key.words.span.bytes)
    }

    /// The mac1 of a handshake message.
    ///
    /// - Parameter message: everything in front of mac1.
    public func mac1(over message: RawSpan) -> MAC { mac1.mac(over: message) }

    /// Writes mac1 to the handshake message that takes the first `byteCount` bytes of `message`, and a zero mac2 behind it.
    public func writeMAC1(into message: inout MutableRawSpan, byteCount: Int) {
        precondition(byteCount > Self.trailerByteCount && byteCount <= message.byteCount, "not a handshake message")
        let offset = byteCount - Self.trailerByteCount
        mac1(over: message.bytes.extracting(0..<offset)).write(into: &message, at: offset)
        message.zero(offset + MAC.byteCount..<byteCount)
    }

    /// Whether the mac1 of a handshake message is right, in constant time; `false` for a message that has none.
    ///
    /// - Parameter message: all of an initiation or response.
    public func isValidMAC1(message: RawSpan) -> Bool {
        let offset = message.byteCount - Self.trailerByteCount
        guard offset > 0 else { return false }
        return mac1(over: message.extracting(0..<offset)).matches(message, at: offset)
    }
}
