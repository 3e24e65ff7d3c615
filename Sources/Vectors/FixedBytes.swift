import Synchronization

/// Bytes that come in order, and from the beginning again when they are used up.
final class FixedBytes: Sendable {
    private let bytes: [UInt8]
    private let position = Atomic<UInt>(0)

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func next() -> UInt8 {
        guard !bytes.isEmpty else { return 0 }
        return bytes[Int(position.wrappingAdd(1, ordering: .relaxed).oldValue % UInt(bytes.count))]
    }
}
