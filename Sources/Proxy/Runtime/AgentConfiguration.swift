import Inet
import WGUserspace

/// Everything that `kakuremichi agent` needs to know.
package struct AgentConfiguration: Sendable {
    package var common: CommonConfiguration
    package var interface: InterfaceSettings
    package var targets: LocalTargets
    /// The TCP port inside the tunnel.
    package var listenPort: UInt16
    package var limits: ProxyLimits

    private static let keys = ["target", "host", "listen-port", "tunnel", "limits"] + ConfigurationReader.routeOptionKeys
    private static let tunnelKeys = ["domain", "target", "host", "enabled"] + ConfigurationReader.routeOptionKeys

    /// Builds the configuration; `nil` in its place if there is any fault.
    package static func load(_ input: ConfigurationInput) -> (configuration: AgentConfiguration?, report: ConfigurationReport) {
        var reader = ConfigurationReader(role: .agent, input: input)
        reader.readDocument(knownKeys: keys)
        reader.checkControlSettings(hasLocalConfiguration: input.flags["wg"] != nil || reader.documentPath != nil)
        let common = reader.common()
        let interface = reader.interface()
        let port = reader.value(reader.setting(flag: "listen-port", key: "listen-port")) { port throws(ConfigurationFault) in
            UInt16(try port.integer(in: 1...65535))
        }
        let targets = targets(&reader)
        let limits = reader.limits(.agent).proxy
        if let interface, !interface.peers.contains(where: { $0.endpoint != nil }) {
            reader.report.warnings.append(
                ConfigurationFault(
                    .builtIn, key: "Endpoint", "no peer has an Endpoint: the agent waits to be contacted",
                    fix: "write Endpoint = HOST:PORT of the gateway"))
        }
        guard reader.report.faults.isEmpty, let interface else { return (nil, reader.report) }
        let configuration = AgentConfiguration(
            common: common, interface: interface, targets: targets, listenPort: port ?? 80, limits: limits)
        return (configuration, reader.report)
    }

    private static func targets(_ reader: inout ConfigurationReader) -> LocalTargets {
        let hostField = hostField(&reader, reader.setting(flag: "host", key: "host")) ?? .asReceived
        let options = reader.routeOptions()
        var result = LocalTargets()
        let targets = reader.settings(flags: ["target"], key: "target")
        if targets.count > 1, let last = targets.last {
            reader.fault(last.fault("is given \(targets.count) times", fix: "give one target, or [[tunnel]] tables in a --config file"))
        }
        if let setting = targets.first, let target = target(&reader, setting) {
            result = LocalTargets(all: target, host: hostField)
            result.catchAll?.options = options
        }
        for (table, origin) in reader.tables("tunnel") {
            reader.refuseUnknownKeys(of: table, known: tunnelKeys, section: "[tunnel]")
            let host = self.hostField(&reader, reader.setting("host", in: table)) ?? hostField
            let options = reader.routeOptions(in: table, standard: options)
            let isEnabled =
                reader.value(reader.setting("enabled", in: table)) { setting throws(ConfigurationFault) in try setting.boolean() } ?? true
            guard let domainSetting = reader.setting("domain", in: table), let targetSetting = reader.setting("target", in: table) else {
                let missing = table["domain"] == nil ? "domain" : "target"
                reader.fault(
                    ConfigurationFault(
                        origin, key: "tunnel", "\(missing) is missing",
                        fix: "write \(missing) = \"\(missing == "domain" ? "app.example.com" : "127.0.0.1:8080")\""))
                continue
            }
            let domain = reader.value(domainSetting) { setting throws(ConfigurationFault) in
                try DomainName.parse(try setting.string("a domain"), setting)
            }
            guard let domain, let target = target(&reader, targetSetting) else { continue }
            if result.entries.contains(where: { $0.domain == domain }) {
                reader.fault(domainSetting.fault("\(domain) is given twice", fix: "remove one of the two"))
            }
            var entry = LocalTargets.Entry(domain: domain, target: target, host: host, enabled: isEnabled)
            entry.options = options
            result.entries.append(entry)
        }
        if result.all.isEmpty, reader.report.faults.isEmpty {
            reader.fault(
                ConfigurationFault(.builtIn, key: "--target", "there is no target", fix: "give --target HOST:PORT, such as 127.0.0.1:8080"))
        }
        return result
    }

    private static func target(_ reader: inout ConfigurationReader, _ setting: Setting) -> UpstreamTarget? {
        reader.value(setting) { setting throws(ConfigurationFault) in
            let text = try setting.string("HOST:PORT")
            if let scheme = ["http://", "https://"].first(where: { text.lowercased().hasPrefix($0) }) {
                throw setting.fault("\(Setting.quoted(text)) has a scheme", fix: "write HOST:PORT without \(scheme)")
            }
            guard let target = UpstreamTarget(text), target.port > 0 else {
                throw setting.fault("\(Setting.quoted(text)) is not a target", fix: "write HOST:PORT, such as 127.0.0.1:8080 or app:3000")
            }
            return target
        }
    }

    private static func hostField(_ reader: inout ConfigurationReader, _ setting: Setting?) -> LocalTargets.HostField? {
        reader.value(setting) { setting throws(ConfigurationFault) in
            let text = try setting.string("public or target")
            switch text {
            case "public": return .asReceived
            case "target": return .target
            default: throw setting.fault("\(Setting.quoted(text)) is not valid", fix: "write public (the visitor's Host) or target")
            }
        }
    }
}

extension LocalTargets {
    package var all: [Entry] { (catchAll.map { [$0] } ?? []) + entries }

    var byDomain: [String: Entry] { Dictionary(all.map { ($0.domain, $0) }, uniquingKeysWith: { first, _ in first }) }
}

/// What `kakuremichi echo` and `kakuremichi dial` need to know.
package struct InterfaceOnlyConfiguration: Sendable {
    package var common: CommonConfiguration
    package var interface: InterfaceSettings

    package static func load(
        _ role: Role, _ input: ConfigurationInput
    ) -> (configuration: InterfaceOnlyConfiguration?, report: ConfigurationReport) {
        var reader = ConfigurationReader(role: role, input: input)
        let common = reader.common()
        let interface = reader.interface()
        guard reader.report.faults.isEmpty, let interface else { return (nil, reader.report) }
        return (InterfaceOnlyConfiguration(common: common, interface: interface), reader.report)
    }
}
