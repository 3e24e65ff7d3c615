import Inet
import NIOCore

/// A listener that could not be opened, and what to do about it.
package struct ListenError: Error, CustomStringConvertible {
    package let endpoint: SocketEndpoint
    package let errnoCode: CInt?
    package let reason: String
    /// What the address was given by.
    package let flag: String

    package init(_ endpoint: SocketEndpoint, _ error: any Error, flag: String) {
        self.endpoint = endpoint
        self.flag = flag
        errnoCode = (error as? IOError)?.errnoCode
        reason = errnoCode.map(systemMessage) ?? "\(error)"
    }

    package var description: String {
        switch errnoCode {
        case Self.permissionDenied:
            return "cannot listen on \(endpoint): ports below the system's first unprivileged one need a permission. "
                + "Three ways out: another port (\(flag) \(Self.example(endpoint))); the capability "
                + "(sudo setcap cap_net_bind_service=+ep /path/to/kakuremichi); or the system's setting "
                + "(sudo sysctl -w net.ipv4.ip_unprivileged_port_start=\(endpoint.port))"
        case Self.addressInUse:
            return "cannot listen on \(endpoint): another program uses it (ss -ltnp 'sport = :\(endpoint.port)' shows which). "
                + "Stop it, or choose another port (\(flag) \(Self.example(endpoint)))"
        case Self.addressNotAvailable:
            return "cannot listen on \(endpoint): this machine does not have that address. Use one of its own, or [::] for all"
        default: return "cannot listen on \(endpoint): \(reason). Give \(flag) another address"
        }
    }

    private static func example(_ endpoint: SocketEndpoint) -> String {
        let port: UInt16 = endpoint.port == 80 ? 8080 : endpoint.port == 443 ? 8443 : endpoint.port < 1024 ? endpoint.port + 8000 : 0
        return "\(SocketEndpoint(endpoint.address, port: port == 0 ? endpoint.port ^ 1 : port))"
    }

    // Linux numbers, asm-generic/errno.h.
    private static let permissionDenied: CInt = 13
    private static let addressInUse: CInt = 98
    private static let addressNotAvailable: CInt = 99
}
