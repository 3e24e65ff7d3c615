import Inet
import Noise

/// Which of the loops of one interface a device belongs to, and how keys and messages find theirs. Loops share a port and nothing else:
/// each has the peers whose public keys fall to it.
///
/// ```
///   receiver index   31          32-b                 0        b: bits that number the loops, 6 at most
///                    ├── loop ────┤────── random ─────┤
///   message          type 4, 3: index at 4      type 2: index at 8      type 1: none, its static key names the loop
/// ```
/// The index is little-endian: of its four bytes the last one holds the loop, which is what the kernel looks at.
public struct LoopShare: Hashable, Sendable {
    /// 0 to `count - 1`.
    public let index: Int
    /// 1 to ``maximumCount``.
    public let count: Int

    /// The only loop.
    public init() { (index, count) = (0, 1) }

    /// - Parameters:
    ///   - index: below `count`.
    ///   - count: 1 to ``maximumCount``.
    public init(_ index: Int, of count: Int) {
        precondition((1...Self.maximumCount).contains(count) && (0..<count).contains(index), "no such loop")
        (self.index, self.count) = (index, count)
    }

    /// What the device's receiver indices begin with.
    public var indexTag: IndexTag { IndexTag(UInt32(index), bitCount: bitCount) }

    /// Bits that number the loops: 0 to 6.
    public var bitCount: Int { Int.bitWidth - (count - 1).leadingZeroBitCount }

    /// The loop that has the peer with a public key: the same in every run of the program.
    public func loop(of key: PublicKey) -> Int {
        guard count > 1 else { return 0 }
        // Integers have no padding, so that looking at their bytes is sound.
        var words = InlineArray<4, UInt64>(repeating: 0)
        var span = words.mutableSpan
        var bytes = unsafe span.mutableBytes
        key.write(into: &bytes, at: 0)
        // Keys may begin alike, because somebody has looked for a pretty one: every bit counts.
        var hash: UInt64 = 0
        for offset in stride(from: 0, to: PublicKey.byteCount, by: 8) {
            let product = (hash ^ bytes.bytes.littleEndian64(at: offset)).multipliedFullWidth(by: 0x9E37_79B9_7F4A_7C15)
            hash = product.high ^ product.low
        }
        return Int(hash.multipliedFullWidth(by: UInt64(count)).high)
    }

    /// The loop that drew a receiver index; `nil` if there is none with that number.
    public func loop(ofReceiverIndex receiverIndex: UInt32) -> Int? {
        guard count > 1 else { return 0 }
        let loop = Int(receiverIndex >> UInt32(32 - bitCount))
        return loop < count ? loop : nil
    }

    /// The other loop that a message of type 2, 3 or 4 is for; `nil` if it is for this one, or for nobody.
    ///
    /// - Parameter message: of the exact length of its type.
    func otherLoop(of message: RawSpan) -> Int? {
        guard count > 1 else { return nil }
        let offset: Int
        switch message.byte(at: 0) {
        case 2: offset = HandshakeIndex.responseReceiver
        case 3: offset = HandshakeIndex.cookieReplyReceiver
        case 4: offset = DataMessage.receiver
        default: return nil
        }
        guard let loop = loop(ofReceiverIndex: message.littleEndian32(at: offset)), loop != index else { return nil }
        return loop
    }

    /// As many as six bits can tell apart.
    public static let maximumCount = 64
}
