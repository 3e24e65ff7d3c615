import NIOCore

/// Somebody with at most one deadline at a time, which moves often and is seldom reached.
package protocol ClockWatcher: AnyObject {
    /// `.distantFuture` for none.
    var deadline: NIODeadline { get }
    func deadlineReached()
}

/// One coarse timer for all connections of an event loop. Moving a deadline is a store, not a task of the loop: with 60 s of
/// patience nobody needs to know the time better than half a second.
package final class ConnectionClock {
    let eventLoop: any EventLoop
    private let interval: TimeAmount
    private var watchers: [ObjectIdentifier: any ClockWatcher] = [:]
    private var isTicking = false
    /// As of the last tick.
    private(set) var now: NIODeadline

    package init(eventLoop: any EventLoop, interval: TimeAmount) {
        self.eventLoop = eventLoop
        self.interval = interval
        now = eventLoop.now
    }

    /// Holds the watcher until ``remove(_:)``.
    package func add(_ watcher: any ClockWatcher) {
        watchers[ObjectIdentifier(watcher)] = watcher
        guard !isTicking else { return }
        isTicking = true
        schedule()
    }

    package func remove(_ watcher: any ClockWatcher) { watchers[ObjectIdentifier(watcher)] = nil }

    /// Never earlier than `amount` from now.
    package func deadline(after amount: TimeAmount) -> NIODeadline {
        if !isTicking { now = eventLoop.now }
        return now + amount + interval
    }

    private func schedule() {
        now = eventLoop.now
        eventLoop.assumeIsolated().scheduleTask(in: interval) { self.tick() }
    }

    private func tick() {
        now = eventLoop.now
        var due: [any ClockWatcher] = []
        for watcher in watchers.values where watcher.deadline <= now { due.append(watcher) }
        for watcher in due where watcher.deadline <= now { watcher.deadlineReached() }
        if watchers.isEmpty { isTicking = false } else { schedule() }
    }
}
