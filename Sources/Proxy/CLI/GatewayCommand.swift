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

            With --acme-email or --acme-directory certificates come by themselves. Without either and without --cert \
            an internal CA is made in the state directory (kakuremichi certs trust) and signs for the routes' domains.
            Environment: HTTP_PORT, HTTPS_PORT, WIREGUARD_PORT, WIREGUARD_KEY_FILE, TLS_CERT_FILE, TLS_KEY_FILE, \
            ACME_EMAIL, ACME_STAGING, ACME_CACHE_DIR, ACME_DIRECTORY, ACME_CA_FILE, ACME_CHALLENGES, \
            ACME_EAB_KEY_ID, ACME_EAB_KEY_FILE, ACME_PROFILE. A flag wins over the environment, that over the file.
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
        name: .original("acme-email"),
        help: ArgumentHelp(
            "E-mail address of the ACME account: certificates then come by themselves, from Let's Encrypt. (default: off)",
            valueName: "address"))
    var acmeEmail: String?

    @Option(
        help: ArgumentHelp(
            "URL of another CA's directory, or letsencrypt, letsencrypt-staging, zerossl. Repeatable, in order of preference.",
            valueName: "url"))
    var acmeDirectory: [String] = []

    @Option(help: ArgumentHelp("Roots to trust that CA by, PEM. (default: the system's)", valueName: "file"))
    var acmeCaFile: String?

    @Option(
        help: ArgumentHelp(
            "Challenges in order: tls-alpn-01, http-01, dns-01, dns-persist-01. (default: tls-alpn-01,http-01)", valueName: "list"))
    var acmeChallenges: String?

    @Option(help: ArgumentHelp("Key identifier of an external account, as ZeroSSL wants it.", valueName: "id"))
    var acmeEabKeyId: String?

    @Option(help: ArgumentHelp("File with the HMAC key of the external account.", valueName: "file"))
    var acmeEabKeyFile: String?

    @Option(
        name: .original("acme-cache-dir"),
        help: ArgumentHelp("Where certificates are kept. (default: certificates in the state directory)", valueName: "dir"))
    var acmeCacheDir: String?

    @Option(
        name: .original("acme-staging"),
        help: ArgumentHelp("Use Let's Encrypt's staging directory, whose certificates nobody trusts. (default: false)", valueName: "bool"))
    var acmeStaging: String?

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

    var flags: [String: [String]] {
        var flags = flagDictionary([
            "wg": wg, "config": config, "loops": loops, "public-https-port": publicHttpsPort, "http-port": httpPort,
            "https-port": httpsPort,
            "wireguard-port": wireguardPort, "wireguard-key-file": wireguardKeyFile, "tls-cert-file": tlsCertFile,
            "tls-key-file": tlsKeyFile,
            "acme-email": acmeEmail, "acme-ca-file": acmeCaFile, "acme-challenges": acmeChallenges, "acme-eab-key-id": acmeEabKeyId,
            "acme-eab-key-file": acmeEabKeyFile, "acme-cache-dir": acmeCacheDir, "acme-staging": acmeStaging, "access-log": accessLog,
        ])
        for (name, values) in [
            "route": route, "https": https, "http": http, "cert": cert, "key": key, "trusted-proxy": trustedProxy,
            "acme-directory": acmeDirectory,
        ]
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
            try await GatewayNode.run(configuration, warnings: report.warnings) {
                GatewayConfiguration.load(input, over: configuration.interface.addresses)
            }
        }
    }
}
