import FoundationEssentials
import Logging
import NIOCore

/// Watches the certificates that its owner shows it, and tells of them: in the log, and by every configured channel.
///
/// What was told is in a file, so that a restart does not tell it again; it is written before anything is sent. Alerts that wait
/// when the process is killed are only in the log.
package actor ExpiryWatcher {
    private let queues: [AlertQueue]
    private let file: String
    private let logger: Logger
    private let clock: @Sendable () -> Date
    private let counterBox: AlertCounterBox
    private var watch: ExpiryWatch
    private var isUnwritten = false
    private var isOverflowLogged = false

    /// - Parameters:
    ///   - file: what was told; `alerts.json` of the state directory.
    ///   - group: of sockets and timers.
    package init(
        settings: AlertSettings, file: String, group: any EventLoopGroup, logger: Logger,
        clock: @escaping @Sendable () -> Date = { Date() }
    ) {
        self.init(channels: AlertChannels.make(settings, group: group), file: file, group: group, logger: logger, clock: clock)
    }

    /// - Parameters:
    ///   - delays: before the second attempt to send and those behind it.
    ///   - urgentDelays: the same of alerts that must not be lost.
    package init(
        channels: [any AlertChannel], file: String, group: any EventLoopGroup, logger: Logger,
        clock: @escaping @Sendable () -> Date = { Date() }, delays: [TimeAmount] = ExpiryWatcher.delays,
        urgentDelays: [TimeAmount] = ExpiryWatcher.urgentDelays
    ) {
        let counters = AlertCounterBox(channels: channels.map(\.kind))
        queues = channels.map {
            AlertQueue($0, delays: delays, urgentDelays: urgentDelays, loop: group.next(), logger: logger, counters: counters)
        }
        counterBox = counters
        self.file = file
        self.logger = logger
        self.clock = clock
        watch = Self.load(file, logger)
    }

    /// Call it every minute. It does not wait for anything to be sent.
    package func check(certificates: [WatchedCertificate], missing: [MissingCertificate]) async {
        let now = clock()
        let before = watch
        let alerts = watch.check(certificates, missing: missing, now: now)
        if watch != before || isUnwritten { save() }
        if watch.isIncomplete, !isOverflowLogged {
            isOverflowLogged = true
            logger.warning(
                "Some certificates are not watched: too many are in a bad way", metadata: ["limit": "\(ExpiryWatch.maximumNames)"])
        }
        for alert in alerts {
            log(alert)
            let notice = AlertNotice(alert, time: now)
            for queue in queues { await queue.put(notice) }
        }
    }

    package nonisolated var counters: AlertCounters { counterBox.snapshot }

    /// Returns after `limit` and a moment at the latest. Nothing is sent afterwards.
    package func shutdown(within limit: TimeAmount = .seconds(5)) async {
        await withTaskGroup { group in
            for queue in queues { group.addTask { await queue.shutdown(within: limit) } }
        }
    }

    private func log(_ alert: CertificateAlert) {
        var metadata: Logger.Metadata = ["event": "\(alert.event.rawValue)", "domain": "\(alert.name)"]
        if let end = alert.notAfter { metadata["expires"] = "\(end.formatted(.iso8601))" }
        if let failure = alert.lastFailure { metadata["error"] = "\(failure)" }
        let level: Logger.Level = alert.event == .recovered ? .notice : alert.isUrgent ? .error : .warning
        logger.log(level: level, "\(alert.message)", metadata: metadata)
    }

    private static func load(_ file: String, _ logger: Logger) -> ExpiryWatch {
        do throws(CertificateFileError) {
            guard let content = try StateFile.read(file, limit: maximumLength) else { return ExpiryWatch() }
            if let watch = try? JSONDecoder().decode(ExpiryWatch.self, from: Data(content.bytes)) { return watch }
            let damaged = file + ".damaged"
            try StateFile.move(file, to: damaged)
            logger.warning(
                "What was told of certificates is not known any more, and may be told again", metadata: ["file": "\(damaged)"])
        } catch {
            logger.warning("What was told of certificates is not known, and may be told again", metadata: ["error": "\(error)"])
        }
        return ExpiryWatch()
    }

    private func save() {
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            try StateFile.write(String(decoding: try encoder.encode(watch), as: UTF8.self), to: file, mode: 0o600)
            isUnwritten = false
        } catch {
            if !isUnwritten {
                logger.warning("What is told of certificates may be told again after a restart", metadata: ["error": "\(error)"])
            }
            isUnwritten = true
        }
    }

    package static let delays: [TimeAmount] = [.seconds(30), .minutes(2)]
    package static let urgentDelays: [TimeAmount] = delays + [.minutes(10), .hours(1), .hours(6)]
    /// Bytes of the file: some 2 KiB for each of `ExpiryWatch.maximumNames`.
    static let maximumLength = 8 * 1_024 * 1_024
}
