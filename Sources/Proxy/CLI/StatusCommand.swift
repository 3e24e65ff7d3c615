import ArgumentParser
import FoundationEssentials
import NIOCore
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
            do {
                try await show(path, isFirst: found == 0)
                found += 1
            } catch let fault as AdminFault {
                throw CommandFailure("\(LogText.escape(path)): \(fault)")
            } catch is IOError {
                // Nobody listens there.
                continue
            }
        }
        if found == 0 {
            let places = directories.map { LogText.escape($0) }.joined(separator: ", ")
            throw CommandFailure("no process answers in \(places); start one, or give its --state DIR")
        }
    }

    private func show(_ path: String, isFirst: Bool) async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        // Shown when all of it is there: the process does not wait for somebody who reads page by page.
        var text = ""
        if metrics {
            try await AdminClient.ask(AdminRequest(verb: "metrics"), at: path, group: group) { part in
                text += try JSONDecoder().decode(MetricsText.Part.self, from: Data(part)).metrics
            }
            guard isFirst else { throw CommandFailure("several processes run; name one by --state DIR") }
        } else if connections {
            let answer = try await AdminClient.ask(AdminRequest(verb: "connections"), at: path, group: group)
            text =
                json
                ? String(decoding: answer, as: UTF8.self) + "\n"
                : try JSONDecoder().decode(ConnectionList.self, from: Data(answer)).text
        } else {
            var collector = Status.Collector()
            try await AdminClient.ask(AdminRequest(verb: "status"), at: path, group: group) { try collector.add($0) }
            guard let status = collector.status else { throw AdminFault(error: "the answer is empty") }
            text = json ? String(decoding: try JSONEncoder().encode(status), as: UTF8.self) + "\n" : status.table
        }
        if !isFirst, !json { print("") }
        print(text, terminator: "")
    }
}
