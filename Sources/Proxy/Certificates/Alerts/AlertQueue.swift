import Logging
import NIOCore

/// The alerts that wait for one channel. They are sent one after the other, each tried again after a while; other channels do not
/// wait for them.
actor AlertQueue {
    private let channel: any AlertChannel
    private let delays: [TimeAmount]
    private let loop: any EventLoop
    private let logger: Logger
    private let counters: AlertCounterBox
    private var waiting: [AlertNotice] = []
    private var worker: Task<Void, Never>?
    /// Until the next attempt.
    private var timer: Scheduled<Void>?
    private var isClosing = false

    /// - Parameter delays: before the second attempt and those behind it; one more attempt than delays.
    init(_ channel: any AlertChannel, delays: [TimeAmount], loop: any EventLoop, logger: Logger, counters: AlertCounterBox) {
        self.channel = channel
        self.delays = delays
        self.loop = loop
        self.logger = logger
        self.counters = counters
    }

    /// Returns at once.
    func put(_ notice: AlertNotice) {
        guard !isClosing, waiting.count < Self.maximumWaiting else { return drop(notice, isClosing ? "it stops" : "too many wait") }
        waiting.append(notice)
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
        while !waiting.isEmpty {
            let notice = waiting.removeFirst()
            if Task.isCancelled { drop(notice, "it stops") } else { await deliver(notice) }
        }
        worker = nil
    }

    private func deliver(_ notice: AlertNotice) async {
        var attempt = 0
        while true {
            switch await channel.send(notice) {
            case .success(let receipt):
                counters.count(channel.kind, .sent)
                let output: Logger.Metadata = receipt.output.isEmpty ? [:] : ["output": "\(receipt.output)"]
                logger.info("Alert sent", metadata: metadata(notice).merging(output) { $1 })
                if !receipt.refused.isEmpty {
                    let refused: Logger.Metadata = ["recipients": "\(receipt.refused.joined(separator: ", "))"]
                    logger.warning("Alert refused for some recipients", metadata: metadata(notice).merging(refused) { $1 })
                }
                return
            case .failure(let error):
                let all = metadata(notice).merging(["error": "\(error)", "attempt": "\(attempt + 1)"]) { $1 }
                guard attempt < delays.count, !isClosing, !Task.isCancelled else {
                    counters.count(channel.kind, .failed)
                    return logger.error("Alert not sent, and given up", metadata: all)
                }
                counters.count(channel.kind, .retried)
                logger.warning("Alert not sent; it is tried again", metadata: all)
            }
            await wait(delays[attempt])
            attempt += 1
        }
    }

    private func wait(_ delay: TimeAmount) async {
        let timer = loop.scheduleTask(in: delay) {}
        self.timer = timer
        // Cancelled, it throws: there is less time to wait.
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
