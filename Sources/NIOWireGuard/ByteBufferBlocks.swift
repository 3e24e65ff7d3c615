import NIOCore
import TCPStack

/// Lets the stack put received bytes into the memory of `ByteBuffer`s, which then go to the channels as they are.
///
/// Large ones are used again when the channel's handlers have let go of them: fresh memory would have to be mapped and cleared by the
/// kernel each time, at half the cost of deciphering what goes into it. At most `mostPooled` of them are kept.
final class ByteBufferBlocks: TextBlockSource {
    /// Keeps the memory where it is, and hands it over.
    private final class Box {
        var buffer: ByteBuffer
        init(_ buffer: ByteBuffer) { self.buffer = buffer }
    }

    private let allocator = ByteBufferAllocator()
    private var pool: [ByteBuffer] = []
    /// Where to look for a free one first.
    private var next = 0

    override func make(capacity: Int) -> TextBlock {
        if capacity >= Self.smallestPooled {
            for _ in pool.indices {
                next = next + 1 < pool.count ? next + 1 : 0
                guard pool[next].storageCapacity >= capacity, pool[next].storageCapacity <= 2 * capacity else { continue }
                // If we are its only owner, nobody else can see that it changes.
                if pool[next].modifyIfUniquelyOwned({ $0.clear() }) != nil { return Self.block(&pool[next]) }
            }
        }
        var buffer = allocator.buffer(capacity: capacity)
        let block = Self.block(&buffer)
        guard capacity >= Self.smallestPooled else { return block }
        if pool.count < Self.mostPooled { pool.append(buffer) } else { pool[next] = buffer }
        return block
    }

    /// - Parameter buffer: has no other owner yet; its memory would move otherwise.
    private static func block(_ buffer: inout ByteBuffer) -> TextBlock {
        let memory = buffer.withVeryUnsafeMutableBytes { $0 }
        return TextBlock(memory, owner: Box(buffer))
    }

    /// The buffer of a block that this source has made and the stack has handed over, with the block's unread bytes.
    static func buffer(of block: TextBlock) -> ByteBuffer {
        guard let box = block.owner as? Box else { preconditionFailure("a block of another source") }
        var buffer = ByteBuffer()
        swap(&buffer, &box.buffer)
        buffer.moveWriterIndex(to: block.filled.upperBound)
        buffer.moveReaderIndex(to: block.filled.lowerBound)
        return buffer
    }

    private static let smallestPooled = 32 * 1024
    private static let mostPooled = 8
}
