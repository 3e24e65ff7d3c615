/// An address block: `10.1.0.0/24`, `fd00::/64`. The host bits are kept cleared.
public struct IPPrefix: Hashable, Sendable, CustomStringConvertible, LosslessStringConvertible {
    public let address: IPAddress
    /// 0 to 32 or 0 to 128.
    public let length: Int

    /// - Returns: `nil` if `length` is outside the family's range.
    public init?(_ address: IPAddress, length: Int) {
        guard (0...address.bitWidth).contains(length) else { return nil }
        self.address = address.masked(to: length)
        self.length = length
    }

    /// The block of one address.
    public init(host address: IPAddress) {
        self.address = address
        length = address.bitWidth
    }

    /// Parses `ADDRESS/LENGTH`, or `ADDRESS` for a block of one. Host bits are accepted and cleared, as `wg` does.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, let address = IPAddress(String(first)) else { return nil }
        guard parts.count == 2 else {
            self.init(host: address)
            return
        }
        guard (1...3).contains(parts[1].utf8.count), parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let length = Int(parts[1])
        else { return nil }
        self.init(address, length: length)
    }

    public func contains(_ other: IPAddress) -> Bool {
        other.family == address.family && other.masked(to: length) == address
    }

    public var description: String { "\(address)/\(length)" }
}
