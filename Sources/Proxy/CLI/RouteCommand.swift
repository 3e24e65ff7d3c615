import ArgumentParser
import FoundationEssentials
import NIOCore
import NIOPosix

struct RouteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "route",
        abstract: "Adds, removes and lists the routes of a running gateway.",
        discussion: """
            Examples:
              kakuremichi route add app.example.com=10.1.0.2
              kakuremichi route add grpc.example.com=10.1.0.2:50051 --protocol h2c
              kakuremichi route remove app.example.com
              kakuremichi route list --json

            What is added here is served until the gateway ends, also when its configuration is reloaded, unless \
            that has the same domain then. Routes of the configuration are changed there; SIGHUP reloads it.
            """,
        subcommands: [RouteAddCommand.self, RouteRemoveCommand.self, RouteListCommand.self])
}

/// Which gateway is meant.
struct GatewaySocket: ParsableArguments {
    @Option(help: ArgumentHelp("State directory of the gateway. (default: this user's)", valueName: "dir"))
    var state: String?

    func ask(_ request: AdminRequest, timeLimit: TimeAmount = .seconds(10)) async throws -> [UInt8] {
        let standard = StateDirectory.defaultPath(role: .gateway, environment: ConfigurationInput.processEnvironment)
        guard let directory = state ?? standard else { throw CommandFailure("neither XDG_STATE_HOME nor HOME is set; give --state DIR") }
        do {
            return try await AdminClient.ask(
                request, at: StateDirectory.adminSocket(in: directory), group: MultiThreadedEventLoopGroup.singleton,
                timeLimit: timeLimit)
        } catch let fault as AdminFault {
            throw CommandFailure("\(fault)")
        } catch {
            throw CommandFailure("no gateway answers in \(LogText.escape(directory)); start one, or give its --state DIR")
        }
    }
}

struct RouteAddCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Serves a domain from now on, until the gateway ends.",
        discussion: "A route that was added for the same domain is replaced.")

    @Argument(help: ArgumentHelp("A domain and its agent's address in the tunnel; port 80 if none.", valueName: "domain=ip[:port]"))
    var route: String

    @Option(
        name: .customLong("protocol"),
        help: ArgumentHelp("What is spoken to the agent: http1, or h2c as gRPC needs it. (default: http1)", valueName: "which"))
    var agentProtocol: String?

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        var arguments = ["route": route]
        arguments["protocol"] = agentProtocol
        let bytes = try await gateway.ask(AdminRequest(verb: RouteVerbs.add, arguments: arguments))
        let answer = try JSONDecoder().decode(RouteList.Answer.self, from: Data(bytes))
        if let warning = answer.warning { LineOutput(descriptor: 2).write("warning: \(LogText.escape(warning))\n") }
        let verb = answer.replaced ? "replaced" : "added"
        print("\(verb): \(answer.route.domain) -> \(answer.route.agent), \(answer.route.protocol), until the gateway ends")
    }
}

struct RouteRemoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Takes a route away that was added.",
        discussion: "Requests in hand go on; new ones are answered 404.")

    @Argument(help: "The domain.")
    var domain: String

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let bytes = try await gateway.ask(AdminRequest(verb: RouteVerbs.remove, arguments: ["domain": domain]))
        let answer = try JSONDecoder().decode(RouteList.Answer.self, from: Data(bytes))
        print("removed: \(answer.route.domain) -> \(answer.route.agent)")
    }
}

struct RouteListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Shows every route, and whether it is of the configuration or was added.")

    @Flag(help: "Prints one JSON object.")
    var json = false

    @OptionGroup var gateway: GatewaySocket

    func run() async throws {
        let answer = try await gateway.ask(AdminRequest(verb: RouteVerbs.list))
        if json {
            print(String(decoding: answer, as: UTF8.self))
        } else {
            print(try JSONDecoder().decode(RouteList.self, from: Data(answer)).table, terminator: "")
        }
    }
}
