import ArgumentParser
import NIOPosix
import Noise

struct WGForgetTimestampCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "forget-timestamp",
        abstract: "Lets a peer in again whose clock stepped back.",
        discussion: """
            A peer's handshakes carry its time, and a running process takes only later ones than it has seen, also across restarts. \
            After this it takes the next one, whatever its time.

            Example:
              kakuremichi wg forget-timestamp PEER-PUBLIC-KEY
            """)

    @Argument(help: ArgumentHelp("The peer's public key.", valueName: "peer"))
    var peer: String

    @Option(help: ArgumentHelp("State directory of the process. (default: those of all roles of this user)", valueName: "dir"))
    var state: String?

    func run() async throws {
        guard let key = PublicKey(base64: peer) else {
            throw CommandFailure("\"\(LogText.escape(peer, limit: 100))\" is not a public key; write the 44 characters that wg show prints")
        }
        let environment = ConfigurationInput.processEnvironment
        let directories =
            state.map { [$0] } ?? Role.allCases.compactMap { StateDirectory.defaultPath(role: $0, environment: environment) }
        var refusal: AdminFault?
        var isDone = false
        for directory in directories {
            let path = StateDirectory.adminSocket(in: directory)
            guard SystemFiles.exists(path) else { continue }
            do {
                _ = try await AdminClient.ask(
                    AdminRequest(verb: "forget-timestamp", arguments: ["peer": key.base64]), at: path,
                    group: MultiThreadedEventLoopGroup.singleton)
                isDone = true
            } catch let fault as AdminFault {
                refusal = fault
            } catch {
                continue
            }
        }
        if isDone { return print("Forgotten: the next handshake of \(key) is taken, whatever its time.") }
        if let refusal { throw CommandFailure(refusal.error) }
        let places = directories.map { LogText.escape($0) }.joined(separator: ", ")
        throw CommandFailure("no process answers in \(places); start one, or give its --state DIR")
    }
}
