import Inet

/// The hexadecimal form of a 32-byte key, 64 characters, as the UAPI writes keys. No branch and no table index depends on a digit's
/// value, as with the base64 of this module; only whether all characters are digits comes out.
///
/// Source: wireguard.com/xplatform, "Configuration Protocol".
enum KeyHex {
    static let characterCount = 64

    /// The 32 bytes that `text` spells in digits of either case; `nil` for anything else.
    static func decode(_ text: RawSpan) -> SecretBytes? {
        guard text.byteCount == characterCount else { return nil }
        var key = SecretBytes(count: 32)
        var isBad: UInt32 = 0
        key.withMutableBytes { key in
            for index in 0..<32 {
                let (high, low) = (digit(text.byte(at: 2 * index)), digit(text.byte(at: 2 * index + 1)))
                isBad |= high.isBad | low.isBad
                key.store(UInt8(truncatingIfNeeded: high.value << 4 | low.value), at: index)
            }
        }
        guard isBad == 0 else { return nil }
        return key
    }

    /// Writes 64 lower-case digits at `offset`, which must have the room.
    /// - Parameter bytes: 32 bytes.
    static func encode(_ bytes: RawSpan, into output: inout MutableRawSpan, at offset: Int) {
        precondition(bytes.byteCount == 32, "a key has 32 bytes")
        for index in 0..<32 {
            let byte = bytes.byte(at: index)
            output.store(character(byte >> 4), at: offset + 2 * index)
            output.store(character(byte & 15), at: offset + 2 * index + 1)
        }
    }

    /// `value` is 0 to 15 and `isBad` 0, or `isBad` is all ones.
    private static func digit(_ character: UInt8) -> (value: UInt32, isBad: UInt32) {
        let number = UInt32(character) ^ 0x30
        let letter = (UInt32(character) & ~0x20) &- 0x37
        // All ones where the subtraction borrows, zero where it does not.
        let isNumber = below(number, 10)
        let isLetter = below(letter, 16) & ~below(letter, 10)
        return (number & isNumber | letter & isLetter, ~(isNumber | isLetter))
    }

    private static func below(_ value: UInt32, _ bound: UInt64) -> UInt32 {
        UInt32(truncatingIfNeeded: (UInt64(value) &- bound) >> 32)
    }

    private static func character(_ value: UInt8) -> UInt8 {
        // 39 is the way from the character behind "9" to "a".
        let isLetter = UInt16(9 &- UInt16(value)) >> 8
        return 0x30 &+ value &+ UInt8(truncatingIfNeeded: isLetter & 39)
    }
}

extension PublicKey {
    /// Takes 64 hexadecimal digits of either case; `nil` for anything else.
    package init?(hex: RawSpan) {
        guard let bytes = KeyHex.decode(hex) else { return nil }
        self = bytes.withBytes { PublicKey($0, at: 0) }
    }

    /// Writes 64 hexadecimal digits at `offset`, which must have the room.
    package func writeHex(into output: inout MutableRawSpan, at offset: Int) {
        KeyHex.encode(unsafe words.span.bytes, into: &output, at: offset)
    }
}

extension PrivateKey {
    /// Takes 64 hexadecimal digits of either case; `nil` for anything else. Wiping `hex` is the caller's business.
    package init?(hex: RawSpan) {
        guard let bytes = KeyHex.decode(hex) else { return nil }
        self.init(hexDecoded: bytes)
    }

    /// Writes 64 hexadecimal digits at `offset`, which must have the room. Wiping them is the caller's business.
    package func writeHex(into output: inout MutableRawSpan, at offset: Int) {
        bytes.withBytes { KeyHex.encode($0, into: &output, at: offset) }
    }

    /// Whether all 32 bytes are zero, which stands for "no key" wherever keys are configured; in constant time.
    package var isZero: Bool { bytes.isEqual(to: SecretBytes(count: Self.byteCount)) }
}

extension PresharedKey {
    /// Takes 64 hexadecimal digits of either case; `nil` for anything else. Wiping `hex` is the caller's business.
    package init?(hex: RawSpan) {
        guard let bytes = KeyHex.decode(hex) else { return nil }
        self.init(hexDecoded: bytes)
    }

    /// Writes 64 hexadecimal digits at `offset`, which must have the room. Wiping them is the caller's business.
    package func writeHex(into output: inout MutableRawSpan, at offset: Int) {
        bytes.withBytes { KeyHex.encode($0, into: &output, at: offset) }
    }
}
