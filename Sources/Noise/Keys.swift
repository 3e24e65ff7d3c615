import Inet

/// A Curve25519 public key. Any 32 bytes are one; a point of low order is found out at the key agreement.
public struct PublicKey: Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = 32

    /// In the order of memory, not as numbers. Integers have no padding, so that looking at their bytes, which is `unsafe`,
    /// is sound.
    let words: InlineArray<4, UInt64>

    /// Takes 32 bytes; `nil` for any other length.
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount == Self.byteCount else { return nil }
        self.init(bytes, at: 0)
    }

    /// Takes 44 characters of base64; `nil` for anything but the canonical spelling of 32 bytes.
    public init?(base64: String) {
        guard let bytes = KeyBase64.decode(base64) else { return nil }
        self = bytes.withBytes { PublicKey($0, at: 0) }
    }

    /// The public key of a private one.
    init(of privateKey: borrowing SecretBytes) { words = X25519.publicKey(of: privateKey) }

    /// Takes the 32 bytes at `offset`, which must be there.
    init(_ bytes: RawSpan, at offset: Int) {
        words = [
            bytes.littleEndian64(at: offset).littleEndian, bytes.littleEndian64(at: offset + 8).littleEndian,
            bytes.littleEndian64(at: offset + 16).littleEndian, bytes.littleEndian64(at: offset + 24).littleEndian,
        ]
    }

    /// Writes the 32 bytes to `output`, which must have the room.
    public func write(into output: inout MutableRawSpan, at offset: Int) { output.copy(unsafe words.span.bytes, at: offset) }

    /// 44 characters, as `wg` writes keys.
    public var base64: String { KeyBase64.encode(unsafe words.span.bytes) }

    public var description: String { base64 }

    public static func == (left: PublicKey, right: PublicKey) -> Bool {
        left.words[0] == right.words[0] && left.words[1] == right.words[1]
            && left.words[2] == right.words[2] && left.words[3] == right.words[3]
    }

    public func hash(into hasher: inout Hasher) {
        for index in words.indices { hasher.combine(words[index]) }
    }
}

/// A Curve25519 private key, clamped on use and wiped when it goes.
public struct PrivateKey: ~Copyable, Sendable {
    public static let byteCount = 32

    let bytes: SecretBytes

    /// Copies 32 bytes; `nil` for any other length. Wiping `bytes` is the caller's business.
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount == Self.byteCount else { return nil }
        self.bytes = SecretBytes(copying: bytes)
    }

    /// Takes 44 characters of base64; `nil` for anything but the canonical spelling of 32 bytes.
    public init?(base64: String) {
        guard let bytes = KeyBase64.decode(base64) else { return nil }
        self.bytes = bytes
    }

    private init(_ bytes: consuming SecretBytes) { self.bytes = bytes }

    /// For the file that reads the other text form.
    init(hexDecoded bytes: consuming SecretBytes) { self.bytes = bytes }

    /// A new key, clamped like those of `wg genkey`.
    public static func generate(using random: RandomSource) -> PrivateKey {
        var bytes = SecretBytes(count: byteCount)
        bytes.withMutableBytes { bytes in
            random.fill(&bytes)
            let first = bytes.bytes.byte(at: 0)
            let last = bytes.bytes.byte(at: 31)
            bytes.store(first & 0xF8, at: 0)
            bytes.store(last & 0x7F | 0x40, at: 31)
        }
        return PrivateKey(bytes)
    }

    /// The public key. It costs a scalar multiplication each time.
    public var publicKey: PublicKey { PublicKey(of: bytes) }

    /// Another value with the same key.
    public func copy() -> PrivateKey { PrivateKey(bytes.copy()) }

    /// The shared secret with `remote`; of two static keys it can be computed once for all handshakes.
    ///
    /// - Throws: ``HandshakeError/lowOrderPoint`` if it is all zero.
    public func staticStatic(with remote: PublicKey) throws(HandshakeError) -> SecretBytes {
        try X25519.sharedSecret(bytes, remote)
    }

    /// Whether both are the same key, in constant time.
    public func isEqual(to other: borrowing PrivateKey) -> Bool { bytes.isEqual(to: other.bytes) }

    /// The key in base64, to write it to a file of the owner's. The only way out; never log it.
    public func base64ForFile() -> String { bytes.withBytes { KeyBase64.encode($0) } }
}

/// The optional secret that two peers share beside their keys; none is 32 zero bytes. Wiped when it goes.
///
/// Source: WG §5.2.
public struct PresharedKey: ~Copyable, Sendable {
    public static let byteCount = 32

    let bytes: SecretBytes

    /// Copies 32 bytes; `nil` for any other length. Wiping `bytes` is the caller's business.
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount == Self.byteCount else { return nil }
        self.bytes = SecretBytes(copying: bytes)
    }

    /// Takes 44 characters of base64; `nil` for anything but the canonical spelling of 32 bytes.
    public init?(base64: String) {
        guard let bytes = KeyBase64.decode(base64) else { return nil }
        self.bytes = bytes
    }

    private init(_ bytes: consuming SecretBytes) { self.bytes = bytes }

    /// For the file that reads the other text form.
    init(hexDecoded bytes: consuming SecretBytes) { self.bytes = bytes }

    /// No pre-shared key.
    public static func zero() -> PresharedKey { PresharedKey(SecretBytes(count: byteCount)) }

    /// A new key.
    public static func generate(using random: RandomSource) -> PresharedKey {
        var bytes = SecretBytes(count: byteCount)
        bytes.withMutableBytes { random.fill(&$0) }
        return PresharedKey(bytes)
    }

    /// Another value with the same key.
    public func copy() -> PresharedKey { PresharedKey(bytes.copy()) }

    /// Whether both are the same key, in constant time.
    public func isEqual(to other: borrowing PresharedKey) -> Bool { bytes.isEqual(to: other.bytes) }

    /// Whether it is "none".
    public var isZero: Bool { bytes.isEqual(to: SecretBytes(count: Self.byteCount)) }

    /// The key in base64, to write it to a file of the owner's. The only way out; never log it.
    public func base64ForFile() -> String { bytes.withBytes { KeyBase64.encode($0) } }
}
