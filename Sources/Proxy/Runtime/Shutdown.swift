import Dispatch
import Glibc
import Synchronization

/// The signals that ask the process to end: the first SIGTERM or SIGINT is waited for here and starts the orderly way out,
/// the second ends the process at once. SIGHUP asks it to read its configuration again.
final class ShutdownSignals: Sendable {
    private let sources: Mutex<[any DispatchSourceSignal]>
    private let events: AsyncStream<Event>
    private let continuation: AsyncStream<Event>.Continuation

    private enum Event { case signal, tick, reload }

    /// From here on the signals no longer end the process by themselves.
    init() {
        let (events, continuation) = AsyncStream.makeStream(of: Event.self, bufferingPolicy: .bufferingOldest(4))
        self.events = events
        self.continuation = continuation
        let counter = SignalCounter()
        sources = Mutex(
            [SIGTERM, SIGINT, SIGHUP].map { number in
                signal(number, SIG_IGN)
                let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
                source.setEventHandler {
                    if number == SIGHUP {
                        continuation.yield(.reload)
                    } else if counter.isFirst() {
                        continuation.yield(.signal)
                    } else {
                        _exit(128 + number)
                    }
                }
                source.resume()
                return source
            })
    }

    /// Returns at the first signal to end. Until then `body` runs again and again, `interval` apart, and `reload` at each SIGHUP.
    func wait(whileEvery interval: Duration? = nil, reload: () -> Void = {}, _ body: () -> Void = {}) async {
        let timer = interval.map { interval in
            let timer = DispatchSource.makeTimerSource(queue: .global())
            let nanoseconds = Int(clamping: interval.components.seconds &* 1_000_000_000)
            timer.schedule(deadline: .now() + .nanoseconds(nanoseconds), repeating: .nanoseconds(nanoseconds), leeway: .seconds(1))
            let continuation = continuation
            timer.setEventHandler { continuation.yield(.tick) }
            timer.resume()
            return timer
        }
        defer { timer?.cancel() }
        for await event in events {
            switch event {
            case .signal: return
            case .tick: body()
            case .reload: reload()
            }
        }
    }
}

private final class SignalCounter: Sendable {
    private let count = Atomic(0)
    func isFirst() -> Bool { count.wrappingAdd(1, ordering: .relaxed).newValue == 1 }
}
