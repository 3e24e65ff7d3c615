import Logging
import NIOWireGuard

/// What the roles have in common when they read their configuration again: what is said, and what is left alone.
package struct Reload<Configuration: Sendable>: Sendable {
    package typealias Load = @Sendable () -> (configuration: Configuration?, report: ConfigurationReport)

    private let load: Load
    private let logger: Logger

    package init(load: @escaping Load, logger: Logger) {
        self.load = load
        self.logger = logger
    }

    /// - Returns: `nil` if there is any fault; then all of them are in the log.
    package func read() -> Configuration? {
        let (configuration, report) = load()
        for warning in report.warnings { logger.warning("\(warning)") }
        if let configuration, report.faults.isEmpty { return configuration }
        for fault in report.faults { logger.error("\(fault)") }
        keep("its faults are above; correct them and send SIGHUP again")
        return nil
    }

    /// Nothing has changed.
    package func keep(_ reason: String) { logger.error("The configuration is not reloaded", metadata: ["error": "\(reason)"]) }

    /// What waits for the next start together with other things.
    package func tell(_ kept: [String]) { for line in kept { logger.warning("\(line)") } }

    /// - Parameters:
    ///   - changes: what is different now.
    ///   - fixed: names of settings that would be, after a restart.
    package func finish(_ changes: [String], fixed: [String]) {
        if !fixed.isEmpty {
            logger.warning("These settings change at the next start only", metadata: ["settings": "\(fixed.joined(separator: ", "))"])
        }
        logger.notice("Configuration reloaded: \(changes.joined(separator: "; "))")
    }
}
