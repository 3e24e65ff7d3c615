import Inet

/// The AEADs that a Noise protocol may name: 32-byte keys, 16-byte tags, a 64-bit counter as nonce.
///
/// Source: Noise §12.3, §12.4.
public enum CipherFunction: String, CaseIterable, Hashable, Sendable {
    case chaChaPoly = "ChaChaPoly"
    case aesGCM = "AESGCM"

    public static let keyByteCount = 32
    public static let tagByteCount = 16

    /// Whether the libraries of this machine have it: libcrypto may lack AES-GCM.
    public var isAvailable: Bool {
        switch self {
        case .chaChaPoly: true
        case .aesGCM: AESGCM.isAvailable
        }
    }

    func seal(
        _ buffer: inout MutableRawSpan, plaintext: Range<Int>, counter: UInt64, key: borrowing SecretBytes, at keyOffset: Int,
        additionalData: RawSpan
    ) {
        switch self {
        case .chaChaPoly:
            ChaChaPoly.seal(&buffer, plaintext: plaintext, counter: counter, key: key, at: keyOffset, additionalData: additionalData)
        case .aesGCM: AESGCM.seal(&buffer, plaintext: plaintext, counter: counter, key: key, at: keyOffset, additionalData: additionalData)
        }
    }

    func open(
        _ buffer: inout MutableRawSpan, ciphertext: Range<Int>, counter: UInt64, key: borrowing SecretBytes, at keyOffset: Int,
        additionalData: RawSpan
    ) -> Bool {
        switch self {
        case .chaChaPoly:
            ChaChaPoly.open(&buffer, ciphertext: ciphertext, counter: counter, key: key, at: keyOffset, additionalData: additionalData)
        case .aesGCM:
            AESGCM.open(&buffer, ciphertext: ciphertext, counter: counter, key: key, at: keyOffset, additionalData: additionalData)
        }
    }
}
