import Inet
import Logging
import NIOCore
import Noise
import TCPStack
import WGUserspace

/// The loop's side of connections and listeners.
extension InterfaceLoop {
    func connect(
        port: ConnectionPort, to remote: SocketEndpoint, from source: IPAddress?, options: ConnectionOptions
    ) -> Result<ConnectionID, TunnelError> {
        guard !isClosed else { return .failure(.interfaceClosed) }
        guard let source = source ?? sourceAddress(for: remote.address) else { return .failure(.noSourceAddress) }
        defer { scheduleTurn() }
        do {
            let id = try core.stack.connect(from: source, to: remote, options: options, now: SystemEdges.now)
            register(port, for: id)
            return .success(id)
        } catch { return .failure(.unavailable("\(error)")) }
    }

    private func sourceAddress(for remote: IPAddress) -> IPAddress? { InterfaceAddress.source(for: remote, among: addresses) }

    func listen(
        address: IPAddress?, port: UInt16, backlog: Int, options: ConnectionOptions, accept: @escaping AcceptHandler
    ) throws -> ListenerID {
        guard !isClosed else { throw TunnelError.interfaceClosed }
        let id = try core.stack.listen(address: address, port: port, backlog: backlog, options: options)
        listeners[id] = accept
        return id
    }

    func closeListener(_ id: ListenerID) {
        guard listeners.removeValue(forKey: id) != nil else { return }
        core.stack.closeListener(id, now: SystemEdges.now)
        scheduleTurn()
    }

    func register(_ port: ConnectionPort, for id: ConnectionID) {
        let index = Int(id.index)
        while ports.count <= index { ports.append(nil) }
        ports[index] = port
    }

    func forget(_ id: ConnectionID, port: ConnectionPort) {
        let index = Int(id.index)
        if ports.indices.contains(index), ports[index] === port { ports[index] = nil }
    }

    func port(for id: ConnectionID) -> ConnectionPort? {
        let index = Int(id.index)
        guard ports.indices.contains(index), let port = ports[index], port.id == id else { return nil }
        return port
    }

    func queueForRead(_ port: any QueuedPort) {
        guard !port.isQueuedForRead else { return }
        port.isQueuedForRead = true
        readQueue.append(port)
        scheduleTurn()
    }

    /// - Returns: how many bytes the send buffer took.
    func write(_ buffer: ByteBuffer, to id: ConnectionID) -> Int {
        defer { scheduleTurn() }
        return buffer.withUnsafeReadableBytes { bytes in
            (try? core.stack.write(id, RawSpan(_unsafeBytes: bytes), now: SystemEdges.now)) ?? 0
        }
    }

    /// The in-order bytes that there are, at most `maximumRead`; `nil` if none.
    func read(_ id: ConnectionID) -> ByteBuffer? {
        let available = min(core.stack.readableBytes(id), Self.maximumRead)
        guard available > 0 else { return nil }
        var buffer = ByteBufferAllocator().buffer(capacity: available)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: available) { bytes in
            var span = MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: bytes[..<available]))
            return (try? core.stack.read(id, into: &span, now: SystemEdges.now)) ?? 0
        }
        if core.stack.readableBytes(id) > 0, let port = port(for: id) { queueForRead(port) }
        return buffer.readableBytes > 0 ? buffer : nil
    }

    func closeWrite(_ id: ConnectionID) { withCore { $0.stack.closeWrite(id, now: $1) } }
    func close(_ id: ConnectionID) { withCore { $0.stack.close(id, now: $1) } }
    func abort(_ id: ConnectionID) { withCore { $0.stack.abort(id, now: $1) } }

    func hasSocket(for family: IPAddress.Family) -> Bool { sockets.has(family) }

    /// One channel read: large enough to amortise the pipeline, small enough to keep a turn short.
    private static let maximumRead = 256 * 1024
}
