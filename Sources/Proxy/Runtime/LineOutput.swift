import Dispatch
import Glibc
import Synchronization

/// Whole lines to one descriptor, one at a time.
///
/// In a service nobody waits for the reader: a line is written at once if there is room for it, else it goes into a bounded queue that a
/// thread of its own empties; what finds no room there is dropped and counted. So a pager, a terminal that was stopped or a log driver
/// that hangs stops no service. Thread-safe.
package final class LineOutput: Sendable {
    private struct State {
        /// What the thread has not taken yet.
        var waiting: [UInt8] = []
        var isDraining = false
        var dropped: UInt64 = 0
    }

    private let descriptor: CInt
    private let droppedLine: (@Sendable (UInt64) -> String)?
    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "log")

    /// - Parameter droppedLine: what is written for so many lines that were dropped; nil waits for the reader instead.
    package init(descriptor: CInt, droppedLine: (@Sendable (UInt64) -> String)? = nil) {
        self.descriptor = descriptor
        self.droppedLine = droppedLine
    }

    package func write(_ line: String) {
        let bytes = Array(line.utf8)
        state.withLock { state in
            var rest = bytes[...]
            if !state.isDraining {
                while !rest.isEmpty, droppedLine == nil || Self.hasRoom(descriptor) {
                    // A log that cannot be written must not stop the service either.
                    guard let count = Self.write(rest.prefix(Self.atomicLength), to: descriptor) else { return }
                    rest = rest.dropFirst(count)
                }
            }
            guard !rest.isEmpty else { return }
            // Of a line that has begun the rest is kept in any case.
            guard state.waiting.count + rest.count <= Self.maximumWaiting || rest.count < bytes.count else {
                state.dropped &+= 1
                return
            }
            state.waiting += rest
            guard !state.isDraining else { return }
            state.isDraining = true
            queue.async { self.drain() }
        }
    }

    /// Waits at most so long for what the thread has in hand.
    func flush(within limit: DispatchTimeInterval) {
        let done = DispatchSemaphore(value: 0)
        queue.async { done.signal() }
        _ = done.wait(timeout: .now() + limit)
    }

    /// When the process ends by itself, the last lines still get up to two seconds. To be called once in a process.
    func flushAtExit() {
        Self.last.withLock { $0 = self }
        atexit { LineOutput.last.withLock { $0 }?.flush(within: .seconds(2)) }
    }

    private func drain() {
        while true {
            let bytes = state.withLock { state -> [UInt8] in
                if state.dropped > 0, state.waiting.isEmpty, let droppedLine {
                    state.waiting = Array(droppedLine(state.dropped).utf8)
                    state.dropped = 0
                }
                let taken = state.waiting
                state.waiting = []
                state.isDraining = !taken.isEmpty
                return taken
            }
            guard !bytes.isEmpty else { return }
            var rest = bytes[...]
            while !rest.isEmpty, let count = Self.write(rest, to: descriptor) { rest = rest.dropFirst(count) }
        }
    }

    /// - Returns: nil if it cannot be written.
    private static func write(_ bytes: ArraySlice<UInt8>, to descriptor: CInt) -> Int? {
        while true {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 { return count }
            if count < 0 && errno == EAGAIN {
                var wanted = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = poll(&wanted, 1, -1)
            } else if count == 0 || errno != EINTR {
                return nil
            }
        }
    }

    /// Whether `atomicLength` bytes can be written without a wait: pipe(7), poll(2).
    private static func hasRoom(_ descriptor: CInt) -> Bool {
        var wanted = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        return poll(&wanted, 1, 0) > 0
    }

    private static let last = Mutex<LineOutput?>(nil)
    /// PIPE_BUF: a pipe says that it is writable when it has room for so many bytes.
    private static let atomicLength = 4096
    /// Bytes that wait for a slow reader.
    static let maximumWaiting = 1 << 20
}
