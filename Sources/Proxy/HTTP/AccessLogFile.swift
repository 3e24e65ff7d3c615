import Glibc
import Logging
import NIOCore
import NIOPosix
import Synchronization

/// The access log: a line for each request, to a file or standard output. Whoever writes a record waits for nothing: it goes into a
/// bounded queue, which a thread of its own empties twenty times a second; what finds no room is dropped and counted.
/// Thread-safe.
package final class AccessLogFile: Sendable {
    /// Records that wait.
    package static let maximumRecords = 4096
    /// About the bytes that they take.
    package static let maximumBytes = 1 << 20
    static let interval = TimeAmount.milliseconds(50)

    package struct Counters: Sendable, Equatable {
        package var written: UInt64 = 0
        package var dropped: UInt64 = 0
        package var writeErrors: UInt64 = 0

        package init(written: UInt64 = 0, dropped: UInt64 = 0, writeErrors: UInt64 = 0) {
            self.written = written
            self.dropped = dropped
            self.writeErrors = writeErrors
        }
    }

    private struct Queue {
        var records: [RequestRecord] = []
        var bytes = 0
        /// Since the last line.
        var dropped: UInt64 = 0
        var isScheduled = false
        var isUrgent = false
        var isReopening = false
        var isClosed = false
        var counters = Counters()
    }

    /// `nil` is standard output.
    private let path: String?
    private let queue = Mutex(Queue())
    private let output: Mutex<Output>
    private let thread = NIOThreadPool(numberOfThreads: 1)
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let budget = LogBudget()

    /// - Parameters:
    ///   - path: of the file, which is appended to, or made with mode 0640; `-` is standard output.
    ///   - eventLoop: of its timer.
    /// - Throws: `CommandFailure` if the file cannot be opened.
    package init(path: String, eventLoop: any EventLoop, logger: Logger) throws {
        self.path = path == "-" ? nil : path
        self.eventLoop = eventLoop
        self.logger = logger
        var descriptor = STDOUT_FILENO
        if path != "-" {
            descriptor = Self.open(path)
            guard descriptor >= 0 else {
                throw CommandFailure("the access log \(FileError(path: path, problem: .system(.writing, errno)))")
            }
        }
        output = Mutex(Output(descriptor: descriptor))
        thread.start()
    }

    deinit {
        if path != nil { output.withLock { _ = Glibc.close($0.descriptor) } }
    }

    package var counters: Counters { queue.withLock { $0.counters } }

    package func write(_ record: RequestRecord) {
        let size = record.size
        let next = queue.withLock { queue -> Next in
            guard !queue.isClosed, queue.records.count < Self.maximumRecords, queue.bytes + size <= Self.maximumBytes else {
                queue.dropped &+= 1
                queue.counters.dropped &+= 1
                return .nothing
            }
            queue.records.append(record)
            queue.bytes += size
            if !queue.isUrgent, queue.records.count > Self.maximumRecords / 2 || queue.bytes > Self.maximumBytes / 2 {
                queue.isUrgent = true
                return .drain
            }
            guard !queue.isScheduled else { return .nothing }
            queue.isScheduled = true
            return .wait
        }
        switch next {
        case .nothing: break
        case .wait: eventLoop.scheduleTask(in: Self.interval) { self.submitDrain() }
        case .drain: submitDrain()
        }
    }

    /// Closes the file and opens it by its name, which may be another one now. Records that wait go to the new one.
    package func reopen() {
        guard path != nil else { return }
        queue.withLock { $0.isReopening = true }
        submitDrain()
    }

    /// Writes what waits. Gives up after `limit`: a disk may hang.
    package func flush(within limit: TimeAmount) async {
        let promise = eventLoop.makePromise(of: Void.self)
        let isDone = Atomic(false)
        @Sendable func done() { if !isDone.exchange(true, ordering: .relaxed) { promise.succeed() } }
        thread.submit { state in
            if state == .active { self.drain() }
            done()
        }
        let timeout = eventLoop.scheduleTask(in: limit) { done() }
        try? await promise.futureResult.get()
        timeout.cancel()
    }

    /// Writes what waits, and takes nothing more.
    package func close(within limit: TimeAmount) async {
        queue.withLock { $0.isClosed = true }
        await flush(within: limit)
        thread.shutdownGracefully { _ in }
    }

    // MARK: The thread

    /// A pool that is shut down calls on the thread that submits, which may be a loop's.
    private func submitDrain() {
        thread.submit { state in if state == .active { self.drain() } }
    }

    private func drain() {
        let (records, dropped, isReopening) = queue.withLock { queue in
            let taken = (queue.records, queue.dropped, queue.isReopening)
            queue.records = []
            queue.records.reserveCapacity(taken.0.count)
            (queue.bytes, queue.dropped) = (0, 0)
            (queue.isScheduled, queue.isUrgent, queue.isReopening) = (false, false, false)
            return taken
        }
        let (written, error) = output.withLock { output in
            if isReopening { reopen(&output) }
            return output.write(records, dropped: dropped)
        }
        queue.withLock { queue in
            queue.counters.written &+= UInt64(written)
            guard error != nil else { return }
            let lost = UInt64(records.count - written)
            queue.counters.writeErrors &+= 1
            queue.counters.dropped &+= lost
            queue.dropped &+= lost + (written == 0 ? dropped : 0)
        }
        if let error { complain("The access log cannot be written", error) }
    }

    private func reopen(_ output: inout Output) {
        guard let path else { return }
        let descriptor = Self.open(path)
        guard descriptor >= 0 else { return complain("The access log cannot be opened again; the old file is written on", errno) }
        _ = Glibc.close(output.descriptor)
        output = Output(descriptor: descriptor)
    }

    private func complain(_ message: Logger.Message, _ error: CInt) {
        guard case .write(let omitted) = budget.take(.accessLog, now: .now()) else { return }
        var metadata: Logger.Metadata = ["file": "\(LogText.escape(path ?? "-"))", "error": "\(systemMessage(error))"]
        if omitted > 0 { metadata["omitted"] = .stringConvertible(omitted) }
        logger.error(message, metadata: metadata)
    }

    private static func open(_ path: String) -> CInt {
        // A pipe that nobody reads is an error, not a wait.
        let flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK
        var descriptor = Glibc.open(path, flags | O_EXCL, 0o600)
        if descriptor >= 0 {
            // Whatever the process's mask: the group may read it.
            _ = fchmod(descriptor, 0o640)
        } else {
            descriptor = Glibc.open(path, flags, 0o640)
        }
        if descriptor >= 0 { _ = fcntl(descriptor, F_SETFL, O_APPEND) }
        return descriptor
    }

    private enum Next { case nothing, wait, drain }

    private struct Output {
        let descriptor: CInt
        /// Bytes from which a piece is written: little enough to standard output that a pipe takes it as one, between other lines.
        private let piece: Int
        /// What was written last has no line end.
        private var isTorn = false
        private var writer = RequestRecordWriter()

        init(descriptor: CInt) {
            self.descriptor = descriptor
            piece = descriptor == STDOUT_FILENO ? 3 * 1024 : 64 * 1024
        }

        /// In pieces of whole lines.
        /// - Returns: how many were written, and the error that ended it.
        mutating func write(_ records: [RequestRecord], dropped: UInt64) -> (written: Int, error: CInt?) {
            var (written, waiting) = (0, 0)
            var dropped = dropped
            for record in records {
                if isTorn, writer.bytes.isEmpty { writer.endLine() }
                writer.append(record, dropped: dropped)
                dropped = 0
                waiting += 1
                guard writer.bytes.count >= piece else { continue }
                if let error = writePiece() { return (written, error) }
                written += waiting
                waiting = 0
            }
            if let error = writePiece() { return (written, error) }
            return (written + waiting, nil)
        }

        private mutating func writePiece() -> CInt? {
            defer { writer.removeAll() }
            var offset = 0
            while offset < writer.bytes.count {
                let count = writer.bytes.withUnsafeBytes {
                    Glibc.write(descriptor, $0.baseAddress.map { $0 + offset }, $0.count - offset)
                }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return errno }
                offset += count
                isTorn = writer.bytes[offset - 1] != UInt8(ascii: "\n")
            }
            return nil
        }
    }
}
