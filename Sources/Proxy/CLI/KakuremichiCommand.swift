import ArgumentParser
import Glibc

/// The program's command line.
package struct KakuremichiCommand: AsyncParsableCommand {
    package static let version = "0.1.0"

    package static let configuration = CommandConfiguration(
        commandName: "kakuremichi",
        abstract: "Publishes web services from behind NAT over WireGuard, without root and without a TUN device.",
        discussion: """
            A gateway answers HTTPS for your domains and carries each request through WireGuard to an agent, \
            which hands it to a web server beside it. Both are ordinary processes of an ordinary user.

            To begin:
              kakuremichi init --domain app.example.com --endpoint vpn.example.com:51820 --out tunnel
            """,
        version: version,
        subcommands: [
            GatewayCommand.self, AgentCommand.self, StatusCommand.self, RouteCommand.self, CertsCommand.self, InitCommand.self,
            KeysCommand.self,
            EchoCommand.self,
            DialCommand.self, CaptureCommand.self, WGCommand.self, VectorsCommand.self,
        ])

    package init() {}

    /// Of the process's arguments. Go's boolean flags need no value; ours do.
    package static func run() async {
        await main(
            withBooleans(Array(CommandLine.arguments.dropFirst())))
        // What was printed is in a buffer still: an export to a full disk must not look like one that worked.
        guard fflush(nil) != 0 else { return }
        let reason = String(cString: strerror(errno))
        LineOutput(descriptor: STDERR_FILENO).write("error: the output cannot be written: \(reason)\n")
        Glibc.exit(1)
    }

    static func withBooleans(_ arguments: [String]) -> [String] {
        arguments.enumerated().map { place, argument in
            let next = arguments.dropFirst(place + 1).first ?? "-"
            let isAlone = next.hasPrefix("-")
            return isAlone && ["-acme-staging", "--acme-staging"].contains(argument) ? argument + "=true" : argument
        }
    }
}
