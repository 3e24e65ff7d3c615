import Inet
import Noise

/// Hexadecimal digits, two a byte.
package enum Hex {
    /// The bytes that `text` spells, in either case; `nil` for anything else.
    package static func decode(_ text: some StringProtocol) -> [UInt8]? {
        let utf8 = text.utf8
        guard utf8.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(utf8.count / 2)
        var high: UInt8?
        for character in utf8 {
            guard let digit = digit(character) else { return nil }
            if let first = high {
                bytes.append(first << 4 | digit)
                high = nil
            } else {
                high = digit
            }
        }
        return bytes
    }

    /// Lower-case digits.
    package static func encode(_ bytes: some Collection<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count * 2)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    static func digit(_ character: UInt8) -> UInt8? {
        switch character {
        case 0x30...0x39: character - 0x30
        case 0x41...0x46: character - 0x37
        case 0x61...0x66: character - 0x57
        default: nil
        }
    }
}

/// Spans cannot be stored, compared or written to a file, so everything here works on arrays.
extension [UInt8] {
    init(_ span: RawSpan) { self = (0..<span.byteCount).map { span.byte(at: $0) } }

    init(_ secret: borrowing SecretBytes) { self = secret.withBytes { [UInt8]($0) } }

    init(_ digest: Digest) {
        // The words are in the order of memory.
        let words = digest.words
        self = words.indices.flatMap { index in
            stride(from: 0 as UInt64, to: 64, by: 8).map { UInt8(truncatingIfNeeded: words[index].littleEndian >> $0) }
        }
    }

    init(_ hash: HandshakeHash) { self = hash.withBytes { [UInt8]($0) } }

    init(_ key: PublicKey) { self = .init(count: PublicKey.byteCount) { key.write(into: &$0, at: 0) } }

    init(_ mac: MAC) { self = .init(count: MAC.byteCount) { mac.write(into: &$0, at: 0) } }

    init(_ label: TAI64N) { self = .init(count: TAI64N.byteCount) { label.write(into: &$0, at: 0) } }

    init(_ address: IPAddress) { self = .init(count: address.byteCount) { address.write(into: &$0, at: 0) } }

    /// `count` bytes that `body` writes to; zero where it does not.
    init(count: Int, _ body: (inout MutableRawSpan) -> Void) {
        self = [UInt8](repeating: 0, count: count)
        withMutableBytes(body)
    }

    mutating func withMutableBytes<Result: ~Copyable, Failure: Error>(
        _ body: (inout MutableRawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        var span = mutableSpan
        var bytes = span.mutableBytes
        return try body(&bytes)
    }
}
