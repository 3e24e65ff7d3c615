import CSocketShim
import Inet
import Logging

/// One bound descriptor for each address family that the machine has.
struct DescriptorPair {
    private(set) var v4: CInt?
    private(set) var v6: CInt?
    let port: UInt16

    /// Descriptors that are bound to `port`.
    init(v4: CInt?, v6: CInt?, port: UInt16) { (self.v4, self.v6, self.port) = (v4, v6, port) }

    /// - Parameters:
    ///   - port: 0 lets the kernel choose, the same for both families.
    ///   - mark: SO_MARK; 0 is none.
    init(port: UInt16, mark: UInt32, bind: UDPSockets.BindCall) throws(InterfaceError) {
        var attempt = 1
        while true {
            let first = bind(4, port, Self.bufferSize)
            guard first >= 0 || Self.isFamilyMissing(first) else { throw .bindFailed(port: port, errno: -first) }
            let wanted = first >= 0 ? UInt16(clamping: csocket_local_port(first)) : port
            let second = bind(6, wanted, Self.bufferSize)
            if second >= 0 || (first >= 0 && Self.isFamilyMissing(second)) {
                (v4, v6) = (first >= 0 ? first : nil, second >= 0 ? second : nil)
                self.port = first >= 0 ? wanted : UInt16(clamping: csocket_local_port(second))
                break
            }
            if first >= 0 { csocket_close(first) }
            // The kernel's choice for IPv4 may be taken for IPv6.
            guard port == 0, attempt < Self.maximumAttempts else { throw .bindFailed(port: port, errno: -second) }
            attempt += 1
        }
        guard mark != 0 else { return }
        for descriptor in [v4, v6] {
            guard let descriptor else { continue }
            let result = csocket_set_mark(descriptor, mark)
            guard result < 0 else { continue }
            close()
            throw .markRefused(mark: mark, errno: -result)
        }
    }

    /// One family again, on the port that it had.
    static func reopen(_ family: IPAddress.Family, port: UInt16, mark: UInt32, bind: UDPSockets.BindCall) -> CInt? {
        let descriptor = bind(CInt(family.rawValue), port, bufferSize)
        guard descriptor >= 0 else { return nil }
        guard mark == 0 || csocket_set_mark(descriptor, mark) >= 0 else {
            csocket_close(descriptor)
            return nil
        }
        return descriptor
    }

    /// For descriptors that nobody has adopted.
    func close() { for case let opened? in [v4, v6] { csocket_close(opened) } }

    func tellMissing(to logger: Logger) {
        if v4 == nil { logger.info("IPv4 is not available for WireGuard") }
        if v6 == nil { logger.debug("IPv6 is not available for WireGuard") }
    }

    /// What says that the machine lacks the family; anything else is an error, say a port that is taken, or no descriptor left.
    private static func isFamilyMissing(_ result: CInt) -> Bool { missing.contains(-result) }

    /// Asked of the kernel for each direction; it clamps to its own maximum.
    static let bufferSize: CInt = 8 * 1024 * 1024
    private static let maximumAttempts = 16
    /// EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPFNOSUPPORT, EAFNOSUPPORT, EADDRNOTAVAIL (IPv6 is there, but switched off).
    private static let missing: Set<CInt> = [93, 94, 96, 97, 99]
}
