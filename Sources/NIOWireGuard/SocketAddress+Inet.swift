import Inet
import NIOCore

extension SocketAddress {
    init?(_ endpoint: SocketEndpoint) {
        guard let address = try? SocketAddress(ipAddress: endpoint.address.description, port: Int(endpoint.port)) else { return nil }
        self = address
    }
}

extension SocketEndpoint {
    /// The numeric address; an IPv4-mapped one becomes IPv4. `nil` for a Unix socket.
    init?(_ address: SocketAddress) {
        switch address {
        case .v4(let v4):
            self.init(IPAddress(v4: UInt32(bigEndian: v4.address.sin_addr.s_addr)), port: UInt16(bigEndian: v4.address.sin_port))
        case .v6(let v6):
            let ip = withUnsafeBytes(of: v6.address.sin6_addr) { IPAddress(.v6, in: RawSpan(_unsafeBytes: $0), at: 0) }
            self.init(ip.unmapped, port: UInt16(bigEndian: v6.address.sin6_port))
        case .unixDomainSocket: return nil
        }
    }
}
