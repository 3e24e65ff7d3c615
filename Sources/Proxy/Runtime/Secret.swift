import Inet
import Noise

/// A password or token that goes to another server. Copies share the bytes, which are wiped with the last of them; nothing that
/// prints a value shows them.
package struct Secret: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    private let storage: Storage

    package init(_ text: String) {
        storage = Storage(SecretBytes(copying: Array(text.utf8).span.bytes))
    }

    /// The text, for the request that needs it.
    package func reveal() -> String {
        storage.bytes.withBytes { bytes in
            String(decoding: (0..<bytes.byteCount).map { bytes.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }, as: UTF8.self)
        }
    }

    /// In constant time.
    package static func == (one: Secret, other: Secret) -> Bool { one.storage.bytes.isEqual(to: other.storage.bytes) }

    /// `text` without this secret: servers repeat in their errors what they were sent.
    package func redact(_ text: String) -> String {
        // By bytes: a character may reach beyond the secret.
        let secret = Array(reveal().utf8)
        if secret.count < 4 { return text }
        let parts = Array(text.utf8).split(separator: secret, omittingEmptySubsequences: false)
        return String(decoding: Array(parts.joined(separator: Array("(secret)".utf8))), as: UTF8.self)
    }

    package var description: String { "(secret)" }
    package var debugDescription: String { "(secret)" }
    package var customMirror: Mirror { Mirror(self, children: [:]) }

    private final class Storage: Sendable {
        let bytes: SecretBytes
        init(_ bytes: consuming SecretBytes) { self.bytes = bytes }
    }
}
