import NIOCore
import TCPStack

/// Lets the stack put received bytes into the memory of `ByteBuffer`s, which then go to the channels as they are.
final class ByteBufferBlocks: TextBlockSource {
    /// The only owner of its buffer: so the memory stays where it is, and nobody else sees it.
    private final class Box {
        var buffer: ByteBuffer
        init(_ buffer: ByteBuffer) { self.buffer = buffer }
    }

    private let allocator = ByteBufferAllocator()

    override func make(capacity: Int) -> TextBlock {
        let box = Box(allocator.buffer(capacity: capacity))
        return box.buffer.withVeryUnsafeMutableBytes { TextBlock($0, owner: box) }
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
}
