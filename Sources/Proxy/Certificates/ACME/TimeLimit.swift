import NIOCore

/// Bounds what has no bound of its own. Timers are an event loop's.
enum TimeLimit {
    /// Runs `body`, and cancels it at the limit or with the caller's task.
    static func run<Success: Sendable>(
        _ limit: TimeAmount, on loop: any EventLoop, _ body: @escaping @Sendable () async throws -> Success
    ) async throws -> Success {
        let task = Task { try await body() }
        let timer = loop.scheduleTask(in: limit) { task.cancel() }
        defer { timer.cancel() }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }

    /// Waits for a task at most so long; it goes on afterwards. Also in a task that is cancelled.
    static func wait(for task: Task<Void, Never>, atMost limit: TimeAmount, on loop: any EventLoop) async throws {
        let promise = loop.makePromise(of: Void.self)
        let timer = loop.scheduleTask(in: limit) { promise.succeed() }
        Task {
            await task.value
            timer.cancel()
            loop.execute { promise.succeed() }
        }
        try await promise.futureResult.get()
    }
}
