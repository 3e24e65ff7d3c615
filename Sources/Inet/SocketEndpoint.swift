/// An IP address and a port: `192.0.2.1:51820`, `[2001:db8::1]:51820`.
public struct SocketEndpoint: Hashable, Sendable, CustomStringConvertible, LosslessStringConvertible {
    public var address: IPAddress
    public var port: UInt16

    @inlinable public init(_ address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    /// Parses `A.B.C.D:PORT` or `[V6]:PORT`. Host names are not addresses: `nil`.
    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        guard (1...5).contains(digits.utf8.count), digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let port = UInt16(digits)
        else { return nil }
        var host = text[..<colon]
        if host.first == "[", host.last == "]" {
            host = host.dropFirst().dropLast()
            guard let address = IPAddress(String(host)), address.family == .v6 else { return nil }
            self.init(address, port: port)
        } else {
            guard let address = IPAddress(String(host)), address.family == .v4 else { return nil }
            self.init(address, port: port)
        }
    }

    public var description: String { address.family == .v4 ? "\(address):\(port)" : "[\(address)]:\(port)" }
}
