import CSodium
import Inet

/// The base64 form of a 32-byte key, 44 characters, in constant time for each character (`wg genkey` format).
///
/// Source: RFC 4648 §4.
enum KeyBase64 {
    static let characterCount = 44

    /// The 32 bytes that `text` spells. `nil` unless it is the canonical spelling of 32 bytes, with nothing around it.
    static func decode(_ text: String) -> SecretBytes? {
        Sodium.initialize()
        let characters = text.utf8Span.span
        guard characters.count == characterCount else { return nil }
        let key = SecretBytes(count: 32)
        var written = 0
        // 44 characters are read and at most 32 bytes written.
        let result = unsafe characters.withUnsafeBytes { characters in
            unsafe sodium_base642bin(
                key.base.assumingMemoryBound(to: UInt8.self), 32,
                characters.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self), characterCount, nil, &written, nil,
                sodium_base64_VARIANT_ORIGINAL)
        }
        guard result == 0, written == 32 else { return nil }
        return key
    }

    /// - Parameter bytes: 32 bytes.
    static func encode(_ bytes: RawSpan) -> String {
        precondition(bytes.byteCount == 32, "a key has 32 bytes")
        return unsafe String(unsafeUninitializedCapacity: characterCount + 1) { characters in
            // 44 characters and C's terminator fit the capacity.
            unsafe bytes.withUnsafeBytes { bytes in
                _ = unsafe sodium_bin2base64(
                    UnsafeMutableRawPointer(characters.baseAddress.unsafelyUnwrapped).assumingMemoryBound(to: CChar.self),
                    characterCount + 1, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), 32, sodium_base64_VARIANT_ORIGINAL)
            }
            return characterCount
        }
    }
}
