/// Fixed-offset loads and stores of wire integers. Every access is bounds-checked by the span.
extension RawSpan {
    /// The byte at `offset`.
    @inlinable public func byte(at offset: Int) -> UInt8 {
        // A byte has no invalid bit pattern; the span checks the bounds.
        unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self)
    }
    /// The network-order 16-bit integer at `offset`.
    @inlinable public func bigEndian16(at offset: Int) -> UInt16 {
        UInt16(bigEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }
    /// The network-order 32-bit integer at `offset`.
    @inlinable public func bigEndian32(at offset: Int) -> UInt32 {
        UInt32(bigEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    /// The network-order 64-bit integer at `offset`.
    @inlinable public func bigEndian64(at offset: Int) -> UInt64 {
        UInt64(bigEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    /// The little-endian 32-bit integer at `offset` (WireGuard's own fields).
    @inlinable public func littleEndian32(at offset: Int) -> UInt32 {
        UInt32(littleEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    /// The little-endian 64-bit integer at `offset` (WireGuard's counter).
    @inlinable public func littleEndian64(at offset: Int) -> UInt64 {
        UInt64(littleEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
}

extension MutableRawSpan {
    /// Stores one byte at `offset`.
    @inlinable public mutating func store(_ value: UInt8, at offset: Int) {
        storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    }
    /// Stores `value` in network order at `offset`.
    @inlinable public mutating func storeBigEndian<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: Value.self)
    }
    /// Stores `value` in little-endian order at `offset`.
    @inlinable public mutating func storeLittleEndian<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: Value.self)
    }
    /// Copies all of `source` to `offset`. The destination must have the room.
    @inlinable public mutating func copy(_ source: RawSpan, at offset: Int) {
        let count = source.byteCount
        guard count > 0 else { return }
        precondition(offset >= 0 && offset <= byteCount && count <= byteCount - offset, "copy out of bounds")
        // The precondition above is the proof; the exclusive access of `self` rules out overlap.
        unsafe withUnsafeMutableBytes { destination in
            unsafe source.withUnsafeBytes { bytes in
                unsafe destination.baseAddress?.advanced(by: offset)
                    .copyMemory(from: bytes.baseAddress.unsafelyUnwrapped, byteCount: count)
            }
        }
    }
    /// Sets `range` to zero.
    @inlinable public mutating func zero(_ range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= byteCount, "zero out of bounds")
        guard !range.isEmpty else { return }
        unsafe withUnsafeMutableBytes { bytes in
            _ = unsafe bytes[range].initializeMemory(as: UInt8.self, repeating: 0)
        }
    }
}
