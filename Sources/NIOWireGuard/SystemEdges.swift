import CSocketShim
import Inet

/// The only clock and the only source of randomness of a running interface.
public enum SystemEdges {
    /// The kernel's boot-time clock: monotonic, counts suspend.
    public static var now: Instant { Instant(nanoseconds: csocket_boottime_nanoseconds()) }

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
