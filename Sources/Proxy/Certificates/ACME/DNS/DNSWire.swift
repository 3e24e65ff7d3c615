/// Reads a message of the DNS from the front; nil when there is not enough.
struct DNSReader {
    private let all: [UInt8]
    private(set) var offset = 0

    init(_ bytes: [UInt8]) { all = bytes }

    var isAtEnd: Bool { offset == all.count }

    /// Where `count` more bytes end, if they are there.
    func end(of count: Int) -> Int? { count <= all.count - offset ? offset + count : nil }

    mutating func bytes(_ count: Int) -> [UInt8]? {
        guard let end = end(of: count) else { return nil }
        defer { offset = end }
        return Array(all[offset..<end])
    }

    mutating func uint8() -> UInt8? {
        guard offset < all.count else { return nil }
        defer { offset += 1 }
        return all[offset]
    }

    mutating func uint16() -> UInt16? { bytes(2).map { UInt16($0[0]) << 8 | UInt16($0[1]) } }
    mutating func uint32() -> UInt32? { bytes(4).map { $0.reduce(0) { $0 << 8 | UInt32($1) } } }
    mutating func uint48() -> UInt64? { bytes(6).map { $0.reduce(0) { $0 << 8 | UInt64($1) } } }

    /// RFC 1035 §4.1.4. A pointer must lead to before the piece that it ends, so that none leads round in circles; `DNSName`
    /// bounds the length.
    mutating func name() -> DNSName? {
        var labels: [[UInt8]] = []
        var length = 1
        var position = offset
        var pieceStart = offset
        var next: Int?
        var pointers = 0
        while position < all.count {
            let count = Int(all[position])
            switch count >> 6 {
            case 0:
                if count == 0 {
                    offset = next ?? position + 1
                    return DNSName(labels: labels)
                }
                length += count + 1
                guard position + count < all.count, length <= 255 else { return nil }
                labels.append(Array(all[(position + 1)...(position + count)]))
                position += count + 1
            case 3:
                guard position + 1 < all.count else { return nil }
                let target = (count & 0x3F) << 8 | Int(all[position + 1])
                pointers += 1
                guard target < pieceStart, pointers <= Self.maximumPointers else { return nil }
                if next == nil { next = position + 2 }
                position = target
                pieceStart = target
            default: return nil
            }
        }
        return nil
    }

    /// Of one name: it has no more labels.
    private static let maximumPointers = 127
}

struct DNSWriter {
    var bytes: [UInt8] = []

    mutating func write(_ number: UInt16) { bytes += [UInt8(number >> 8), UInt8(truncatingIfNeeded: number)] }

    mutating func write(_ number: UInt32) {
        for shift in stride(from: 24, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: number >> UInt32(shift))) }
    }

    /// The lower 48 bits.
    mutating func write48(_ number: UInt64) {
        for shift in stride(from: 40, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: number >> UInt64(shift))) }
    }
}
