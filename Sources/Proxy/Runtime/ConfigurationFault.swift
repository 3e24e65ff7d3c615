/// One fault of a configuration, or one warning: where, what, and what to write instead. It never holds a key.
package struct ConfigurationFault: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Origin: Hashable, Sendable {
        case file(String, TOMLPosition?)
        case flag
        case environment
        case builtIn
    }

    package var origin: Origin
    /// The key of the file, the flag with its dashes, or the variable.
    package var key: String?
    package var problem: String
    package var fix: String

    package init(_ origin: Origin, key: String?, _ problem: String, fix: String) {
        self.origin = origin
        self.key = key
        self.problem = problem
        self.fix = fix
    }

    /// `gateway.toml:3:1: https: what is wrong; what to write instead`
    package var description: String {
        let place: String
        switch origin {
        case .file(let path, let position): place = LogText.escape(path) + (position.map { ":\($0): " } ?? ": ")
        case .environment: place = "environment: "
        case .flag, .builtIn: place = ""
        }
        return place + (key.map { "\(LogText.escape($0)): " } ?? "") + problem + (fix.isEmpty ? "" : "; \(fix)")
    }
}

/// Everything that is wrong with a configuration, and everything to be warned of.
package struct ConfigurationReport: Error, Sendable, Equatable, CustomStringConvertible {
    package var faults: [ConfigurationFault] = []
    package var warnings: [ConfigurationFault] = []

    package init() {}

    package var description: String { faults.map(\.description).joined(separator: "\n") }
}
