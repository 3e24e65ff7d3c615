import ArgumentParser
import Glibc
import Inet
import NIOCore
import NIOPosix
import Noise
import WGUserspace

struct WGCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wg",
        abstract: "Shows and changes running WireGuard interfaces, as wg does.",
        discussion: """
            An interface answers if it was started with --interface NAME, as kakuremichi gateway and agent can be, and as other \
            user-space implementations are. Its socket is found in /var/run/wireguard and in $XDG_RUNTIME_DIR/wireguard.

            Examples:
              kakuremichi wg
              kakuremichi wg show wg0 latest-handshakes
              kakuremichi wg set wg0 peer KEY persistent-keepalive 25
              kakuremichi wg syncconf wg0 new.conf
            """,
        subcommands: [
            WGShowCommand.self, WGShowConfCommand.self, WGSetCommand.self, WGSetConfCommand.self, WGAddConfCommand.self,
            WGSyncConfCommand.self, WGForgetTimestampCommand.self,
        ], defaultSubcommand: WGShowCommand.self)
}

struct WGShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Shows the configuration and the peers of interfaces.",
        usage: "kakuremichi wg show [<interface> | all | interfaces] [\(WGReport.fields.joined(separator: " | "))]")

    @Argument(help: ArgumentHelp("An interface, all or interfaces. (default: all)", valueName: "interface"))
    var interface: String?

    @Argument(help: ArgumentHelp("Only this, for programs.", valueName: "field"))
    var field: String?

    func run() throws {
        let client = UAPIClient.process
        if let field, !WGReport.fields.contains(field) {
            throw CommandFailure(
                "\"\(LogText.escape(field, limit: 100))\" is not a field; write one of \(WGReport.fields.joined(separator: ", "))")
        }
        switch interface {
        case "interfaces": Self.write(client.interfaces().joined(separator: " "), end: "\n", unlessEmpty: true)
        case nil, "all": try showAll(client)
        case .some(let name):
            let state: UAPI.State
            do throws(UAPIClient.Failure) { state = try client.state(of: name) } catch { throw Self.failure(error) }
            let report = report(name, state)
            Self.write(field.flatMap { report.field($0, isNamed: false) } ?? report.pretty())
        }
    }

    private func showAll(_ client: UAPIClient) throws {
        let names = client.interfaces()
        var shown = 0
        for (index, name) in names.enumerated() {
            let state: UAPI.State
            do throws(UAPIClient.Failure) {
                state = try client.state(of: name)
            } catch {
                LineOutput(descriptor: STDERR_FILENO).write("Unable to access interface \(name): \(error)\n")
                continue
            }
            shown += 1
            let report = report(name, state)
            if let field {
                Self.write(report.field(field, isNamed: true) ?? "")
            } else {
                Self.write(report.pretty(), end: index < names.count - 1 ? "\n" : "")
            }
        }
        if shown == 0, !names.isEmpty { throw ExitCode(1) }
    }

    private func report(_ name: String, _ state: UAPI.State) -> WGReport {
        let environment = ConfigurationInput.processEnvironment
        let isColored =
            switch environment["WG_COLOR_MODE"] {
            case "always": true
            case "never": false
            default: isatty(STDOUT_FILENO) == 1
            }
        return WGReport(
            name: name, state: state, now: UInt64(max(time(nil), 0)), isColored: isColored,
            showsKeys: environment["WG_HIDE_KEYS"] == "never")
    }

    static func write(_ text: String, end: String = "", unlessEmpty: Bool = false) {
        guard !unlessEmpty || !text.isEmpty else { return }
        print(text + end, terminator: "")
    }

    static func failure(_ error: UAPIClient.Failure) -> CommandFailure { CommandFailure("Unable to access interface: \(error)") }
}

struct WGShowConfCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "showconf", abstract: "Prints the configuration of an interface, keys included, as setconf reads it.")

    @Argument(help: ArgumentHelp("The interface.", valueName: "interface")) var interface: String

    func run() throws {
        let state: UAPI.State
        do throws(UAPIClient.Failure) {
            state = try UAPIClient.process.state(of: interface)
        } catch {
            throw WGShowCommand.failure(error)
        }
        WGShowCommand.write(WGReport(name: interface, state: state, now: 0).configuration())
    }
}

struct WGSetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Changes an interface and its peers.",
        usage: """
            kakuremichi wg set <interface> [listen-port <port>] [fwmark <mark>] [private-key <file>] \
            [peer <key> [remove] [preshared-key <file>] [endpoint <host:port>] [persistent-keepalive <seconds>] \
            [allowed-ips <ip/length>,...]] ...
            """)

    @Argument(help: ArgumentHelp("The interface.", valueName: "interface")) var interface: String

    @Argument(parsing: .captureForPassthrough, help: ArgumentHelp("What to change, as with wg set.", valueName: "change"))
    var changes: [String] = []

    func run() throws {
        let request = try WGSetArguments(
            readFile: { try SystemFiles.read($0).bytes }, resolve: UAPIClient.resolve
        ).parse(changes)
        try UAPIClient.change(interface, request)
    }
}

/// The commands that read a file.
protocol WGConfigurationCommand: ParsableCommand {
    var interface: String { get }
    var file: String { get }
}

extension WGConfigurationCommand {
    func apply(_ manner: () throws -> UAPI.SetRequest.Manner) throws {
        let contents = try SystemFiles.read(file, limit: WGQuickFile.maximumSize)
        let parsed: WGQuickFile
        do throws(WGQuickError) {
            parsed = try WGQuickFile(contents.bytes.span.bytes)
        } catch {
            throw CommandFailure(error.faults.map { "\(LogText.escape(file)):\($0)" }.joined(separator: "\n"))
        }
        for warning in parsed.warnings where !warning.isAboutMark {
            LineOutput(descriptor: STDERR_FILENO).write("warning: \(LogText.escape(file)):\(warning)\n")
        }
        try UAPIClient.change(interface, try UAPI.SetRequest(parsed, try manner(), resolve: UAPIClient.resolve))
    }
}

struct WGSetConfCommand: WGConfigurationCommand {
    static let configuration = CommandConfiguration(commandName: "setconf", abstract: "Makes an interface be as a file says, nothing else.")
    @Argument(help: ArgumentHelp("The interface.", valueName: "interface")) var interface: String
    @Argument(help: ArgumentHelp("What showconf prints, or a wg-quick file.", valueName: "file")) var file: String

    func run() throws { try apply { .replace } }
}

struct WGAddConfCommand: WGConfigurationCommand {
    static let configuration = CommandConfiguration(commandName: "addconf", abstract: "Adds what a file says to an interface.")
    @Argument(help: ArgumentHelp("The interface.", valueName: "interface")) var interface: String
    @Argument(help: ArgumentHelp("What showconf prints, or a wg-quick file.", valueName: "file")) var file: String

    func run() throws { try apply { .add } }
}

struct WGSyncConfCommand: WGConfigurationCommand {
    static let configuration = CommandConfiguration(
        commandName: "syncconf", abstract: "Makes an interface be as a file says; peers that it has already keep their sessions.")
    @Argument(help: ArgumentHelp("The interface.", valueName: "interface")) var interface: String
    @Argument(help: ArgumentHelp("What showconf prints, or a wg-quick file.", valueName: "file")) var file: String

    func run() throws {
        try apply {
            do throws(UAPIClient.Failure) {
                return .synchronize(try UAPIClient.process.state(of: interface))
            } catch {
                throw WGShowCommand.failure(error)
            }
        }
    }
}

extension UAPIClient {
    static var process: UAPIClient { UAPIClient(directories: UAPIDirectory.all(environment: ConfigurationInput.processEnvironment)) }

    static func change(_ name: String, _ request: UAPI.SetRequest) throws {
        do throws(Failure) { try process.apply(request, to: name) } catch { throw CommandFailure("Unable to modify interface: \(error)") }
    }

    static func resolve(_ endpoint: WGQuickFile.Endpoint) throws -> SocketEndpoint {
        switch endpoint {
        case .address(let address): return address
        case .name(let host, let port):
            guard let address = try? SocketAddress.makeAddressResolvingHost(host, port: Int(port)), let ip = address.ipAddress,
                let parsed = IPAddress(ip)
            else { throw CommandFailure("\(LogText.escape(host)) has no address; check the name, or write the address") }
            return SocketEndpoint(parsed, port: port)
        }
    }
}
