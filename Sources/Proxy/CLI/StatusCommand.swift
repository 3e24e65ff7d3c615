import ArgumentParser
import FoundationEssentials
import NIOPosix

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Shows peers, last handshakes, routes and listeners of running processes.",
        discussion: """
            Examples:
              kakuremichi status
              kakuremichi status --state ./state --json
              kakuremichi status --state ./state --metrics
              kakuremichi status --connections
            """)

    @Option(help: ArgumentHelp("State directory of the process. (default: those of all roles of this user)", valueName: "dir"))
    var state: String?

    @Flag(help: "Prints JSON, one object for each process on a line.")
    var json = false

    @Flag(help: "Prints metrics in Prometheus' text format instead; needs --state if several processes run.")
    var metrics = false

    @Flag(
        help: """
            Shows the TCP connections inside the tunnel instead, \(ConnectionList.limit) at most: first those for whom most waits.
            """)
    var connections = false

    func validate() throws {
        if json, metrics { throw ValidationError("give --json or --metrics, not both") }
        if connections, metrics { throw ValidationError("give --connections or --metrics, not both") }
    }

    func run() async throws {
        let environment = ConfigurationInput.processEnvironment
        let directories =
            state.map { [$0] } ?? Role.allCases.compactMap { StateDirectory.defaultPath(role: $0, environment: environment) }
        guard !directories.isEmpty else { throw CommandFailure("neither XDG_STATE_HOME nor HOME is set; give --state DIR") }
        var found = 0
        for directory in directories {
            let path = StateDirectory.adminSocket(in: directory)
            guard state != nil || SystemFiles.exists(path) else { continue }
            let answer: [UInt8]
            do {
                answer = try await AdminClient.ask(
                    AdminRequest(verb: metrics ? "metrics" : connections ? "connections" : "status"), at: path,
                    group: MultiThreadedEventLoopGroup.singleton)
            } catch let fault as AdminFault {
                throw CommandFailure("\(LogText.escape(path)): \(fault)")
            } catch {
                continue
            }
            if found > 0, metrics { throw CommandFailure("several processes run; name one by --state DIR") }
            if found > 0, !json { print("") }
            found += 1
            if metrics {
                print(try JSONDecoder().decode([String: String].self, from: Data(answer))["metrics"] ?? "", terminator: "")
            } else if json {
                print(String(decoding: answer, as: UTF8.self))
            } else if connections {
                print(try JSONDecoder().decode(ConnectionList.self, from: Data(answer)).text, terminator: "")
            } else {
                print(try JSONDecoder().decode(Status.self, from: Data(answer)).table, terminator: "")
            }
        }
        if found == 0 {
            let places = directories.map { LogText.escape($0) }.joined(separator: ", ")
            throw CommandFailure("no process answers in \(places); start one, or give its --state DIR")
        }
    }
}
