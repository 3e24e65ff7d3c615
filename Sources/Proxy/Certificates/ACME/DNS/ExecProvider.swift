/// Runs a program of the operator's: `PROGRAM present|cleanup NAME VALUE`, NAME with its final dot. Status 0 says that it is done;
/// both actions may come more than once. Of our environment it has PATH, HOME and LANG.
package struct ExecProvider: DNSProvider {
    package let label = "exec"
    private let command: String
    private let environment: [String: String]
    private let limit: Duration

    /// - Parameter environment: only what is named above is passed on.
    package init(command: String, environment: [String: String], limit: Duration = Self.limit) {
        self.command = command
        self.environment = environment.filter { Self.passedOn.contains($0.key) }
        self.limit = limit
    }

    package func add(_ record: TXTRecord) async throws { try await run("present", record) }
    package func remove(_ record: TXTRecord) async throws { try await run("cleanup", record) }

    private func run(_ action: String, _ record: TXTRecord) async throws(DNSFault) {
        do throws(HookFault) {
            _ = try await HookProcess.run(
                path: command, arguments: [action, record.name + ".", record.value], environment: environment, input: nil, limit: limit)
        } catch {
            throw DNSFault("exec: \(error)")
        }
    }

    package static let limit = Duration.seconds(60)
    package static let passedOn: Set<String> = ["PATH", "HOME", "LANG"]
}
