import ArgumentParser

struct GatewayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gateway",
        abstract: "Answers HTTPS for your domains and carries each request through WireGuard to an agent.",
        discussion: """
            Examples:
              kakuremichi gateway --wg gateway.conf --route app.example.com=10.1.0.2
              kakuremichi gateway --wg gateway.conf --route app.example.com=10.1.0.2:8000 \\
                  --https 127.0.0.1:8443 --http 127.0.0.1:8080 --state ./state --cert site.pem --key site.key
              kakuremichi gateway --config gateway.toml --check

            Without --cert an internal CA is made in the state directory (internal-ca.pem) and signs for the \
            routes' domains. Environment: HTTP_PORT, HTTPS_PORT, WIREGUARD_PORT, WIREGUARD_KEY_FILE, \
            TLS_CERT_FILE, TLS_KEY_FILE. A flag wins over the environment, that over the file.
            """)

    @Option(help: ArgumentHelp("WireGuard configuration as for wg-quick.", valueName: "file"))
    var wg: String?

    @Option(help: ArgumentHelp("The full configuration, TOML. (default: gateway.toml if there is no --wg)", valueName: "file"))
    var config: String?

    @Option(
        help: ArgumentHelp(
            "A published domain and its agent's address in the tunnel; port 80 if none. Repeatable.", valueName: "domain=ip[:port]"))
    var route: [String] = []

    @Option(help: ArgumentHelp("Where to answer HTTPS, or off. Repeatable. (default: [::]:443)", valueName: "ip:port"))
    var https: [String] = []

    @Option(help: ArgumentHelp("Where to answer plain HTTP, which redirects, or off. Repeatable. (default: [::]:80)", valueName: "ip:port"))
    var http: [String] = []

    @Option(help: ArgumentHelp("The HTTPS port that visitors see. (default: that of the first --https)", valueName: "port"))
    var publicHttpsPort: String?

    @Option(
        help: ArgumentHelp(
            "A proxy in front of the gateway whose word on who the client is counts. Repeatable. (default: none)", valueName: "ip[/length]")
    )
    var trustedProxy: [String] = []

    @Option(help: ArgumentHelp("Certificate chain, PEM. Repeatable, each with its --key.", valueName: "file"))
    var cert: [String] = []

    @Option(help: ArgumentHelp("Private key of the certificate, PEM.", valueName: "file"))
    var key: [String] = []

    @Option(
        help: ArgumentHelp("Threads that carry the tunnel; peers are spread over them by their keys. (default: 1)", valueName: "number"))
    var loops: String?

    @Option(help: ArgumentHelp("Where to append a JSON line for each request; - is standard output. (default: off)", valueName: "file"))
    var accessLog: String?

    @Flag(help: "Tests the configuration, prints every fault, and ends.")
    var check = false

    @OptionGroup var common: CommonFlags
    @OptionGroup var original: OriginalFlags

    @Option(name: .original("http-port"), help: .hidden) var httpPort: String?
    @Option(name: .original("https-port"), help: .hidden) var httpsPort: String?
    @Option(name: .original("wireguard-port"), help: .hidden) var wireguardPort: String?
    @Option(name: .original("wireguard-interface"), help: .hidden) var wireguardInterface: String?
    @Option(name: .original("wireguard-key-file"), help: .hidden) var wireguardKeyFile: String?
    @Option(name: .original("tls-cert-file"), help: .hidden) var tlsCertFile: String?
    @Option(name: .original("tls-key-file"), help: .hidden) var tlsKeyFile: String?
    @Option(name: .original("acme-email"), help: .hidden) var acmeEmail: String?

    var flags: [String: [String]] {
        var flags = flagDictionary([
            "wg": wg, "config": config, "loops": loops, "public-https-port": publicHttpsPort, "http-port": httpPort,
            "https-port": httpsPort,
            "wireguard-port": wireguardPort, "wireguard-key-file": wireguardKeyFile, "tls-cert-file": tlsCertFile,
            "tls-key-file": tlsKeyFile,
            "acme-email": acmeEmail, "access-log": accessLog,
        ])
        for (name, values) in ["route": route, "https": https, "http": http, "cert": cert, "key": key, "trusted-proxy": trustedProxy]
        where !values.isEmpty {
            flags[name] = values
        }
        return flags.merging(common.dictionary) { first, _ in first }.merging(original.dictionary) { first, _ in first }
    }

    func run() async throws {
        let input = ConfigurationInput.process(flags: flags)
        var (loaded, report) = GatewayConfiguration.load(input)
        if check, let certificates = loaded?.certificates { report.checkCertificates(certificates) }
        let configuration = try Startup.accept(loaded, report, isCheck: check) { $0.summary }
        guard !check else { return }
        try await Startup.run(configuration.common) {
            try await GatewayNode.run(configuration, warnings: report.warnings) { GatewayConfiguration.load(input) }
        }
    }
}
