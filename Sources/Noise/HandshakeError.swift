/// Why a handshake does not go on. Nothing of it says more than the remote could know anyway.
public enum HandshakeError: Error, Equatable, Sendable {
    /// The message has a wrong length, type or reserved byte.
    case malformed
    /// A key agreement gave zero: the remote's key is a point of low order (RFC 7748 §6.1).
    case lowOrderPoint
    /// A field does not decrypt: forged, damaged, or made with other keys.
    case authenticationFailed
    /// The response answers another initiation than this one.
    case wrongReceiverIndex
}
