import CSodium
import Inet

/// libsodium, and the few things that every user of secrets needs from it.
///
/// Safe to use from any thread.
public enum Sodium {
    /// Initialises libsodium; without it the library takes its slow reference path. Idempotent.
    ///
    /// Every primitive of this module calls it, so that nobody has to remember.
    @inline(__always) public static func initialize() { _ = isInitialized }

    private static let isInitialized: Bool = {
        precondition(sodium_init() >= 0, "libsodium could not be initialised")
        return true
    }()

    /// Whether both spans hold the same bytes, in a time that does not depend on what they hold.
    public static func isEqual(_ left: RawSpan, _ right: RawSpan) -> Bool {
        guard left.byteCount == right.byteCount else { return false }
        guard left.byteCount > 0 else { return true }
        // Both spans are as long as the count says.
        return unsafe left.withUnsafeBytes { left in
            unsafe right.withUnsafeBytes { right in
                unsafe sodium_memcmp(left.baseAddress.unsafelyUnwrapped, right.baseAddress.unsafelyUnwrapped, left.count) == 0
            }
        }
    }

    /// Overwrites `bytes` with zeroes in a way that the optimiser cannot remove.
    public static func wipe(_ bytes: inout MutableRawSpan) {
        unsafe bytes.withUnsafeMutableBytes { bytes in
            if let base = bytes.baseAddress { unsafe wipe(base, count: bytes.count) }
        }
    }

    static func wipe(_ base: UnsafeMutableRawPointer, count: Int) {
        unsafe sodium_memzero(base, count)
    }
}
