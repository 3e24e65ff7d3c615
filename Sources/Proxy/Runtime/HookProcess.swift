import Glibc
import Inet
import NIOConcurrencyHelpers
import NIOPosix
import NIOWireGuard

/// Runs a program of the operator's to its end: no shell, only the environment that is given, no descriptor of ours, a group of
/// its own, a limit in time.
///
/// What is left of its group when it ends, or when the limit is over, is killed. The calling task waits; the work is done on a
/// thread of its own, so that neither an event loop nor the pool of tasks does.
package struct HookProcess: Sendable {
    package struct Output: Equatable, Sendable {
        /// The beginning of standard output and standard error, mixed as they were written.
        package var bytes: [UInt8]
        package var text: String { LogText.escape(HookProcess.trimmed(bytes), limit: HookProcess.maximumOutput) }
    }

    /// - Parameters:
    ///   - path: the program, found without PATH.
    ///   - arguments: without the program's name.
    ///   - environment: all of it.
    ///   - input: its standard input; nil is an empty one.
    ///   - limit: when it is over, the whole group is killed. The same happens when the task is cancelled.
    /// - Throws: unless it ends with status 0.
    package static func run(
        path: String, arguments: [String], environment: [String: String], input: [UInt8]?, limit: Duration
    ) async throws(HookFault) -> Output {
        let isCancelled = NIOLockedValueBox(false)
        let thread = NIOThreadPool(numberOfThreads: 1)
        thread.start()
        let result = await withTaskCancellationHandler {
            do {
                return try await thread.runIfActive {
                    Result { () throws(HookFault) -> Output in
                        try HookProcess(path: path, arguments: arguments, environment: environment, limit: limit, isCancelled: isCancelled)
                            .run(input)
                    }
                }
            } catch {
                // The thread looks for cancellation, too, before it begins.
                let problem = isCancelled.withLockedValue { $0 } ? HookFault.Problem.cancelled : .notStarted("\(error)")
                return .failure(HookFault(path: path, problem: problem, output: ""))
            }
        } onCancel: {
            isCancelled.withLockedValue { $0 = true }
        }
        thread.shutdownGracefully { _ in }
        return try result.get()
    }

    private let path: String
    private let arguments: [String]
    private let environment: [String: String]
    private let limit: Duration
    private let isCancelled: NIOLockedValueBox<Bool>

    private func run(_ input: [UInt8]?) throws(HookFault) -> Output {
        guard !isCancelled.withLockedValue({ $0 }) else { throw fault(.cancelled, []) }
        // A program that does not read its input must not end ours. The thread, and its mask, go with this run.
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        let started: (process: pid_t, input: CInt, output: CInt)
        do throws(SystemError) {
            started = try start()
        } catch {
            throw fault(.notStarted(systemMessage(error.code)), [])
        }
        defer { close(started.output) }
        return try follow(started.process, writing: input ?? [], to: started.input, reading: started.output)
    }

    private func start() throws(SystemError) -> (process: pid_t, input: CInt, output: CInt) {
        var (input, output): ([CInt], [CInt]) = ([-1, -1], [-1, -1])
        guard pipe(&input) == 0 else { throw SystemError(code: errno) }
        guard pipe(&output) == 0 else {
            let code = errno
            for descriptor in input { close(descriptor) }
            throw SystemError(code: code)
        }
        for descriptor in input + output { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        let (process, code) = spawn(input[0], output[1])
        close(input[0])
        close(output[1])
        guard code == 0 else {
            close(input[1])
            close(output[0])
            throw SystemError(code: code)
        }
        _ = fcntl(input[1], F_SETFL, O_NONBLOCK)
        _ = fcntl(output[0], F_SETFL, O_NONBLOCK)
        return (process, input[1], output[0])
    }

    /// posix_spawn(3): signals as at the start of a program, descriptors 0 to 2 alone.
    private func spawn(_ input: CInt, _ output: CInt) -> (process: pid_t, code: CInt) {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, output, 2)
        _ = addCloseFrom(&actions, 3)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var process: pid_t = 0
        let words = ([path] + arguments).map { strdup($0) } + [nil]
        let variables = environment.sorted { $0.key < $1.key }.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for text in words + variables { free(text) } }
        let code = posix_spawn(&process, path, &actions, &attributes, words, variables)
        return (process, code)
    }

    /// Reads until the program has ended. It is reaped only after its group was killed, so that its number is nobody else's then.
    private func follow(_ process: pid_t, writing input: [UInt8], to sink: CInt, reading output: CInt) throws(HookFault) -> Output {
        let deadline = SystemEdges.now + limit
        var collected: [UInt8] = []
        var rest = input[...]
        var (isReading, isWriting) = (true, true)
        var ended = false
        var isOurs = true
        var problem: HookFault.Problem?
        while !ended {
            if isWriting {
                isWriting = !rest.isEmpty && feed(sink, &rest)
                if !isWriting { close(sink) }
            }
            var status = siginfo_t()
            // When it fails somebody else has reaped the program, and the number may be another's.
            isOurs = waitid(P_PID, id_t(process), &status, WEXITED | WNOHANG | WNOWAIT) == 0
            ended = !isOurs || status.si_signo != 0
            if !ended {
                if SystemEdges.now >= deadline { problem = .timedOut(limit) }
                if isCancelled.withLockedValue({ $0 }) { problem = .cancelled }
                if problem != nil { break }
                // A descriptor below zero is not watched: what remains is the pause.
                var watched = [
                    pollfd(fd: isReading ? output : -1, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: isWriting ? sink : -1, events: Int16(POLLOUT), revents: 0),
                ]
                poll(&watched, 2, Self.pause)
            }
            if isReading { isReading = drain(output, &collected) }
        }
        if isWriting { close(sink) }
        if isOurs {
            kill(-process, SIGKILL)
            // It may have gone into a group of its own.
            kill(process, SIGKILL)
        }
        var status: CInt = 0
        var reaped = waitpid(process, &status, 0)
        while reaped < 0, errno == EINTR { reaped = waitpid(process, &status, 0) }
        if isOurs { Self.reapGroup(process) }
        if isReading { _ = drain(output, &collected) }
        if let problem { throw fault(problem, collected) }
        // Whoever started us may have had the system throw such statuses away.
        guard reaped == process else { throw fault(.notStarted("its status is not known"), collected) }
        // WIFEXITED and its like are macros that Swift does not see.
        guard status & 0x7F == 0 else { throw fault(.killed(signal: status & 0x7F), collected) }
        guard status >> 8 & 0xFF == 0 else { throw fault(.failed(status: status >> 8 & 0xFF), collected) }
        return Output(bytes: collected)
    }

    /// What the program leaves behind becomes ours when we are the first process, as in a container.
    private static func reapGroup(_ group: pid_t) {
        for _ in 0..<maximumReaped {
            let reaped = waitpid(-group, nil, WNOHANG)
            if reaped < 0 { return }
            if reaped == 0 { poll(nil, 0, 1) }
        }
    }

    /// Writes what fits now. False: the program does not read any more.
    private func feed(_ descriptor: CInt, _ rest: inout ArraySlice<UInt8>) -> Bool {
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 { return errno == EAGAIN || errno == EINTR }
            rest = rest.dropFirst(count)
        }
        return true
    }

    /// What is there now. False: nothing comes any more.
    private func drain(_ descriptor: CInt, _ collected: inout [UInt8]) -> Bool {
        var chunk = [UInt8](repeating: 0, count: 4_096)
        // One that writes without end must not keep us from looking at the clock.
        for _ in 0..<64 {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0 { return errno == EAGAIN || errno == EINTR }
            if count == 0 { return false }
            collected += chunk[..<min(count, max(0, Self.maximumOutput - collected.count))]
        }
        return true
    }

    private func fault(_ problem: HookFault.Problem, _ output: [UInt8]) -> HookFault {
        HookFault(path: path, problem: problem, output: LogText.escape(Self.trimmed(output), limit: Self.maximumOutput))
    }

    static func trimmed(_ bytes: [UInt8]) -> String { KeyFiles.trimmed(String(decoding: bytes, as: UTF8.self)) }

    /// Of the program's output; the rest is read and forgotten.
    package static let maximumOutput = 4_096
    /// Milliseconds between looks at the clock.
    private static let pause: CInt = 20
    /// Of those who are killed with the program and end a moment later.
    private static let maximumReaped = 64

    private struct SystemError: Error { var code: CInt }
}

/// Closes this descriptor and all above it, whoever opened them: those that came from whoever started us, and those of a thread
/// that is about to start a program of its own. Glibc 2.34; Swift does not see it, for its header wants `_GNU_SOURCE`. Two words in
/// and one out are passed alike in Swift and C.
@_silgen_name("posix_spawn_file_actions_addclosefrom_np")
private func addCloseFrom(_ actions: UnsafeMutablePointer<posix_spawn_file_actions_t>, _ first: CInt) -> CInt

/// Why a program of the operator's did not do its work.
package struct HookFault: Error, Equatable, CustomStringConvertible {
    package enum Problem: Equatable, Sendable {
        case notStarted(String)
        case failed(status: CInt)
        case killed(signal: CInt)
        case timedOut(Duration)
        case cancelled
    }

    package var path: String
    package var problem: Problem
    /// What it wrote, escaped and cut.
    package var output: String

    package var description: String {
        let what =
            switch problem {
            case .notStarted(let reason): "cannot be run: \(LogText.escape(reason))"
            case .failed(let status): "ended with status \(status)"
            case .killed(let signal): "was killed by signal \(signal)"
            case .timedOut(let limit): "was killed: it did not end within \(limit)"
            case .cancelled: "was killed: the work was cancelled"
            }
        return "\(LogText.escape(path)) \(what)\(output.isEmpty ? "" : ": \(output)")"
    }
}
