import CSodium
import Inet

/// Diffie-Hellman on Curve25519. Private keys are clamped on use.
///
/// Source: RFC 7748 §5, §6.1.
enum X25519 {
    /// The shared secret of our private and their public key.
    ///
    /// - Throws: ``HandshakeError/lowOrderPoint`` if the result is all zero: it would not depend on our key.
    static func sharedSecret(_ privateKey: borrowing SecretBytes, _ publicKey: PublicKey) throws(HandshakeError) -> SecretBytes {
        precondition(privateKey.count == 32, "a key has 32 bytes")
        let secret = SecretBytes(count: 32)
        // All three have 32 bytes.
        let result = unsafe withUnsafeBytes(of: publicKey.words) { publicKey in
            unsafe crypto_scalarmult(
                secret.base.assumingMemoryBound(to: UInt8.self), privateKey.base.assumingMemoryBound(to: UInt8.self),
                publicKey.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self))
        }
        let isZero = unsafe sodium_is_zero(secret.base.assumingMemoryBound(to: UInt8.self), 32) == 1
        guard result == 0, !isZero else { throw .lowOrderPoint }
        return secret
    }

    /// The public key of a private one.
    static func publicKey(of privateKey: borrowing SecretBytes) -> InlineArray<4, UInt64> {
        precondition(privateKey.count == 32, "a key has 32 bytes")
        Sodium.initialize()
        var words = InlineArray<4, UInt64>(repeating: 0)
        // Both have 32 bytes. The base point is not of low order, so this cannot fail.
        _ = unsafe withUnsafeMutableBytes(of: &words) { output in
            unsafe crypto_scalarmult_base(
                output.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self),
                privateKey.base.assumingMemoryBound(to: UInt8.self))
        }
        return words
    }
}
