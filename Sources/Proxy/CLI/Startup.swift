import ArgumentParser
import Glibc
import Inet
import NIOWireGuard

/// What the commands have in common: where configuration comes from, how faults are shown, how a role is started.
enum Startup {
    static var random: RandomSource { SystemEdges.random }

    /// Shows warnings and faults on standard error. With `isCheck` a good configuration is summed up on standard output.
    static func accept<Configuration>(
        _ configuration: Configuration?, _ report: ConfigurationReport, isCheck: Bool, summary: (Configuration) -> String
    ) throws -> Configuration {
        let errors = LineOutput(descriptor: STDERR_FILENO)
        if isCheck || configuration == nil {
            for warning in report.warnings { errors.write("warning: \(warning)\n") }
        }
        for fault in report.faults { errors.write("error: \(fault)\n") }
        guard let configuration, report.faults.isEmpty else {
            if isCheck { errors.write("\(report.faults.count) \(report.faults.count == 1 ? "error" : "errors")\n") }
            throw ExitCode(1)
        }
        if isCheck { print("OK\n\(summary(configuration))", terminator: "") }
        return configuration
    }

    /// Prepares the process and runs a role to its end.
    static func run(_ common: CommonConfiguration, logsToStandardError: Bool = false, _ body: () async throws -> Void) async throws {
        // Files and sockets that a running process makes are its owner's alone; a peer that goes away is an error, not a signal.
        umask(0o077)
        signal(SIGPIPE, SIG_IGN)
        let descriptors = DescriptorLimit.raise()
        guard descriptors >= DescriptorLimit.reserve else {
            LineOutput(descriptor: STDERR_FILENO).write(
                "error: this process may have \(descriptors) files open, and needs \(DescriptorLimit.reserve) and one for each connection: raise the limit (ulimit -n, LimitNOFILE= of systemd)\n"
            )
            throw ExitCode(1)
        }
        LineLogHandler.bootstrap(common, descriptor: logsToStandardError ? STDERR_FILENO : STDOUT_FILENO)
        do {
            try await body()
        } catch let code as ExitCode {
            throw code
        } catch {
            LineOutput(descriptor: STDERR_FILENO).write("error: \(error)\n")
            throw ExitCode(1)
        }
    }
}

extension ConfigurationInput {
    static func process(flags: [String: [String]]) -> ConfigurationInput {
        ConfigurationInput(flags: flags, environment: processEnvironment)
    }

    static var processEnvironment: [String: String] {
        var result: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let parts = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { result[String(parts[0])] = String(parts[1]) }
            entry += 1
        }
        return result
    }
}

extension AdminSocket {
    /// The socket of the one process that is meant.
    /// - Parameter state: its state directory; `nil` is that of the only role of this user that has a socket.
    static func only(_ state: String?, environment: [String: String]) throws -> String {
        if let state { return StateDirectory.adminSocket(in: state) }
        let directories = Role.allCases.compactMap { StateDirectory.defaultPath(role: $0, environment: environment) }
        guard !directories.isEmpty else { throw CommandFailure("neither XDG_STATE_HOME nor HOME is set; give --state DIR") }
        // A process that was killed leaves its socket behind.
        let answering = directories.map(StateDirectory.adminSocket).filter { path in
            guard let descriptor = try? UAPIClient.connect(path) else { return false }
            Glibc.close(descriptor)
            return true
        }
        guard answering.count <= 1 else { throw CommandFailure("several processes run; name one by --state DIR") }
        guard let path = answering.first else {
            let places = directories.map { LogText.escape($0) }.joined(separator: ", ")
            throw CommandFailure("no process answers in \(places); start one, or give its --state DIR")
        }
        return path
    }
}

/// A command that cannot do what it was asked, with the next step.
struct CommandFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
