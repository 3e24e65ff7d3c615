import ArgumentParser
import FoundationEssentials
import Glibc
import NIOCore
import NIOPosix

struct CertsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "certs",
        abstract: "Shows and handles the certificates of a running gateway.",
        discussion: """
            Examples:
              kakuremichi certs list
              kakuremichi certs renew app.example.com --wait
              kakuremichi certs export app.example.com --out app.pem
              kakuremichi certs account
            """,
        subcommands: [
            CertsListCommand.self, CertsShowCommand.self, CertsRenewCommand.self, CertsRevokeCommand.self, CertsExportCommand.self,
            CertsImportCommand.self, CertsAccountCommand.self, CertsRollOverCommand.self, CertsTrustCommand.self,
            CertsTestAlertCommand.self,
        ])
}

extension GatewaySocket {
    /// An answer that may take as long as a CA does.
    static let patience = TimeAmount.minutes(3)

    func list() async throws -> CertificateList {
        try JSONDecoder().decode(CertificateList.self, from: Data(try await ask(AdminRequest(verb: CertificateVerbs.list))))
    }

    func entry(_ name: String) async throws -> (entry: CertificateList.Entry, now: Int) {
        let list = try await list()
        guard let entry = list.certificates.first(where: { $0.name == name || $0.file == name }) else {
            throw CommandFailure("there is no certificate of that name; kakuremichi certs list shows those that there are")
        }
        return (entry, list.now)
    }
}

struct CertsListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Shows every certificate: from whom, until when, and what is next.")

    @Flag(help: "Prints one JSON object.")
    var json = false

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let answer = try await gateway.ask(AdminRequest(verb: CertificateVerbs.list))
        if json {
            print(String(decoding: answer, as: UTF8.self))
        } else {
            print(try JSONDecoder().decode(CertificateList.self, from: Data(answer)).table, terminator: "")
        }
    }
}

struct CertsShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Shows all about one certificate.")

    @Argument(help: "The domain of its route, or the path of its file.")
    var name: String

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let (entry, now) = try await gateway.entry(name)
        var lines = [("name", entry.name), ("state", entry.state.rawValue + (entry.isOverdue ? ", renewal is overdue" : ""))]
        if !entry.names.isEmpty { lines.append(("covers", entry.names.joined(separator: ", "))) }
        if let issuer = entry.issuer { lines.append(("issuer", issuer)) }
        if let file = entry.file { lines.append(("file", file)) }
        func moment(_ time: Int) -> String {
            "\(Date(timeIntervalSince1970: TimeInterval(time)).formatted(.iso8601)), \(CertificateList.relative(time, now))"
        }
        if let time = entry.notBefore { lines.append(("valid from", moment(time))) }
        if let time = entry.notAfter { lines.append(("expires", moment(time))) }
        if let time = entry.due { lines.append(("next order", moment(time))) }
        if entry.failures > 0 { lines.append(("failures", "\(entry.failures) in a row")) }
        if let reason = entry.reason { lines.append((entry.failures > 0 ? "last failure" : "reason", reason)) }
        for (label, text) in lines { print(label.padded(to: 14) + LogText.escape(text)) }
    }
}

struct CertsRenewCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "renew", abstract: "Orders a new certificate now.",
        discussion: "The present one is served until the new one is there. Limits of the CA still hold.")

    @Argument(help: "The domain of the route.")
    var name: String

    @Flag(help: "Waits until it is there or has failed, at most 3 minutes.")
    var wait = false

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let before = try await gateway.entry(name).entry
        let bytes = try await gateway.ask(AdminRequest(verb: CertificateVerbs.renew, arguments: ["name": name]))
        let due = try JSONDecoder().decode(CertificateVerbs.Renewal.self, from: Data(bytes)).due
        let now = Int(Date().timeIntervalSince1970)
        guard due <= now else {
            throw CommandFailure("\(name): a limit holds; it is ordered \(CertificateList.relative(due, now))")
        }
        guard wait else { return print("\(name): ordered; kakuremichi certs show \(name) tells how it goes") }
        for _ in 0..<180 {
            try await MultiThreadedEventLoopGroup.singleton.next().scheduleTask(in: .seconds(1)) {}.futureResult.get()
            let (entry, now) = try await gateway.entry(name)
            if let end = entry.notAfter, end != before.notAfter || entry.notBefore != before.notBefore {
                return print("\(name): renewed; expires \(CertificateList.relative(end, now))")
            }
            if entry.failures > 0 { throw CommandFailure("\(name): \(LogText.escape(entry.reason ?? "it failed"))") }
        }
        throw CommandFailure("\(name): not there after 3 minutes; kakuremichi certs show \(name) tells how it goes")
    }
}

struct CertsRevokeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke", abstract: "Revokes a certificate at its CA and orders another one with a new key.",
        discussion: "It is served no more from then on: until the new one is there, visitors wait or are refused.")

    enum Reason: String, ExpressibleByArgument, CaseIterable {
        case unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation

        /// RFC 5280 §5.3.1.
        var code: Int {
            switch self {
            case .unspecified: 0
            case .keyCompromise: 1
            case .affiliationChanged: 3
            case .superseded: 4
            case .cessationOfOperation: 5
            }
        }
    }

    @Argument(help: "The domain of the route.")
    var name: String

    @Option(help: "Why.")
    var reason: Reason = .unspecified

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let arguments = ["name": name, "reason": "\(reason.code)"]
        _ = try await gateway.ask(AdminRequest(verb: CertificateVerbs.revoke, arguments: arguments), timeLimit: GatewaySocket.patience)
        print("\(name): revoked; another one is ordered")
    }
}

struct CertsExportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Writes a certificate's key and chain as PEM.")

    @Argument(help: "The domain of the route.")
    var name: String

    @Option(help: ArgumentHelp("A new file, readable by its owner alone. (default: standard output)", valueName: "file"))
    var out: String?

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let bytes = try await gateway.ask(AdminRequest(verb: CertificateVerbs.export, arguments: ["name": name]))
        let pem = try JSONDecoder().decode(CertificateVerbs.Exported.self, from: Data(bytes)).pem
        guard let out else {
            guard isatty(STDOUT_FILENO) == 0 else {
                throw CommandFailure("it holds a private key; give --out FILE, or redirect the output")
            }
            return print(pem, terminator: "")
        }
        do throws(FileError) {
            try SystemFiles.create(out, Array(pem.utf8))
        } catch {
            throw CommandFailure("\(error)")
        }
        print("\(name): written to \(LogText.escape(out))")
    }
}

struct CertsImportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Serves a certificate from a file until it is renewed.",
        discussion: "For each name of it that has a route. Useful before DNS points to this gateway.")

    /// Bytes of each file. Two of them, as JSON, are less than a request may be.
    static let maximumFile = 256 * 1024

    @Argument(help: "PEM: the certificate, its chain behind it, and the key unless --key names it.")
    var file: String

    @Option(help: ArgumentHelp("PEM file of the private key.", valueName: "file"))
    var key: String?

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let certificate = try Self.contents(of: file) { $0.certificateFault }
        let pem: String
        if let key {
            pem = try Self.contents(of: key) { $0.privateKeyFault } + "\n" + certificate
        } else {
            let fault = PEMContents(certificate.utf8).privateKeyFault
            if let fault {
                throw CommandFailure("\(LogText.escape(file)): \(fault.problem); give --key FILE, unless the key is in this file")
            }
            pem = certificate
        }
        let bytes = try await gateway.ask(AdminRequest(verb: CertificateVerbs.adopt, arguments: ["pem": pem]))
        let names = try JSONDecoder().decode(CertificateVerbs.Adopted.self, from: Data(bytes)).names
        print("imported, served for \(names.joined(separator: ", "))")
    }

    private static func contents(of path: String, unless fault: (PEMContents) -> PEMContents.Fault?) throws -> String {
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try SystemFiles.read(path, limit: maximumFile).bytes
        } catch {
            throw CommandFailure("\(error)")
        }
        if let fault = fault(PEMContents(bytes)) { throw CommandFailure("\(LogText.escape(path)): \(fault)") }
        return String(decoding: bytes, as: UTF8.self)
    }
}

struct CertsAccountCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "account", abstract: "Shows the ACME account, and its thumbprint for [cluster] peers of other gateways.")

    @Flag(help: "Prints one JSON object.")
    var json = false

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let answer = try await gateway.ask(AdminRequest(verb: CertificateVerbs.account))
        if json { return print(String(decoding: answer, as: UTF8.self)) }
        let account = try JSONDecoder().decode(CertificateAccount.self, from: Data(answer))
        print("thumbprint    \(account.thumbprint)")
        if !account.email.isEmpty { print("e-mail        \(account.email)") }
        for registration in account.registrations {
            print("directory     \(registration.directory)")
            print("  account     \(registration.url ?? "none yet: made with the first order")")
            if let url = registration.url {
                let issuer = registration.issuer ?? "CA-DOMAIN"
                print("  CAA         example.com. CAA 0 issue \"\(issuer); accounturi=\(url)\"")
                print("  persistent  _validation-persist.example.com. TXT \"\(issuer); accounturi=\(url)\"")
            }
        }
    }
}

struct CertsRollOverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollover", abstract: "Gives the ACME account a new key.",
        discussion: "Its thumbprint changes: gateways that list it in [cluster] peers need the new one.")

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let bytes = try await gateway.ask(AdminRequest(verb: CertificateVerbs.rollOver), timeLimit: GatewaySocket.patience)
        let answer = try JSONDecoder().decode(CertificateVerbs.RolledOver.self, from: Data(bytes))
        for directory in answer.failed {
            LineOutput(descriptor: STDERR_FILENO).write(
                "warning: not changed at \(LogText.escape(directory)); a new account is made there\n")
        }
        print("the account has a new key\nthumbprint    \(answer.thumbprint)")
    }
}

struct CertsTrustCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trust", abstract: "Tells how to trust the internal CA, which signs while there is no other certificate.",
        discussion: "For development. Its root can vouch for the routes' domains and nothing else.")

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let standard = StateDirectory.defaultPath(role: .gateway, environment: ConfigurationInput.processEnvironment)
        guard let directory = gateway.state ?? standard else {
            throw CommandFailure("neither XDG_STATE_HOME nor HOME is set; give --state DIR")
        }
        let path = InternalCA.certificatePath(in: directory)
        guard SystemFiles.exists(path) else {
            throw CommandFailure(
                "\(LogText.escape(path)) is not there: no gateway without certificates of its own has run with this state directory")
        }
        print(ShellText.trust(path))
    }
}

struct CertsTestAlertCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test-alert", abstract: "Sends an alert by every way that [alerts] names, and says how it went.")

    @Option(help: ArgumentHelp("The configuration, TOML. (default: gateway.toml)", valueName: "file"))
    var config: String?

    func run() async throws {
        let (settings, report) = AlertSettings.load(.process(flags: config.map { ["config": [$0]] } ?? [:]))
        let errors = LineOutput(descriptor: STDERR_FILENO)
        for warning in report.warnings { errors.write("warning: \(warning)\n") }
        for fault in report.faults { errors.write("error: \(fault)\n") }
        guard report.faults.isEmpty else { throw ExitCode(1) }
        guard !settings.isEmpty else { throw CommandFailure("there is no [alerts] in the configuration: nobody is told of anything") }
        let results = await AlertChannels.sendTest(settings, group: MultiThreadedEventLoopGroup.singleton)
        for result in results {
            print("\(result.channel): \(result.fault.map { "failed: \($0)" } ?? "sent")")
        }
        if results.contains(where: { $0.fault != nil }) { throw ExitCode(1) }
    }
}
