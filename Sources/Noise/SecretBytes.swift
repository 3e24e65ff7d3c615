import Inet

/// Bytes that nobody else may see. They live at one place of the heap, so that moving the value leaves no copy behind,
/// and are wiped when the value goes.
///
/// There is deliberately no `description`, `Codable`, `Hashable` or `==`; compare with ``isEqual(to:)``.
/// The value is the only owner of its bytes and may go from thread to thread.
@safe public struct SecretBytes: ~Copyable, @unchecked Sendable {
    /// How many bytes there are.
    public let count: Int

    /// `count` bytes, valid as long as the value lives. For the files of this module that hand a key to C.
    let base: UnsafeMutableRawPointer

    /// `count` zero bytes.
    public init(count: Int) {
        precondition(count >= 0, "a negative count")
        Sodium.initialize()
        self.count = count
        unsafe base = .allocate(byteCount: max(count, 1), alignment: 16)
        unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count)
    }

    /// A copy of `bytes`. Wiping those is the caller's business.
    public init(copying bytes: RawSpan) {
        self = SecretBytes(count: bytes.byteCount)
        withMutableBytes { $0.copy(bytes, at: 0) }
    }

    deinit {
        unsafe Sodium.wipe(base, count: count)
        unsafe base.deallocate()
    }

    /// Calls `body` with the bytes; they are valid only during the call.
    public func withBytes<Result: ~Copyable, Failure: Error>(
        _ body: (RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        // The value owns `count` bytes and lives during the call.
        try body(unsafe RawSpan(_unsafeStart: base, byteCount: count))
    }

    /// Calls `body` with the bytes to change them; they are valid only during the call.
    public mutating func withMutableBytes<Result: ~Copyable, Failure: Error>(
        _ body: (inout MutableRawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        // The value owns `count` bytes, lives during the call and is accessed exclusively.
        var bytes = unsafe MutableRawSpan(_unsafeStart: base, byteCount: count)
        return try body(&bytes)
    }

    /// Another value with the same bytes.
    public func copy() -> SecretBytes { withBytes { SecretBytes(copying: $0) } }

    /// Whether both hold the same bytes, in a time that does not depend on what they hold.
    public func isEqual(to other: borrowing SecretBytes) -> Bool {
        unsafe Sodium.isEqual(RawSpan(_unsafeStart: base, byteCount: count), RawSpan(_unsafeStart: other.base, byteCount: other.count))
    }

    /// Overwrites all of it with zeroes now, before the value goes.
    public mutating func wipe() { unsafe Sodium.wipe(base, count: count) }
}
