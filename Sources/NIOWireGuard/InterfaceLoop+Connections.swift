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
        let now = SystemEdges.now
        return buffer.withUnsafeReadableBytesWithStorageManagement { bytes, storage in
            // The rest of the buffer's memory is held with them.
            guard bytes.count >= Self.worthSharing, bytes.count >= buffer.storageCapacity / 2 else {
                return (try? core.stack.write(id, RawSpan(_unsafeBytes: bytes), now: now)) ?? 0
            }
            // Whoever writes to the buffer from here on gets a copy, since its storage has another owner.
            let shared = SharedBytes(bytes, owner: storage.takeUnretainedValue())
            return (try? core.stack.write(id, shared: shared, now: now)) ?? 0
        }
    }

    func hasText(_ id: ConnectionID) -> Bool { core.stack.readableBytes(id) > 0 }

    /// The next in-order bytes; `nil` if there are none.
    func read(_ id: ConnectionID) -> ByteBuffer? {
        let (now, available) = (SystemEdges.now, core.stack.readableBytes(id))
        guard available > 0 else { return nil }
        // A few bytes must not keep much memory: handlers count what they hold by its bytes.
        if available <= Self.worthTaking {
            var buffer = ByteBufferAllocator().buffer(capacity: available)
            buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: available) { bytes in
                var span = MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: bytes[..<available]))
                return (try? core.stack.read(id, into: &span, now: now)) ?? 0
            }
            return buffer
        }
        guard var block = try? core.stack.take(id, now: now) else { return nil }
        if core.stack.readableBytes(id) > 0, let port = port(for: id) { queueForRead(port) }
        return block.filled.count < block.capacity / 4 ? Self.copy(&block) : ByteBufferBlocks.buffer(of: block)
    }

    private static func copy(_ block: inout TextBlock) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: block.filled.count)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: block.filled.count) { bytes in
            var span = MutableRawSpan(_unsafeBytes: bytes)
            return block.read(into: &span)
        }
        return buffer
    }

    func closeWrite(_ id: ConnectionID) { withCore { $0.stack.closeWrite(id, now: $1) } }
    func close(_ id: ConnectionID) { withCore { $0.stack.close(id, now: $1) } }
    func abort(_ id: ConnectionID) { withCore { $0.stack.abort(id, now: $1) } }
    func abortOnceAcknowledged(_ id: ConnectionID) { withCore { $0.stack.abortOnceAcknowledged(id, now: $1) } }
    func unacknowledgedBytes(_ id: ConnectionID) -> Int { core.stack.unacknowledgedBytes(id) }

    func hasSocket(for family: IPAddress.Family) -> Bool { sockets.has(family) }

    /// Fewer bytes are copied: that is cheaper than to keep their owner.
    private static let worthSharing = 4096
    /// A quarter of the smallest block.
    private static let worthTaking = 512
}
