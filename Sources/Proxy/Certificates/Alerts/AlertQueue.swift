import Logging
import NIOCore

/// The alerts that wait for one channel. They are sent one after the other, each tried again after a while, in which the others
/// go on; other channels do not wait for them.
actor AlertQueue {
    private let channel: any AlertChannel
    private let delays: [TimeAmount]
    private let urgentDelays: [TimeAmount]
    private let loop: any EventLoop
    private let logger: Logger
    private let counters: AlertCounterBox
    /// The oldest first.
    private var waiting: [Waiting] = []
    private var worker: Task<Void, Never>?
    /// Until the next attempt.
    private var timer: Scheduled<Void>?
    private var isClosing = false

    private struct Waiting {
        var notice: AlertNotice
        /// Attempts in vain.
        var attempts = 0
        var due = NIODeadline.now()
    }

    /// - Parameters:
    ///   - delays: before the second attempt and those behind it; one more attempt than delays.
    ///   - urgentDelays: the same of alerts that must not be lost.
    init(
        _ channel: any AlertChannel, delays: [TimeAmount], urgentDelays: [TimeAmount], loop: any EventLoop, logger: Logger,
        counters: AlertCounterBox
    ) {
        self.channel = channel
        self.delays = delays
        self.urgentDelays = urgentDelays
        self.loop = loop
        self.logger = logger
        self.counters = counters
    }

    /// Returns at once. One of the same name and event that waits is replaced; when there is no room the oldest goes.
    func put(_ notice: AlertNotice) {
        guard !isClosing else { return drop(notice, "it stops") }
        if let index = waiting.firstIndex(where: { $0.notice.isReplaced(by: notice) }) {
            drop(waiting.remove(at: index).notice, "a newer one takes its place")
        }
        if waiting.count >= Self.maximumWaiting { drop(waiting.removeFirst().notice, "too many wait") }
        waiting.append(Waiting(notice: notice))
        timer?.cancel()
        if worker == nil { worker = Task { await self.work() } }
    }

    /// What waits is tried once more, as long as there is time. Returns when that is over.
    func shutdown(within limit: TimeAmount) async {
        isClosing = true
        timer?.cancel()
        guard let worker else { return await channel.shutdown() }
        let over = loop.makePromise(of: Void.self)
        let deadline = loop.scheduleTask(in: limit) {
            worker.cancel()
            over.succeed(())
        }
        Task {
            await worker.value
            over.succeed(())
        }
        try? await over.futureResult.get()
        deadline.cancel()
        await channel.shutdown()
    }

    private func work() async {
        while let first = waiting.map(\.due).min() {
            let now = NIODeadline.now()
            if Task.isCancelled {
                drop(waiting.removeFirst().notice, "it stops")
            } else if let index = waiting.firstIndex(where: { isClosing || $0.due <= now }) {
                await deliver(waiting.remove(at: index))
            } else {
                await wait(first - now)
            }
        }
        worker = nil
    }

    private func deliver(_ item: Waiting) async {
        let notice = item.notice
        switch await channel.send(notice) {
        case .success(let receipt):
            counters.count(channel.kind, .sent)
            let output: Logger.Metadata = receipt.output.isEmpty ? [:] : ["output": "\(receipt.output)"]
            logger.info("Alert sent", metadata: metadata(notice).merging(output) { $1 })
            if !receipt.refused.isEmpty {
                let refused: Logger.Metadata = ["recipients": "\(receipt.refused.joined(separator: ", "))"]
                logger.warning("Alert refused for some recipients", metadata: metadata(notice).merging(refused) { $1 })
            }
        case .failure(let error):
            let all = metadata(notice).merging(["error": "\(error)", "attempt": "\(item.attempts + 1)"]) { $1 }
            let delays = notice.alert.isPersistent ? urgentDelays : delays
            guard item.attempts < delays.count, !isClosing, !Task.isCancelled else {
                counters.count(channel.kind, .failed)
                return logger.error("Alert not sent, and given up", metadata: all)
            }
            counters.count(channel.kind, .retried)
            logger.warning("Alert not sent; it is tried again", metadata: all)
            putBack(item, in: delays[item.attempts])
        }
    }

    /// It is older than all that wait.
    private func putBack(_ item: Waiting, in delay: TimeAmount) {
        if waiting.contains(where: { item.notice.isReplaced(by: $0.notice) }) { return drop(item.notice, "a newer one takes its place") }
        guard waiting.count < Self.maximumWaiting else { return drop(item.notice, "too many wait") }
        waiting.insert(Waiting(notice: item.notice, attempts: item.attempts + 1, due: .now() + delay), at: 0)
    }

    private func wait(_ delay: TimeAmount) async {
        let timer = loop.scheduleTask(in: delay) {}
        self.timer = timer
        // Cancelled, it throws: there is something to do earlier.
        try? await timer.futureResult.get()
        self.timer = nil
    }

    private func drop(_ notice: AlertNotice, _ reason: String) {
        counters.count(channel.kind, .dropped)
        logger.error("Alert dropped", metadata: metadata(notice).merging(["reason": "\(reason)"]) { $1 })
    }

    private func metadata(_ notice: AlertNotice) -> Logger.Metadata {
        ["channel": "\(channel.kind.rawValue)", "event": "\(notice.alert.event.rawValue)", "name": "\(notice.alert.name)"]
    }

    static let maximumWaiting = 256
}

extension AlertNotice {
    fileprivate func isReplaced(by newer: AlertNotice) -> Bool { alert.name == newer.alert.name && alert.event == newer.alert.event }
}
