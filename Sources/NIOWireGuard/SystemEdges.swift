import CSocketShim
import Inet

/// The only clock, the only source of randomness and the only resolver of a running interface.
public enum SystemEdges {
    /// The kernel's boot-time clock: monotonic, counts suspend.
    public static var now: Instant { Instant(nanoseconds: csocket_boottime_nanoseconds()) }

    /// How long the machine has been suspended since it booted.
    package static let timeSuspended: @Sendable () -> Duration = { .nanoseconds(Int64(clamping: csocket_suspended_nanoseconds())) }

    /// Civil time, for TAI64N labels only.
    public static var wallTime: WallTime {
        var nanoseconds: UInt32 = 0
        let seconds = csocket_wall_seconds(&nanoseconds)
        return WallTime(seconds: seconds, nanoseconds: nanoseconds)
    }

    /// The kernel's cryptographically secure generator (getrandom).
    public static let random = RandomSource { span in
        span.withUnsafeMutableBytes { csocket_random($0.baseAddress, $0.count) }
    }

    /// A host name's addresses with a port, best first. Blocks.
    package typealias HostLookUp = @Sendable (_ host: String, _ port: UInt16) throws -> [SocketEndpoint]

    /// The system's resolver (getaddrinfo).
    package static let resolveHost: HostLookUp = { host, port in
        var found = [csocket_endpoint](repeating: csocket_endpoint(), count: maximumAddresses)
        let count = csocket_resolve(host, port, &found, CInt(maximumAddresses))
        guard count >= 0 else { throw LookUpError(description: String(cString: csocket_resolve_error(count))) }
        return found.prefix(Int(count)).compactMap { form in IPAddress(form).map { SocketEndpoint($0, port: form.port) } }
    }

    private struct LookUpError: Error, CustomStringConvertible {
        let description: String
    }

    /// More addresses of one name are not looked at.
    private static let maximumAddresses = 16
}

extension SocketEndpoint {
    /// The endpoint as the socket shim takes it.
    var socketForm: csocket_endpoint {
        var form = csocket_endpoint()
        form.family = address.family.rawValue
        form.port = port
        withUnsafeMutableBytes(of: &form.address) { bytes in
            var span = MutableRawSpan(_unsafeBytes: bytes)
            address.write(into: &span, at: 0)
        }
        return form
    }
}
