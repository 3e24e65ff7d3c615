import Inet
import Logging
import WGUserspace

/// What a configuration is made of: flags win over environment variables, those over the file, that over what is built in.
package struct ConfigurationInput: Sendable {
    /// By name without dashes; a flag may be given several times.
    package var flags: [String: [String]]
    package var environment: [String: String]
    package var readFile: @Sendable (String) throws(FileError) -> SystemFiles.Contents
    /// Why a program could not be run, and what to do.
    package var programFault: @Sendable (String) -> (problem: String, fix: String)?

    package init(
        flags: [String: [String]], environment: [String: String],
        readFile: @escaping @Sendable (String) throws(FileError) -> SystemFiles.Contents = { path throws(FileError) in
            // A gateway may have many peers.
            try SystemFiles.read(path, limit: WGQuickFile.maximumSize)
        },
        programFault: @escaping @Sendable (String) -> (problem: String, fix: String)? = { ProgramFile.fault($0) }
    ) {
        self.flags = flags
        self.environment = environment
        self.readFile = readFile
        self.programFault = programFault
    }
}

package enum Role: String, Sendable, CaseIterable {
    case gateway, agent, echo, dial
}

/// Settings that every role has.
package struct CommonConfiguration: Sendable, Equatable {
    /// `nil`: no directory was given, and there is no place for a default one.
    package var stateDirectory: String?
    /// Whether the directory was named, not taken by default.
    package var isStateGiven = false
    package var logLevel: Logger.Level
    /// `nil`: text on a terminal, JSON otherwise.
    package var logFormat: LogFormat?
    /// Under what name `wg` finds the interface; `nil` for not at all.
    package var interfaceName: String?
    /// Where `GET /metrics` is answered, a loopback address; `nil` is nowhere.
    package var metricsListen: SocketEndpoint?
    package var cryptoTransport = CryptoTransport.libsodium
    /// Event loops that carry the tunnel: 1 to ``maximumLoops``.
    package var loops = 1

    /// As many as receiver indices can tell apart.
    package static let maximumLoops = LoopShare.maximumCount
}

/// What encrypts the tunnel's data.
package enum CryptoTransport: String, Sendable {
    case libsodium
    /// The library that proves to be the fastest on this machine when the program starts.
    case fastest
}

/// Collects settings from their sources and every fault on the way, so that all are reported at once.
struct ConfigurationReader {
    let role: Role
    let input: ConfigurationInput
    private(set) var documentPath: String?
    private(set) var document = TOMLTable()
    var report = ConfigurationReport()

    init(role: Role, input: ConfigurationInput) {
        self.role = role
        self.input = input
    }

    // MARK: Sources

    /// Reads `--config FILE`, or `ROLE.toml` of the working directory when neither it nor `--wg` is given.
    mutating func readDocument(knownKeys: [String]) {
        let path: String
        let flag = input.flags["config"]?.last
        if let flag {
            guard !flag.isEmpty else {
                return fault(ConfigurationFault(.flag, key: "--config", "is empty", fix: "give the path of a TOML file"))
            }
            path = flag
        } else {
            guard input.flags["wg"] == nil, (try? input.readFile("\(role).toml")) != nil else { return }
            path = "\(role).toml"
        }
        documentPath = path
        do throws(FileError) {
            let contents = try input.readFile(path)
            do throws(TOMLError) {
                document = try TOMLReader.read(contents.bytes)
            } catch {
                report.faults.append(ConfigurationFault(.file(path, error.position), key: nil, error.message, fix: ""))
            }
            if contents.isWorldReadable, case .table(let interface)? = document["wireguard"]?.kind, holdsKey(interface) {
                warnWorldReadable(path)
            }
        } catch {
            report.faults.append(
                ConfigurationFault(.file(path, nil), key: flag == nil ? nil : "--config", error.message, fix: error.advice))
        }
        refuseUnknownKeys(
            of: document,
            known: knownKeys + ["wireguard", "crypto", "state", "log-level", "log-format", "interface", "metrics-listen", "loops"],
            section: nil)
    }

    mutating func refuseUnknownKeys(of table: TOMLTable, known: [String], section: String?) {
        for entry in table.entries where !known.contains(entry.key) {
            let place = section.map { " in [\($0)]" } ?? ""
            report.faults.append(
                ConfigurationFault(
                    .file(documentPath ?? "", entry.keyPosition), key: entry.key.utf8.count < 40 ? entry.key : nil, "no such key\(place)",
                    fix: "write one of \(known.joined(separator: ", "))"))
        }
    }

    /// The setting from the source that wins; all values of a repeated flag.
    func settings(flags names: [String] = [], environment variable: String? = nil, key: String? = nil) -> [Setting] {
        for name in names {
            if let values = input.flags[name], !values.isEmpty {
                return values.map { Setting(value: .text($0), origin: .flag, key: "--\(name)") }
            }
        }
        if let variable, let value = input.environment[variable], !value.isEmpty {
            return [Setting(value: .text(value), origin: .environment, key: variable)]
        }
        if let key, let setting = setting(key, in: document) { return [setting] }
        return []
    }

    func setting(flag: String? = nil, environment: String? = nil, key: String? = nil) -> Setting? {
        settings(flags: flag.map { [$0] } ?? [], environment: environment, key: key).last
    }

    func setting(_ key: String, in table: TOMLTable) -> Setting? {
        guard let entry = table.entry(key) else { return nil }
        return Setting(value: .toml(entry.value), origin: .file(documentPath ?? "", entry.value.position), key: key)
    }

    /// The tables of `[[name]]`, each with the place of its header.
    mutating func tables(_ name: String, in table: TOMLTable? = nil) -> [(table: TOMLTable, origin: ConfigurationFault.Origin)] {
        guard let entry = (table ?? document).entry(name) else { return [] }
        let origin = ConfigurationFault.Origin.file(documentPath ?? "", entry.keyPosition)
        guard case .array(let elements) = entry.value.kind else {
            report.faults.append(ConfigurationFault(origin, key: name, "\(entry.value.typeName) is given", fix: "write [[\(name)]]"))
            return []
        }
        return elements.compactMap { element in
            if case .table(let table) = element.kind { return (table, .file(documentPath ?? "", element.position)) }
            report.faults.append(
                ConfigurationFault(
                    .file(documentPath ?? "", element.position), key: name, "\(element.typeName) is given", fix: "write [[\(name)]]"))
            return nil
        }
    }

    /// Runs a conversion; its fault goes into the report.
    mutating func value<Value>(_ setting: Setting?, _ convert: (Setting) throws(ConfigurationFault) -> Value) -> Value? {
        guard let setting else { return nil }
        do throws(ConfigurationFault) {
            return try convert(setting)
        } catch {
            report.faults.append(error)
            return nil
        }
    }

    mutating func fault(_ fault: ConfigurationFault) { report.faults.append(fault) }

    mutating func warnWorldReadable(_ path: String) {
        report.warnings.append(
            ConfigurationFault(
                .file(path, nil), key: nil, "every user of this machine can read the private key in it", fix: "run chmod 600"))
    }

    private func holdsKey(_ interface: TOMLTable) -> Bool {
        if interface["private-key"] != nil { return true }
        guard case .array(let peers)? = interface["peer"]?.kind else { return false }
        return peers.contains { if case .table(let peer) = $0.kind { peer["preshared-key"] != nil } else { false } }
    }

    // MARK: Common settings

    mutating func common() -> CommonConfiguration {
        var result = CommonConfiguration(stateDirectory: nil, logLevel: .info, logFormat: nil)
        if let level = setting(flag: "log-level", key: "log-level") {
            result.logLevel = value(level) { setting throws(ConfigurationFault) in try Self.logLevel(setting) } ?? .info
        }
        if let format = setting(flag: "log-format", key: "log-format") {
            result.logFormat = value(format) { setting throws(ConfigurationFault) in
                let text = try setting.string("text or json")
                guard let format = LogFormat(rawValue: text) else {
                    throw setting.fault("\(Setting.quoted(text)) is not a log format", fix: "write text or json")
                }
                return format
            }
        }
        result.interfaceName = value(setting(flag: "interface", key: "interface")) { setting throws(ConfigurationFault) in
            let name = try setting.string("a name such as wg0")
            guard UAPIDirectory.isName(name) else {
                throw setting.fault(
                    "\(Setting.quoted(name)) cannot name an interface", fix: "write 1 to 15 letters, digits and _ = + . -, such as wg0")
            }
            return name
        }
        result.metricsListen =
            value(setting(flag: "metrics-listen", key: "metrics-listen")) { setting throws(ConfigurationFault) in
                try Self.metricsAddress(setting)
            } ?? nil
        result.cryptoTransport = cryptoTransport()
        result.loops =
            value(setting(flag: "loops", key: "loops")) { loops throws(ConfigurationFault) in
                try loops.integer(in: 1...CommonConfiguration.maximumLoops)
            } ?? 1
        result.stateDirectory = stateDirectory()
        result.isStateGiven = setting(flag: "state", key: "state") != nil
        return result
    }

    private mutating func cryptoTransport() -> CryptoTransport {
        var given = setting(flag: "crypto-transport")
        if let entry = document.entry("crypto") {
            if case .table(let table) = entry.value.kind {
                refuseUnknownKeys(of: table, known: ["transport"], section: "crypto")
                given = given ?? setting("transport", in: table)
            } else {
                fault(
                    ConfigurationFault(.file(documentPath ?? "", entry.keyPosition), key: "crypto", "not a table", fix: "write [crypto]"))
            }
        }
        return value(given) { setting throws(ConfigurationFault) in
            let text = try setting.string("libsodium or fastest")
            guard let choice = CryptoTransport(rawValue: text) else {
                throw setting.fault("\(Setting.quoted(text)) is not known", fix: "write libsodium or fastest")
            }
            return choice
        } ?? .libsodium
    }

    /// Metrics tell who talks when, and have no password.
    private static func metricsAddress(_ setting: Setting) throws(ConfigurationFault) -> SocketEndpoint? {
        let text = try setting.string("IP:PORT or off")
        if text == "off" { return nil }
        guard let endpoint = SocketEndpoint(text), endpoint.address.isLoopback else {
            throw setting.fault("\(Setting.quoted(text)) is not a loopback address", fix: "write 127.0.0.1:PORT or [::1]:PORT, or off")
        }
        return endpoint
    }

    private static func logLevel(_ setting: Setting) throws(ConfigurationFault) -> Logger.Level {
        let names = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
        let text = try setting.string(names).lowercased()
        guard let level = Logger.Level(rawValue: text == "warn" ? "warning" : text) else {
            throw setting.fault("\(Setting.quoted(text)) is not a log level", fix: "write one of \(names)")
        }
        return level
    }

    private mutating func stateDirectory() -> String? {
        if let given = setting(flag: "state", key: "state") {
            return value(given) { setting throws(ConfigurationFault) in
                let path = SystemFiles.resolve(try setting.string("a directory"), besides: setting.file)
                let length = StateDirectory.adminSocket(in: path).utf8.count
                guard length <= AdminSocket.maximumPath else {
                    throw setting.fault(
                        "the path of the socket in it would have \(length) bytes, of at most \(AdminSocket.maximumPath)",
                        fix: "write a shorter directory")
                }
                return path
            }
        }
        let standard = StateDirectory.defaultPath(role: role, environment: input.environment)
        if let standard, StateDirectory.adminSocket(in: standard).utf8.count <= AdminSocket.maximumPath { return standard }
        guard role == .gateway || role == .agent else { return nil }
        let reason = standard == nil ? "neither XDG_STATE_HOME nor HOME is set" : "the path of the usual one is too long for its socket"
        fault(ConfigurationFault(.builtIn, key: "--state", "there is no directory for state: \(reason)", fix: "give --state DIR"))
        return nil
    }

    /// Management by a control server comes with its own settings; without local configuration they are an error, beside it a warning.
    mutating func checkControlSettings(hasLocalConfiguration: Bool) {
        for (flag, variable) in [("control-url", "CONTROL_URL"), ("api-key", "API_KEY")] {
            guard let given = setting(flag: flag, environment: variable) else { continue }
            let fault = given.fault(
                "a control server is not supported in this version",
                fix: "remove it and give --wg FILE or --config FILE (kakuremichi \(role) --help shows both forms)")
            if given.origin == .environment, hasLocalConfiguration {
                report.warnings.append(given.fault("is ignored: a control server is not supported in this version", fix: "remove it"))
            } else {
                report.faults.append(fault)
            }
        }
    }
}
