import ArgumentParser

/// Flags that every running role has.
struct CommonFlags: ParsableArguments {
    @Option(help: ArgumentHelp("Directory for state and the admin socket, 0700.", valueName: "dir"))
    var state: String?

    @Option(help: ArgumentHelp("trace, debug, info, notice, warning, error or critical. (default: info)", valueName: "level"))
    var logLevel: String?

    @Option(help: ArgumentHelp("text or json. (default: text on a terminal, json otherwise)", valueName: "format"))
    var logFormat: String?

    @Option(help: ArgumentHelp("Answer wg and kakuremichi wg under this name. (default: answer neither)", valueName: "name"))
    var interface: String?

    @Option(help: ArgumentHelp("Loopback address that answers GET /metrics and /status, or off. (default: off)", valueName: "ip:port"))
    var metricsListen: String?

    @Option(help: ArgumentHelp("libsodium, or fastest of this machine: what encrypts the tunnel. (default: libsodium)", valueName: "which"))
    var cryptoTransport: String?

    var dictionary: [String: [String]] {
        flagDictionary([
            "state": state, "log-level": logLevel, "log-format": logFormat, "metrics-listen": metricsListen,
            "interface": interface, "crypto-transport": cryptoTransport,
        ])
    }
}

/// Settings by the original's names that both roles have. One dash or two, as Go's flags are written.
struct OriginalFlags: ParsableArguments {
    @Option(name: .original("control-url"), help: .hidden) var controlURL: String?
    @Option(name: .original("api-key"), help: .hidden) var apiKey: String?

    var dictionary: [String: [String]] { flagDictionary(["control-url": controlURL, "api-key": apiKey]) }
}

extension NameSpecification {
    /// `--name` and `-name`.
    static func original(_ name: String) -> NameSpecification { [.customLong(name), .customLong(name, withSingleDash: true)] }
}

/// Only the flags that were given.
func flagDictionary(_ flags: [String: String?]) -> [String: [String]] { flags.compactMapValues { $0.map { [$0] } } }
