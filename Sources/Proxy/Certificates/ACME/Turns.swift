import NIOCore
import Synchronization

/// A bounded number of things at once. Who comes beyond it waits in order of arrival, for a bounded time.
final class Turns: Sendable {
    private let loop: any EventLoop
    private let patience: TimeAmount
    private let state: Mutex<State>

    private struct State: Sendable {
        var free: Int
        var waiting: CircularBuffer<(number: UInt64, promise: EventLoopPromise<Bool>)> = []
        var nextNumber: UInt64 = 0
    }

    /// - Parameters:
    ///   - count: at once, at least 1.
    ///   - patience: how long one waits for its turn.
    ///   - loop: its timers measure that.
    init(_ count: Int, patience: TimeAmount, on loop: any EventLoop) {
        self.loop = loop
        self.patience = patience
        state = Mutex(State(free: count))
    }

    /// Nil if its turn did not come in time, or the task was cancelled before.
    func run<Success: Sendable>(_ body: () async -> Success) async -> Success? {
        guard await take() else { return nil }
        defer { pass() }
        return await body()
    }

    private func take() async -> Bool {
        let promise = loop.makePromise(of: Bool.self)
        let number: UInt64? = state.withLock { state in
            guard state.free == 0 else {
                state.free -= 1
                return nil
            }
            state.nextNumber &+= 1
            state.waiting.append((state.nextNumber, promise))
            return state.nextNumber
        }
        guard let number else {
            promise.succeed(true)
            return true
        }
        let timer = loop.scheduleTask(in: patience) { self.leave(number) }
        defer { timer.cancel() }
        return await withTaskCancellationHandler {
            (try? await promise.futureResult.get()) ?? false
        } onCancel: {
            leave(number)
        }
    }

    private func leave(_ number: UInt64) {
        let promise = state.withLock { state in
            state.waiting.firstIndex { $0.number == number }.map { state.waiting.remove(at: $0).promise }
        }
        promise?.succeed(false)
    }

    private func pass() {
        let next = state.withLock { state in
            let next = state.waiting.popFirst()?.promise
            if next == nil { state.free += 1 }
            return next
        }
        next?.succeed(true)
    }
}
