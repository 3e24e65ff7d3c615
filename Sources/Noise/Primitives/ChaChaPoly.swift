import CSodium
import Inet

/// ChaCha20-Poly1305 as WireGuard and Noise use it: the nonce is four zero bytes and a 64-bit counter.
///
/// By libsodium. Nothing allocates, and everything happens in place. What seals transport data is chosen by ``TransportCipher``.
///
/// Source: RFC 8439 §2.8, WG §5.4.
public enum ChaChaPoly {
    public static let keyByteCount = 32
    public static let tagByteCount = 16

    /// Encrypts `plaintext` of `buffer` in place and writes the tag right behind it.
    ///
    /// - Parameters:
    ///   - plaintext: a range of `buffer` with at least 16 bytes behind it; it may be empty.
    ///   - counter: the nonce; never twice with one key.
    ///   - key: holds the 32-byte key at `keyOffset`.
    ///   - additionalData: authenticated, not encrypted.
    public static func seal(
        _ buffer: inout MutableRawSpan, plaintext: Range<Int>, counter: UInt64, key: borrowing SecretBytes, at keyOffset: Int = 0,
        additionalData: RawSpan = RawSpan()
    ) {
        Sodium.initialize()
        precondition(
            plaintext.lowerBound >= 0 && plaintext.upperBound <= buffer.byteCount - tagByteCount, "no room for the tag")
        precondition(keyOffset >= 0 && keyOffset <= key.count - keyByteCount, "no key")
        // The preconditions are the proof for every pointer below.
        unsafe buffer.withUnsafeMutableBytes { buffer in
            unsafe withNonce(counter) { nonce in
                unsafe additionalData.withUnsafeBytes { additionalData in
                    let base = unsafe buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
                    let text = unsafe base + plaintext.lowerBound
                    _ = unsafe crypto_aead_chacha20poly1305_ietf_encrypt_detached(
                        text, base + plaintext.upperBound, nil, text, UInt64(plaintext.count),
                        additionalData.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt64(additionalData.count),
                        nil, nonce, key.base.assumingMemoryBound(to: UInt8.self) + keyOffset)
                }
            }
        }
    }

    /// Checks and decrypts `ciphertext` of `buffer`, whose last 16 bytes are the tag, in place.
    ///
    /// - Returns: `false` if it is not authentic (or has no room for a tag); the text is then zero or unchanged.
    public static func open(
        _ buffer: inout MutableRawSpan, ciphertext: Range<Int>, counter: UInt64, key: borrowing SecretBytes, at keyOffset: Int = 0,
        additionalData: RawSpan = RawSpan()
    ) -> Bool {
        Sodium.initialize()
        precondition(ciphertext.lowerBound >= 0 && ciphertext.upperBound <= buffer.byteCount, "ciphertext out of bounds")
        precondition(keyOffset >= 0 && keyOffset <= key.count - keyByteCount, "no key")
        guard ciphertext.count >= tagByteCount else { return false }
        // The guards above are the proof for every pointer below.
        return unsafe buffer.withUnsafeMutableBytes { buffer in
            unsafe withNonce(counter) { nonce in
                unsafe additionalData.withUnsafeBytes { additionalData in
                    let base = unsafe buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
                    let text = unsafe base + ciphertext.lowerBound
                    return unsafe crypto_aead_chacha20poly1305_ietf_decrypt_detached(
                        text, nil, text, UInt64(ciphertext.count - tagByteCount), base + (ciphertext.upperBound - tagByteCount),
                        additionalData.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt64(additionalData.count),
                        nonce, key.base.assumingMemoryBound(to: UInt8.self) + keyOffset) == 0
                }
            }
        }
    }

    /// Four zero bytes and the counter in little-endian order.
    @inline(__always) static func withNonce<Result>(_ counter: UInt64, _ body: (UnsafePointer<UInt8>) -> Result) -> Result {
        let low = UInt32(truncatingIfNeeded: counter).littleEndian
        let high = UInt32(truncatingIfNeeded: counter >> 32).littleEndian
        let nonce: InlineArray<3, UInt32> = [0, low, high]
        return unsafe withUnsafeBytes(of: nonce) { nonce in
            unsafe body(nonce.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self))
        }
    }
}
