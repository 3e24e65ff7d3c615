import Inet
import WGUserspace

/// Everything that `kakuremichi agent` needs to know.
package struct AgentConfiguration: Sendable {
    /// Which Host header the target receives.
    package enum HostHeader: String, Sendable, CaseIterable {
        /// The one that the visitor asked for.
        case `public`
        /// The target's own address, as the original agent does.
        case target
    }

    /// A web server that the agent can reach.
    package struct Target: Sendable, Equatable, CustomStringConvertible {
        /// A name or an address, without brackets.
        package var host: String
        package var port: UInt16

        package init(host: String, port: UInt16) {
            self.host = host
            self.port = port
        }

        /// `localhost:8080`, `app:3000`, `192.0.2.1:80`, `[::1]:80`.
        package init?(_ text: String) {
            if let endpoint = SocketEndpoint(text) {
                guard endpoint.port > 0 else { return nil }
                self.init(host: "\(endpoint.address)", port: endpoint.port)
                return
            }
            guard case .name(let host, let port)? = WGQuickFile.Endpoint(text) else { return nil }
            self.init(host: host, port: port)
        }

        package var description: String { host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]:\(port)" : "\(host):\(port)" }
    }

    package struct Tunnel: Sendable, Equatable {
        /// `nil` takes every host that has no tunnel of its own.
        package var domain: String?
        package var target: Target
        package var hostHeader: HostHeader
        package var isEnabled: Bool
    }

    package var common: CommonConfiguration
    package var interface: InterfaceSettings
    package var tunnels: [Tunnel]
    /// The TCP port inside the tunnel.
    package var listenPort: UInt16

    private static let keys = ["target", "host", "listen-port", "tunnel"]
    private static let tunnelKeys = ["domain", "target", "host", "enabled"]

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
        let tunnels = tunnels(&reader)
        if let interface, !interface.peers.contains(where: { $0.endpoint != nil }) {
            reader.report.warnings.append(
                ConfigurationFault(
                    .builtIn, key: "Endpoint", "no peer has an Endpoint: the agent waits to be contacted",
                    fix: "write Endpoint = HOST:PORT of the gateway"))
        }
        guard reader.report.faults.isEmpty, let interface else { return (nil, reader.report) }
        return (AgentConfiguration(common: common, interface: interface, tunnels: tunnels, listenPort: port ?? 80), reader.report)
    }

    private static func tunnels(_ reader: inout ConfigurationReader) -> [Tunnel] {
        let hostHeader = hostHeader(&reader, reader.setting(flag: "host", key: "host")) ?? .public
        var tunnels: [Tunnel] = []
        let targets = reader.settings(flags: ["target"], key: "target")
        if targets.count > 1, let last = targets.last {
            reader.fault(last.fault("is given \(targets.count) times", fix: "give one target, or [[tunnel]] tables in a --config file"))
        }
        if let setting = targets.first, let target = target(&reader, setting) {
            tunnels.append(Tunnel(domain: nil, target: target, hostHeader: hostHeader, isEnabled: true))
        }
        for (table, origin) in reader.tables("tunnel") {
            reader.refuseUnknownKeys(of: table, known: tunnelKeys, section: "[tunnel]")
            let header = self.hostHeader(&reader, reader.setting("host", in: table)) ?? hostHeader
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
            if tunnels.contains(where: { $0.domain == domain }) {
                reader.fault(domainSetting.fault("\(domain) is given twice", fix: "remove one of the two"))
            }
            tunnels.append(Tunnel(domain: domain, target: target, hostHeader: header, isEnabled: isEnabled))
        }
        if tunnels.isEmpty, reader.report.faults.isEmpty {
            reader.fault(
                ConfigurationFault(.builtIn, key: "--target", "there is no target", fix: "give --target HOST:PORT, such as 127.0.0.1:8080"))
        }
        return tunnels
    }

    private static func target(_ reader: inout ConfigurationReader, _ setting: Setting) -> Target? {
        reader.value(setting) { setting throws(ConfigurationFault) in
            let text = try setting.string("HOST:PORT")
            if let scheme = ["http://", "https://"].first(where: { text.lowercased().hasPrefix($0) }) {
                throw setting.fault("\(Setting.quoted(text)) has a scheme", fix: "write HOST:PORT without \(scheme)")
            }
            guard let target = Target(text) else {
                throw setting.fault("\(Setting.quoted(text)) is not a target", fix: "write HOST:PORT, such as 127.0.0.1:8080 or app:3000")
            }
            return target
        }
    }

    private static func hostHeader(_ reader: inout ConfigurationReader, _ setting: Setting?) -> HostHeader? {
        reader.value(setting) { setting throws(ConfigurationFault) in
            let text = try setting.string("public or target")
            guard let header = HostHeader(rawValue: text) else {
                throw setting.fault("\(Setting.quoted(text)) is not valid", fix: "write public (the visitor's Host) or target")
            }
            return header
        }
    }
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
