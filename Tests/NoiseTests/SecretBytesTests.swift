import Inet
import Noise
import Testing

@Suite struct SecretBytesTests {
    @Test("new bytes are zero, a copy holds the same and stands alone")
    func copies() {
        var original = SecretBytes([1, 2, 3])
        let copy = original.copy()
        original.withMutableBytes { $0.store(UInt8(9), at: 0) }
        #expect([UInt8](original) == [9, 2, 3] && [UInt8](copy) == [1, 2, 3])
        #expect([UInt8](SecretBytes(count: 4)) == [0, 0, 0, 0])
        #expect([UInt8](SecretBytes(count: 0)).isEmpty == true)
    }

    @Test("equal bytes are equal, other bytes and lengths are not")
    func equality() {
        let bytes = SecretBytes([1, 2, 3])
        #expect(bytes.isEqual(to: SecretBytes([1, 2, 3])) == true)
        #expect(bytes.isEqual(to: SecretBytes([1, 2, 4])) == false)
        #expect(bytes.isEqual(to: SecretBytes([1, 2])) == false)
        #expect(SecretBytes(count: 0).isEqual(to: SecretBytes(count: 0)) == true)
    }

    @Test("wiping leaves zeroes")
    func wiping() {
        var bytes = SecretBytes([1, 2, 3])
        bytes.wipe()
        #expect([UInt8](bytes) == [0, 0, 0])
        var array: [UInt8] = [4, 5, 6]
        var span = array.mutableSpan
        var raw = span.mutableBytes
        Sodium.wipe(&raw)
        #expect(array == [0, 0, 0])
    }

    /// The allocator gives a freed block of a size out again to the next who asks for that size, as it was left, but for
    /// its own links in the first 16 bytes.
    @Test("a value that goes leaves no secret in the memory it had")
    func wipedWhenDropped() {
        let count = 208
        for _ in 0..<100 {
            let old = SecretBytes([UInt8](repeating: 0x5A, count: count)).withBytes {
                $0.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) }
            }
            let block = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 16)
            defer { block.deallocate() }
            guard UInt(bitPattern: block) == old else { continue }
            let left = UnsafeRawBufferPointer(start: block, count: count).dropFirst(16)
            #expect(left.contains(0x5A) == false)
            return
        }
    }
}
