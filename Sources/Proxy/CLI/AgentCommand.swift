import ArgumentParser

struct AgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent",
        abstract: "Takes requests from a gateway through WireGuard and hands them to a web server.",
        discussion: """
            Examples:
              kakuremichi agent --wg agent.conf --target 127.0.0.1:8080
              kakuremichi agent --wg agent.conf --target app:3000 --listen-port 8000
              kakuremichi agent --config agent.toml --check

            Environment: WIREGUARD_PRIVATE_KEY (wins over the file's key).
            """)

    @Option(help: ArgumentHelp("WireGuard configuration as for wg-quick.", valueName: "file"))
    var wg: String?

    @Option(help: ArgumentHelp("The full configuration, TOML. (default: agent.toml if there is no --wg)", valueName: "file"))
    var config: String?

    @Option(help: ArgumentHelp("The web server that every host goes to.", valueName: "host:port"))
    var target: [String] = []

    @Option(help: ArgumentHelp("TCP port inside the tunnel. (default: 80)", valueName: "port"))
    var listenPort: String?

    @Option(help: ArgumentHelp("Which Host the target receives: public (the visitor's) or target. (default: public)", valueName: "which"))
    var host: String?

    @Option(
        name: .customLong("protocol"),
        help: ArgumentHelp("What the target speaks: http1, or h2c (HTTP/2 without TLS, for gRPC). (default: http1)", valueName: "which"))
    var targetProtocol: String?

    @Option(
        help: ArgumentHelp("Threads that carry the tunnel; peers are spread over them by their keys. (default: 1)", valueName: "number"))
    var loops: String?

    @Flag(help: "Tests the configuration, prints every fault, and ends.")
    var check = false

    @OptionGroup var common: CommonFlags
    @OptionGroup var original: OriginalFlags

    @Option(name: .original("wireguard-private-key"), help: .hidden) var wireguardPrivateKey: String?
    @Option(name: .original("docker-enabled"), help: .hidden) var dockerEnabled: String?
    @Option(name: .original("docker-socket"), help: .hidden) var dockerSocket: String?

    var flags: [String: [String]] {
        var flags = flagDictionary([
            "wg": wg, "config": config, "loops": loops, "listen-port": listenPort, "host": host,
            "protocol": targetProtocol,
            "wireguard-private-key": wireguardPrivateKey,
        ])
        if !target.isEmpty { flags["target"] = target }
        return flags.merging(common.dictionary) { first, _ in first }.merging(original.dictionary) { first, _ in first }
    }

    func run() async throws {
        let input = ConfigurationInput.process(flags: flags)
        let (loaded, report) = AgentConfiguration.load(input)
        let configuration = try Startup.accept(loaded, report, isCheck: check) { $0.summary }
        guard !check else { return }
        try await Startup.run(configuration.common) {
            try await AgentNode.run(configuration, warnings: report.warnings) { AgentConfiguration.load(input) }
        }
    }
}
