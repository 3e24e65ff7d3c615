import CSocketShim
import Inet
import WGUserspace

/// What a port that several loops share asks of the kernel; replaced in tests.
package struct PortSharing: Sendable {
    /// Lets others bind to the port of a descriptor: 0, or -errno.
    package var share: @Sendable (CInt) -> CInt = csocket_share_port
    /// Binds beside a socket whose port is shared.
    package var bind: @Sendable (CInt, UInt16, CInt) -> CInt = csocket_udp_bind_shared
    /// Has datagrams chosen by so many bits of their receiver index: 0, or -errno.
    package var steer: @Sendable (CInt, CUnsignedInt) -> CInt = csocket_steer

    package init() {}
}

/// Several sockets on one port (SO_REUSEPORT), between which the kernel chooses by the receiver index of each message.
extension DescriptorPair {
    /// One pair for each of `count` loops, in their order. The first socket of each family is bound as if it were the only one, so that a
    /// port which another process has is refused.
    /// - Parameters:
    ///   - port: 0 lets the kernel choose, the same for all.
    ///   - count: 2 to 64.
    /// - Throws: as `init`; `InterfaceError.portNotShared` if the kernel refuses to share the port or to choose by the index. No descriptor
    ///   is left then.
    static func shared(
        _ count: Int, port: UInt16, mark: UInt32, sharing: PortSharing
    ) throws(InterfaceError) -> [DescriptorPair] {
        let first = try DescriptorPair(port: port, mark: mark, bind: csocket_udp_bind)
        var sockets: [IPAddress.Family: [CInt]] = [:]
        for (family, descriptor) in [(IPAddress.Family.v4, first.v4), (.v6, first.v6)] {
            guard let descriptor else { continue }
            do throws(InterfaceError) {
                sockets[family] = try share(descriptor, as: family, port: first.port, count: count, mark: mark, sharing: sharing)
            } catch {
                for bound in sockets.values.joined() { csocket_close(bound) }
                if family == .v4, let other = first.v6 { csocket_close(other) }
                throw error
            }
        }
        return (0..<count).map { DescriptorPair(v4: sockets[.v4]?[$0], v6: sockets[.v6]?[$0], port: first.port) }
    }

    /// One family again, for all loops; nobody else may be bound to the port now.
    /// - Returns: `nil` if that failed.
    static func reopenShared(_ count: Int, _ family: IPAddress.Family, port: UInt16, mark: UInt32, sharing: PortSharing) -> [CInt]? {
        guard let first = reopen(family, port: port, mark: mark, bind: csocket_udp_bind) else { return nil }
        return try? share(first, as: family, port: port, count: count, mark: mark, sharing: sharing)
    }

    /// Binds the others beside `first`, which is closed with them if that fails.
    private static func share(
        _ first: CInt, as family: IPAddress.Family, port: UInt16, count: Int, mark: UInt32, sharing: PortSharing
    ) throws(InterfaceError) -> [CInt] {
        var bound = [first]
        func failed(_ error: CInt) -> InterfaceError {
            for descriptor in bound { csocket_close(descriptor) }
            return .portNotShared(port: port, errno: -error)
        }
        let shared = sharing.share(first)
        guard shared >= 0 else { throw failed(shared) }
        for _ in 1..<count {
            let descriptor = sharing.bind(CInt(family.rawValue), port, bufferSize)
            guard descriptor >= 0 else { throw failed(descriptor) }
            bound.append(descriptor)
            guard mark != 0 else { continue }
            let marked = csocket_set_mark(descriptor, mark)
            guard marked >= 0 else { throw failed(marked) }
        }
        let steered = sharing.steer(first, CUnsignedInt(LoopShare(0, of: count).bitCount))
        guard steered >= 0 else { throw failed(steered) }
        return bound
    }
}
