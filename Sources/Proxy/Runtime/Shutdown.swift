import Dispatch
import Glibc
import Synchronization

/// The signals to the process: the first SIGTERM or SIGINT is waited for here and starts the orderly way out, the second ends the
/// process at once. SIGHUP asks for the configuration to be read again, where there is one.
final class ShutdownSignals: Sendable {
    private let sources: Mutex<[any DispatchSourceSignal]>
    private let requests: ProcessRequests

    /// From here on the signals no longer end the process by themselves.
    /// - Parameter reloads: whether SIGHUP is one of them.
    init(reloads: Bool = false) {
        let requests = ProcessRequests()
        self.requests = requests
        let terminations = SignalCounter()
        let numbers = [SIGTERM, SIGINT] + (reloads ? [SIGHUP] : [])
        sources = Mutex(
            numbers.map { number in
                signal(number, SIG_IGN)
                let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
                source.setEventHandler {
                    if number == SIGHUP {
                        requests.add(.reload)
                    } else if terminations.isFirst() {
                        requests.add(.end)
                    } else {
                        _exit(128 + number)
                    }
                }
                source.resume()
                return source
            })
    }

    /// Returns at the first signal to end, whatever runs. Until then `body` runs again and again, `interval` apart, and `reload` at each
    /// SIGHUP; one that comes while it runs lets it run once more.
    func wait(
        whileEvery interval: Duration? = nil, _ body: @escaping @Sendable () async -> Void = {},
        reload: @escaping @Sendable () async -> Void = {}
    ) async {
        let timer = interval.map { interval in
            let timer = DispatchSource.makeTimerSource(queue: .global())
            let nanoseconds = Int(clamping: interval.components.seconds &* 1_000_000_000)
            timer.schedule(deadline: .now() + .nanoseconds(nanoseconds), repeating: .nanoseconds(nanoseconds), leeway: .seconds(1))
            let requests = requests
            timer.setEventHandler { requests.add(.tick) }
            timer.resume()
            return timer
        }
        defer { timer?.cancel() }
        await requests.serve(tick: body, reload: reload)
    }
}

/// What signals and timers have asked for since somebody looked, each thing once.
package final class ProcessRequests: Sendable {
    package struct Kinds: OptionSet, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        package static let end = Kinds(rawValue: 1)
        package static let reload = Kinds(rawValue: 2)
        package static let tick = Kinds(rawValue: 4)
        /// What was done for the others is over.
        fileprivate static let done = Kinds(rawValue: 8)
    }

    private let events: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation
    private let pending = Mutex(Kinds())

    package init() { (events, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1)) }

    /// From any thread.
    package func add(_ kind: Kinds) {
        pending.withLock { _ = $0.insert(kind) }
        continuation.yield()
    }

    /// Does what is asked for, one thing at a time, until the end is asked for. What runs then is cancelled and not waited for: a file
    /// that does not answer must not keep the process.
    package func serve(tick: @escaping @Sendable () async -> Void, reload: @escaping @Sendable () async -> Void) async {
        var waiting = Kinds()
        var work: Task<Void, Never>?
        defer { work?.cancel() }
        for await _ in events {
            let asked = take()
            if asked.contains(.end) { return }
            if asked.contains(.done) { work = nil }
            waiting.formUnion(asked.intersection([.tick, .reload]))
            guard work == nil, !waiting.isEmpty else { continue }
            let kinds = waiting
            waiting = []
            work = Task {
                if kinds.contains(.tick) { await tick() }
                if kinds.contains(.reload), !Task.isCancelled { await reload() }
                add(.done)
            }
        }
    }

    private func take() -> Kinds {
        pending.withLock { pending in
            defer { pending = [] }
            return pending
        }
    }
}

/// What may block for long, such as a file of a server that does not answer: on a thread of its own, where nothing else waits for it.
enum BlockingWork {
    static func run<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
        await withCheckedContinuation { continuation in
            DispatchQueue(label: "blocking work").async { continuation.resume(returning: body()) }
        }
    }
}

private final class SignalCounter: Sendable {
    private let count = Atomic(0)
    func isFirst() -> Bool { count.wrappingAdd(1, ordering: .relaxed).newValue == 1 }
}
