import Logging
import NIOCore
import NIOPosix
import Synchronization

/// A small file of the state directory whose changes are written together: when the first of them is due, and once more at the end.
/// A write that fails is tried again. Each write replaces the whole file in one step, mode 0600, and never happens on an event loop.
final class PeerStateFile: Sendable {
    private struct State {
        var isDirty = false
        /// When the next write is due; `nil` if none is scheduled.
        var due: NIODeadline?
        var hasFailed = false
    }

    private let path: String
    /// What the warning says if it cannot be written.
    private let failure: Logger.Message
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let state = Mutex(State())
    /// One write at a time, and the later one has the later content.
    private let writing = Mutex(())

    init(path: String, failure: Logger.Message, eventLoop: any EventLoop, logger: Logger) {
        self.path = path
        self.failure = failure
        self.eventLoop = eventLoop
        self.logger = logger
    }

    /// Something changed. `content` is asked when it is written. From any thread.
    func change(writingIn delay: TimeAmount, _ content: @escaping @Sendable () -> [UInt8]) {
        state.withLock { $0.isDirty = true }
        schedule(in: delay, content)
    }

    /// Writes if something changed since the last time. Blocks: not on an event loop.
    func save(_ content: @escaping @Sendable () -> [UInt8]) {
        writing.withLock { _ in
            let isDirty = state.withLock { state in
                defer { state.isDirty = false }
                return state.isDirty
            }
            guard isDirty else { return }
            do {
                try SystemFiles.replace(path, content())
                state.withLock { $0.hasFailed = false }
            } catch {
                let isFirst = state.withLock { state in
                    state.isDirty = true
                    defer { state.hasFailed = true }
                    return !state.hasFailed
                }
                // Once is enough for the log; the tries go on.
                logger.log(level: isFirst ? .warning : .debug, failure, metadata: ["error": "\(error)"])
                schedule(in: Self.pause, content)
            }
        }
    }

    /// A write that is due earlier does for a later one.
    private func schedule(in delay: TimeAmount, _ content: @escaping @Sendable () -> [UInt8]) {
        let due = NIODeadline.now() + delay
        let mustSchedule = state.withLock { state in
            if let scheduled = state.due, scheduled <= due { return false }
            state.due = due
            return true
        }
        guard mustSchedule else { return }
        eventLoop.scheduleTask(deadline: due) {
            self.state.withLock { if $0.due == due { $0.due = nil } }
            NIOThreadPool.singleton.submit { _ in self.save(content) }
        }
    }

    private static let pause = TimeAmount.seconds(5)
}
