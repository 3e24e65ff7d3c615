/// Runs a program of the operator's: the alert as JSON on its standard input, and in variables. It works if the status is 0.
package struct ExecAlert: AlertChannel {
    private let program: String
    private let limit: Duration

    /// - Parameters:
    ///   - program: an absolute path.
    ///   - limit: when it is over, the program and what it began are killed.
    package init(program: String, limit: Duration = Self.limit) {
        self.program = program
        self.limit = limit
    }

    package var kind: AlertChannelKind { .exec }

    package func send(_ notice: AlertNotice) async -> Result<AlertReceipt, AlertFault> {
        do throws(HookFault) {
            let output = try await HookProcess.run(
                path: program, arguments: [], environment: Self.environment(notice), input: notice.json + [0x0A], limit: limit)
            return .success(AlertReceipt(output: output.text))
        } catch {
            return .failure(AlertFault("\(error)"))
        }
    }

    /// All of it: nothing of ours is inherited. What has no value is empty.
    package static func environment(_ notice: AlertNotice) -> [String: String] {
        let alert = notice.alert
        return [
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "KAKUREMICHI_EVENT": alert.event.rawValue,
            "KAKUREMICHI_NAME": alert.name,
            "KAKUREMICHI_LEVEL": alert.level?.text ?? "",
            "KAKUREMICHI_NOT_AFTER": alert.notAfter?.formatted(.iso8601) ?? "",
            "KAKUREMICHI_REMAINING_SECONDS": notice.remainingSeconds.map { "\($0)" } ?? "",
            "KAKUREMICHI_MESSAGE": alert.message,
            "KAKUREMICHI_LAST_FAILURE": alert.lastFailure ?? "",
            "KAKUREMICHI_HOST": notice.host,
            "KAKUREMICHI_ID": notice.id,
        ]
    }

    package static let limit = Duration.seconds(30)
}
