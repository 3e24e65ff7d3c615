import Dispatch
import Glibc
import Synchronization

/// The signals to the process: the first SIGTERM or SIGINT is waited for here and starts the orderly way out, the second ends the
/// process at once. SIGHUP asks for the configuration to be read again, where there is one.
final class ShutdownSignals: Sendable {
    private let sources: Mutex<[any DispatchSourceSignal]>
    private let requests: Requests

    /// From here on the signals no longer end the process by themselves.
    /// - Parameter reloads: whether SIGHUP is one of them.
    init(reloads: Bool = false) {
        let requests = Requests()
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

    /// Returns at the first signal to end. Until then `body` runs again and again, `interval` apart, and `reload` at each SIGHUP; one that
    /// comes while it runs lets it run once more.
    func wait(whileEvery interval: Duration? = nil, _ body: () -> Void = {}, reload: () async -> Void = {}) async {
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
        for await _ in requests.events {
            let asked = requests.take()
            if asked.contains(.end) { return }
            if asked.contains(.tick) { body() }
            if asked.contains(.reload) { await reload() }
        }
    }
}

/// What signals and timers have asked for since somebody looked, each thing once.
private final class Requests: Sendable {
    struct Kinds: OptionSet {
        let rawValue: UInt8
        static let end = Kinds(rawValue: 1)
        static let reload = Kinds(rawValue: 2)
        static let tick = Kinds(rawValue: 4)
    }

    let events: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation
    private let pending = Mutex(Kinds())

    init() { (events, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1)) }

    func add(_ kind: Kinds) {
        pending.withLock { _ = $0.insert(kind) }
        continuation.yield()
    }

    func take() -> Kinds {
        pending.withLock { pending in
            defer { pending = [] }
            return pending
        }
    }
}

private final class SignalCounter: Sendable {
    private let count = Atomic(0)
    func isFirst() -> Bool { count.wrappingAdd(1, ordering: .relaxed).newValue == 1 }
}
