import Inet
import Noise

/// Private keys in files, one line of base64 as `wg genkey` prints it. A file is never overwritten.
package enum KeyFiles {
    static let advice = "write the 44 characters that wg genkey or kakuremichi keys prints; the file is not overwritten"

    /// Makes a key and writes it to a new file, readable by its owner alone.
    package static func generate(to path: String, random: RandomSource) throws(FileError) -> PublicKey {
        let key = PrivateKey.generate(using: random)
        try SystemFiles.create(path, Array("\(key.base64ForFile())\n".utf8))
        return key.publicKey
    }

    /// The public key of the private key in a file, or `nil` if the file does not hold one.
    package static func publicKey(ofContents bytes: [UInt8]) -> PublicKey? {
        PrivateKey(base64: trimmed(String(decoding: bytes, as: UTF8.self)))?.publicKey
    }

    /// Without blanks and line ends around it.
    static func trimmed(_ text: String) -> String {
        func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
        guard let first = text.utf8.firstIndex(where: { !isBlank($0) }), let last = text.utf8.lastIndex(where: { !isBlank($0) }) else {
            return ""
        }
        return String(text[first...last])
    }
}
