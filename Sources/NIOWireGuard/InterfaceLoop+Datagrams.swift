import Inet
import NIOCore
import TCPStack

/// The loop's side of UDP sockets.
extension InterfaceLoop {
    func openUDP(
        port: DatagramPort, _ opening: DatagramPort.Opening
    ) -> Result<(id: UDPSocketID, address: IPAddress?, port: UInt16), TunnelError> {
        guard !isClosed else { return .failure(.interfaceClosed) }
        var address = opening.address
        if let remote = opening.remote, address == nil {
            address = InterfaceAddress.source(for: remote.address, among: addresses)
            if address == nil { return .failure(.noSourceAddress) }
        }
        do {
            let id = try core.stack.openUDP(address: address, port: opening.port, remote: opening.remote, options: opening.options)
            guard let ends = core.stack.udpEndpoints(of: id) else { return .failure(.interfaceClosed) }
            let index = Int(id.index)
            while datagramPorts.count <= index { datagramPorts.append(nil) }
            datagramPorts[index] = port
            return .success((id, ends.address, ends.port))
        } catch { return .failure(TunnelError(error)) }
    }

    func closeUDP(_ id: UDPSocketID, port: DatagramPort) {
        core.stack.closeUDP(id)
        forget(id, port: port)
        scheduleTurn()
    }

    func forget(_ id: UDPSocketID, port: DatagramPort) {
        let index = Int(id.index)
        if datagramPorts.indices.contains(index), datagramPorts[index] === port { datagramPorts[index] = nil }
    }

    func datagramPort(for id: UDPSocketID) -> DatagramPort? {
        let index = Int(id.index)
        guard datagramPorts.indices.contains(index), let port = datagramPorts[index], port.id == id else { return nil }
        return port
    }

    /// - Returns: whether the socket's queue took it.
    func send(_ datagram: DatagramPort.Outgoing, on id: UDPSocketID, isWildcard: Bool) -> Result<Bool, TunnelError> {
        var source = datagram.source
        if isWildcard, source == nil, let remote = datagram.remote {
            source = InterfaceAddress.source(for: remote.address, among: addresses)
            if source == nil { return .failure(.noSourceAddress) }
        }
        defer { scheduleTurn() }
        return datagram.data.withUnsafeReadableBytes { bytes in
            do throws(StackError) {
                let span = RawSpan(_unsafeBytes: bytes)
                return .success(try core.stack.sendUDP(id, span, to: datagram.remote, from: source, now: SystemEdges.now))
            } catch {
                return .failure(TunnelError(error))
            }
        }
    }

    /// The oldest datagram that waits; `nil` if none.
    func receiveUDP(_ id: UDPSocketID) -> (UDPDatagram, ByteBuffer)? {
        guard let length = core.stack.nextUDPLength(id) else { return nil }
        var buffer = ByteBufferAllocator().buffer(capacity: length)
        var datagram: UDPDatagram?
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { bytes in
            var span = MutableRawSpan(_unsafeBytes: bytes)
            datagram = (try? core.stack.receiveUDP(id, into: &span)) ?? nil
            return datagram?.count ?? 0
        }
        return datagram.map { ($0, buffer) }
    }

    /// Ends every UDP socket of an interface that closes. What was sent leaves with the next transmission.
    /// - Returns: when the channels have closed.
    func closeDatagramPorts() -> [EventLoopFuture<Void>] {
        let ends = datagramPorts.compactMap { $0?.channel?.closeFuture }
        for case let port? in datagramPorts {
            if let id = port.id { core.stack.closeUDP(id) }
            port.finish(.interfaceClosed)
        }
        return ends
    }
}

extension TunnelError {
    init(_ error: StackError) {
        switch error {
        case .messageTooLarge(let limit): self = .messageTooLarge(limit: limit)
        case .noSuchSocket: self = .aborted
        case .noSuchConnection, .outputClosed, .addressNotAvailable, .invalidRemote, .portInUse, .portsExhausted, .tooManyConnections,
            .tooManySockets:
            self = .unavailable("\(error)")
        }
    }
}
