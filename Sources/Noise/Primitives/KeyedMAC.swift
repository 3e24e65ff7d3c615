import CCrypto
import Inet

/// Keyed BLAKE2s with a 16-byte result: the MAC of WireGuard's mac1, mac2 and cookies.
///
/// The key is set up once in a template context, which is never changed afterwards; every MAC works on a duplicate
/// (0.6 µs instead of 1.5 µs), so several threads may use one value.
///
/// Source: RFC 7693 §2.9, WG §5.4.
@safe package final class KeyedMAC: @unchecked Sendable {
    // Only read after `init`: every MAC duplicates it.
    private let template: OpaquePointer

    /// - Parameter key: 1 to 32 bytes.
    package init(key: RawSpan) {
        precondition((1...32).contains(key.byteCount), "a BLAKE2s key has 1 to 32 bytes")
        unsafe template = EVP_MAC_CTX_new(Self.algorithm).orTrap("a MAC context")
        var size = MAC.byteCount
        // The parameters point to their name and value, which the closures keep alive.
        let started = unsafe key.withUnsafeBytes { key in
            unsafe withUnsafeMutablePointer(to: &size) { size in
                unsafe OSSL_MAC_PARAM_SIZE.withCString { name in
                    let parameters = unsafe [OSSL_PARAM_construct_size_t(name, size), OSSL_PARAM_construct_end()]
                    return unsafe EVP_MAC_init(template, key.baseAddress?.assumingMemoryBound(to: UInt8.self), key.count, parameters)
                }
            }
        }
        precondition(started == 1, "libcrypto does not start a BLAKE2s MAC")
    }

    // libcrypto clears the keyed state before it frees it.
    deinit { unsafe EVP_MAC_CTX_free(template) }

    /// The MAC of `message`.
    package func mac(over message: RawSpan) -> MAC {
        let context = unsafe EVP_MAC_CTX_dup(template).orTrap("a MAC context")
        defer { unsafe EVP_MAC_CTX_free(context) }
        var mac = MAC()
        let updated = unsafe message.withUnsafeBytes { message in
            unsafe EVP_MAC_update(context, message.baseAddress?.assumingMemoryBound(to: UInt8.self), message.count)
        }
        var written = 0
        let finished = unsafe withUnsafeMutableBytes(of: &mac.words) { output in
            unsafe EVP_MAC_final(context, output.baseAddress?.assumingMemoryBound(to: UInt8.self), &written, output.count)
        }
        precondition(updated == 1 && finished == 1 && written == MAC.byteCount, "libcrypto does not make a MAC")
        return mac
    }

    // Fetched once for the process and only read afterwards; libcrypto counts references to it atomically.
    nonisolated(unsafe) private static let algorithm: OpaquePointer = unsafe EVP_MAC_fetch(nil, "BLAKE2SMAC", nil).orTrap("BLAKE2SMAC")
}

/// 16 bytes that show who wrote a message: mac1, mac2, or a cookie.
///
/// There is no `==`: a MAC is compared with bytes of a message by ``matches(_:at:)``, in constant time.
public struct MAC: Sendable {
    public static let byteCount = 16

    // Integers have no padding, so that looking at their bytes, which is `unsafe`, is sound.
    var words: InlineArray<2, UInt64>

    init() { words = InlineArray(repeating: 0) }

    /// Takes the 16 bytes at `offset`; `nil` if they are not all there.
    public init?(_ bytes: RawSpan, at offset: Int = 0) {
        guard offset >= 0, Self.byteCount <= bytes.byteCount - offset else { return nil }
        words = [bytes.littleEndian64(at: offset).littleEndian, bytes.littleEndian64(at: offset + 8).littleEndian]
    }

    /// Writes the 16 bytes to `output`, which must have the room.
    public func write(into output: inout MutableRawSpan, at offset: Int) { output.copy(unsafe words.span.bytes, at: offset) }

    /// Whether the 16 bytes at `offset` of `message` are this MAC, in constant time; `false` if they are not all there.
    public func matches(_ message: RawSpan, at offset: Int) -> Bool {
        guard offset >= 0, Self.byteCount <= message.byteCount - offset else { return false }
        return Sodium.isEqual(unsafe words.span.bytes, message.extracting(offset..<offset + Self.byteCount))
    }
}
