import ArgumentParser
import Inet

struct EchoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "echo",
        abstract: "Answers every TCP byte in the tunnel with itself, for tests and measurement.",
        discussion: """
            Example:
              kakuremichi echo --wg agent.conf --listen-port 7
            """)

    @Option(help: ArgumentHelp("WireGuard configuration as for wg-quick.", valueName: "file"))
    var wg: String

    @Option(help: ArgumentHelp("TCP port inside the tunnel.", valueName: "port"))
    var listenPort: UInt16 = 7

    @OptionGroup var common: CommonFlags

    func run() async throws {
        let input = ConfigurationInput.process(flags: common.dictionary.merging(["wg": [wg]]) { first, _ in first })
        let (loaded, report) = InterfaceOnlyConfiguration.load(.echo, input)
        let configuration = try Startup.accept(loaded, report, isCheck: false) { _ in "" }
        let port = listenPort
        try await Startup.run(configuration.common) { try await EchoNode.run(configuration, port: port, warnings: report.warnings) }
    }
}

struct DialCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dial",
        abstract: "Joins standard input and output to a TCP connection in the tunnel.",
        discussion: """
            Ends when both directions have ended. Logs go to standard error.

            Example:
              echo hello | kakuremichi dial --wg gateway.conf 10.1.0.2:7
            """)

    @Option(help: ArgumentHelp("WireGuard configuration as for wg-quick.", valueName: "file"))
    var wg: String

    @Argument(help: ArgumentHelp("Where to connect to.", valueName: "ip:port"), transform: Self.endpoint)
    var destination: SocketEndpoint

    @OptionGroup var common: CommonFlags

    func run() async throws {
        let input = ConfigurationInput.process(flags: common.dictionary.merging(["wg": [wg]]) { first, _ in first })
        let (loaded, report) = InterfaceOnlyConfiguration.load(.dial, input)
        let configuration = try Startup.accept(loaded, report, isCheck: false) { _ in "" }
        let destination = destination
        try await Startup.run(configuration.common, logsToStandardError: true) {
            try await DialNode.run(configuration, to: destination, warnings: report.warnings)
        }
    }

    @Sendable private static func endpoint(_ text: String) throws -> SocketEndpoint {
        guard let endpoint = SocketEndpoint(text), endpoint.port > 0, endpoint.address.isUnicastInsideTunnel else {
            throw ValidationError(
                "\"\(LogText.escape(text, limit: 100))\" is not an address in the tunnel; write IP:PORT, such as 10.1.0.2:80")
        }
        return endpoint
    }
}
