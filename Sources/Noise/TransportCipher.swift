import Inet

/// The library that seals and opens transport data. Both do the same, ChaCha20-Poly1305, at a different speed: libcrypto is about twice
/// as fast on processors with AVX-512, and equal elsewhere. Handshakes are always libsodium's.
public enum TransportCipher: String, CaseIterable, Hashable, Sendable {
    case libsodium
    case libcrypto

    /// Whether this machine's library has it: a libcrypto that is held to FIPS 140 has not.
    public var isAvailable: Bool {
        switch self {
        case .libsodium: true
        case .libcrypto: PreparedChaChaPoly.isAvailable
        }
    }
}
