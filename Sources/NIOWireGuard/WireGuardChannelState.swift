import NIOCore

/// What a `WireGuardChannel` may do now, and the writes that the stack has not taken.
///
/// ```
///   created ─register─► registered ─connect─► connecting ─activate─► active(input, output) ─close─► closed
///                                                    └───────────────close──────────────────────────►┘
/// ```
/// It holds no sockets and fires nothing: it answers what to do.
struct WireGuardChannelState {
    private enum Lifecycle {
        case created
        case registered
        case connecting
        case active(isInputOpen: Bool, output: Output)
        case closed
    }

    private enum Output { case open, draining, closed }

    private struct PendingWrite {
        var remaining: Int
        let promise: EventLoopPromise<Void>?
    }

    private var lifecycle = Lifecycle.created
    private var isOutputCloseRequested = false
    /// Written, not yet handed to the interface.
    private var unflushed = MarkedCircularBuffer<ByteBuffer>(initialCapacity: 2)
    /// One for each write, in order, until the stack has taken its last byte.
    private var pending = CircularBuffer<PendingWrite>(initialCapacity: 2)
    /// Bytes written that the stack has not taken.
    private(set) var bufferedBytes = 0
    /// Of `pending`.
    private var promises = 0

    var isOpen: Bool { if case .closed = lifecycle { false } else { true } }
    var isActive: Bool { if case .active = lifecycle { true } else { false } }
    var canRead: Bool { if case .active(isInputOpen: true, _) = lifecycle { true } else { false } }

    /// Writes before the connection is up are queued.
    var canWrite: Bool {
        switch lifecycle {
        case .created, .registered, .connecting: !isOutputCloseRequested
        case .active(_, output: .open): true
        case .active(_, output: .draining), .active(_, output: .closed), .closed: false
        }
    }

    mutating func register() {
        switch lifecycle {
        case .created: lifecycle = .registered
        case .registered, .connecting, .active, .closed: preconditionFailure("registered twice")
        }
    }

    /// - Returns: whether the channel may dial now.
    mutating func connect() -> Bool {
        switch lifecycle {
        case .registered:
            lifecycle = .connecting
            return true
        case .created, .connecting, .active, .closed: return false
        }
    }

    mutating func activate() -> Bool {
        switch lifecycle {
        case .connecting:
            lifecycle = .active(isInputOpen: true, output: isOutputCloseRequested ? .draining : .open)
            return true
        case .created, .registered, .active, .closed: return false
        }
    }

    mutating func closeInput() -> Bool {
        switch lifecycle {
        case .active(isInputOpen: true, let output):
            lifecycle = .active(isInputOpen: false, output: output)
            return true
        case .created, .registered, .connecting, .active, .closed: return false
        }
    }

    /// What is queued is still sent; nothing more is taken.
    mutating func closeOutput() -> Bool {
        switch lifecycle {
        case .created, .registered, .connecting:
            defer { isOutputCloseRequested = true }
            return !isOutputCloseRequested
        case .active(let isInputOpen, output: .open):
            lifecycle = .active(isInputOpen: isInputOpen, output: .draining)
            return true
        case .active(_, output: .draining), .active(_, output: .closed), .closed: return false
        }
    }

    /// - Returns: whether everything queued has gone to the interface and the FIN must follow it now.
    mutating func takeOutputClose() -> Bool {
        guard case .active(let isInputOpen, output: .draining) = lifecycle else { return false }
        lifecycle = .active(isInputOpen: isInputOpen, output: .closed)
        return true
    }

    mutating func close() -> Bool {
        guard isOpen else { return false }
        lifecycle = .closed
        return true
    }

    mutating func append(_ buffer: ByteBuffer, promise: EventLoopPromise<Void>?) {
        bufferedBytes += buffer.readableBytes
        unflushed.append(buffer)
        pending.append(PendingWrite(remaining: buffer.readableBytes, promise: promise))
        if promise != nil { promises += 1 }
    }

    /// Somebody waits until the stack has taken what was written.
    var hasPromises: Bool { promises > 0 }

    /// A half-close flushes everything that was written.
    mutating func markFlush() { unflushed.mark() }

    var hasFlushed: Bool { unflushed.hasMark }

    mutating func takeFlushed() -> [ByteBuffer] {
        var buffers: [ByteBuffer] = []
        while unflushed.hasMark, let buffer = unflushed.popFirst() {
            if buffer.readableBytes > 0 { buffers.append(buffer) }
        }
        return buffers
    }

    /// The stack took `bytes` more.
    /// - Returns: the promises of the writes that are complete.
    mutating func accept(_ bytes: Int) -> [EventLoopPromise<Void>] {
        bufferedBytes -= bytes
        var left = bytes
        var done: [EventLoopPromise<Void>] = []
        let waitingForFlush = unflushed.count
        while pending.count > waitingForFlush, let first = pending.first, first.remaining <= left {
            left -= first.remaining
            if let promise = first.promise {
                done.append(promise)
                promises -= 1
            }
            pending.removeFirst()
        }
        if left > 0, !pending.isEmpty { pending[pending.startIndex].remaining -= left }
        return done
    }

    mutating func removeAllPromises() -> [EventLoopPromise<Void>] {
        defer {
            pending.removeAll()
            unflushed = MarkedCircularBuffer(initialCapacity: 0)
            bufferedBytes = 0
            promises = 0
        }
        return pending.compactMap { $0.promise }
    }
}
