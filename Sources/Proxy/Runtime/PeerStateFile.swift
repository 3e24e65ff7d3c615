import Logging
import NIOCore
import NIOPosix
import Synchronization

/// A small file of the state directory whose changes are written together: some time after the first of them, and once more at the
/// end. Each write replaces the whole file in one step, mode 0600, and never happens on an event loop.
final class PeerStateFile: Sendable {
    private struct State {
        var isDirty = false
        var isScheduled = false
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
        let mustSchedule = state.withLock { state in
            state.isDirty = true
            defer { state.isScheduled = true }
            return !state.isScheduled
        }
        guard mustSchedule else { return }
        eventLoop.scheduleTask(in: delay) {
            self.state.withLock { $0.isScheduled = false }
            NIOThreadPool.singleton.submit { _ in self.save(content) }
        }
    }

    /// Writes if something changed since the last time. Blocks: not on an event loop.
    func save(_ content: () -> [UInt8]) {
        writing.withLock { _ in
            let isDirty = state.withLock { state in
                defer { state.isDirty = false }
                return state.isDirty
            }
            guard isDirty else { return }
            do {
                try SystemFiles.replace(path, content())
            } catch {
                logger.warning(failure, metadata: ["error": "\(error)"])
            }
        }
    }
}
