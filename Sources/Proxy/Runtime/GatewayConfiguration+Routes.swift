import Inet
import WGUserspace

extension GatewayConfiguration {
    private static let tunnelKeys = ["domain", "agent", "port", "gateway-ip", "enabled"] + ConfigurationReader.routeOptionKeys

    /// The routes, and where the domain of each stands.
    static func routes(
        _ reader: inout ConfigurationReader, interface file: InterfaceSettings?, running: [WGQuickFile.Address]? = nil
    ) -> (routes: [TunnelConfig], places: [String: Setting]) {
        var interface = file
        if let running { interface?.addresses = running }
        var routes: [TunnelConfig] = []
        var places: [String: Setting] = [:]
        let peers = interface.map { AllowedIPs($0.peers) } ?? AllowedIPs()
        let flags = reader.settings(flags: ["route"])
        if !flags.isEmpty {
            for flag in flags {
                guard let draft = reader.value(flag, { flag throws(ConfigurationFault) in try parseRoute(flag) }) else { continue }
                add(&routes, &places, &reader, flag, draft, interface: interface, peers: peers)
            }
            return (routes, places)
        }
        for (table, origin) in reader.tables("tunnel") {
            reader.refuseUnknownKeys(of: table, known: tunnelKeys, section: "[tunnel]")
            let place = Setting(value: .text(""), origin: origin, key: "tunnel")
            guard let domainSetting = reader.setting("domain", in: table), let agentSetting = reader.setting("agent", in: table) else {
                let missing = table["domain"] == nil ? "domain" : "agent"
                reader.fault(
                    place.fault(
                        "\(missing) is missing", fix: "write \(missing) = \"\(missing == "domain" ? "app.example.com" : "10.1.0.2")\""))
                continue
            }
            let domain = reader.value(domainSetting) { setting throws(ConfigurationFault) in
                try DomainName.parse(try setting.string("a domain"), setting)
            }
            var agent = reader.value(agentSetting) { setting throws(ConfigurationFault) in
                try parseAgent(try setting.string("the agent's address in the tunnel"), setting)
            }
            if let port = reader.value(
                reader.setting("port", in: table), { port throws(ConfigurationFault) in try port.integer(in: 1...65535) })
            {
                agent?.port = UInt16(port)
            }
            let gatewayIP = reader.value(reader.setting("gateway-ip", in: table)) { setting throws(ConfigurationFault) in
                let text = try setting.string("one of the interface's addresses")
                let address = IPAddress(text)
                guard let address, interface?.localAddresses.contains(address) ?? true else {
                    if let address, file?.localAddresses.contains(address) == true {
                        throw setting.fault(
                            "\(address) is not an address of the running interface, whose addresses change at the next start only",
                            fix: "restart the gateway")
                    }
                    throw setting.fault(
                        "\(Setting.quoted(text)) is not an address of this interface",
                        fix: "write one of its Address lines, or leave it out")
                }
                return address
            }
            let isEnabled =
                reader.value(reader.setting("enabled", in: table)) { setting throws(ConfigurationFault) in try setting.boolean() } ?? true
            let options = reader.routeOptions(in: table)
            guard let domain, let agent else { continue }
            let draft = Draft(domain: domain, agent: agent, gatewayIP: gatewayIP, isEnabled: isEnabled, options: options)
            add(&routes, &places, &reader, domainSetting, draft, interface: interface, peers: peers)
        }
        if routes.isEmpty, reader.report.faults.isEmpty {
            reader.report.warnings.append(
                ConfigurationFault(
                    .builtIn, key: "route", "no route is given: every request is answered with 404", fix: "give --route DOMAIN=IP"))
        }
        return (routes, places)
    }

    private static func add(
        _ routes: inout [TunnelConfig], _ places: inout [String: Setting], _ reader: inout ConfigurationReader, _ setting: Setting,
        _ draft: Draft, interface: InterfaceSettings?, peers: AllowedIPs
    ) {
        guard places.updateValue(setting, forKey: draft.domain) == nil else {
            return reader.fault(setting.fault("\(draft.domain) is given twice", fix: "remove one of the two"))
        }
        guard let interface else { return }
        guard let route = reader.value(setting, { setting throws(ConfigurationFault) in try draft.route(over: interface, setting) }) else {
            return
        }
        if let warning = unreachable(route, isOwned: peers.lookup(route.agentVirtualIP) != nil, setting) {
            reader.report.warnings.append(warning)
        }
        routes.append(route)
    }

    /// A route as it is written, not yet checked against the interface.
    struct Draft {
        var domain: String
        var agent: SocketEndpoint
        var gatewayIP: IPAddress?
        var isEnabled = true
        var options = RouteOptions()

        func route(over interface: InterfaceSettings, _ setting: Setting) throws(ConfigurationFault) -> TunnelConfig {
            if interface.localAddresses.contains(agent.address) {
                throw setting.fault("\(agent.address) is this gateway's own address", fix: "write the agent's address")
            }
            guard let source = gatewayIP ?? interface.sourceAddress(for: agent.address), source.family == agent.address.family else {
                let example = agent.address.family == .v4 ? "10.1.0.254/24" : "fd00::fe/64"
                throw setting.fault(
                    "the interface has no address to reach \(agent.address) from",
                    fix:
                        "add Address = \(example) (an address beside the agent's) to the WireGuard file, and restart the gateway if it runs"
                )
            }
            return TunnelConfig(
                id: domain, domain: domain, agentVirtualIP: agent.address, port: agent.port, gatewayIP: source, target: "\(agent)",
                enabled: isEnabled, options: options)
        }
    }

    /// The warning that a route cannot be served yet.
    /// - Parameter isOwned: whether a peer has the agent's address.
    static func unreachable(_ route: TunnelConfig, isOwned: Bool, _ setting: Setting) -> ConfigurationFault? {
        if isOwned { return nil }
        return setting.fault(
            "no peer's AllowedIPs holds \(route.agentVirtualIP): requests will be answered with 503", fix: "add it to the agent's [Peer]")
    }

    /// `DOMAIN=IP[:PORT]`.
    static func parseRoute(_ setting: Setting) throws(ConfigurationFault) -> Draft {
        let text = try setting.string("DOMAIN=IP[:PORT]")
        guard let equals = text.firstIndex(of: "=") else {
            throw setting.fault("\(Setting.quoted(text)) is not a route", fix: "write DOMAIN=IP[:PORT], such as app.example.com=10.1.0.2")
        }
        let domain = try DomainName.parse(String(text[..<equals]), setting)
        return Draft(domain: domain, agent: try parseAgent(String(text[text.index(after: equals)...]), setting))
    }

    /// `10.1.0.2`, `10.1.0.2:8080`, `[fd00::2]`, `[fd00::2]:80`.
    private static func parseAgent(_ text: String, _ setting: Setting) throws(ConfigurationFault) -> SocketEndpoint {
        var endpoint = SocketEndpoint(text)
        if endpoint == nil, text.hasPrefix("["), text.hasSuffix("]") { endpoint = SocketEndpoint("\(text):80") }
        if endpoint == nil, let address = IPAddress(text) {
            guard address.family == .v4 else {
                throw setting.fault("\(Setting.quoted(text)) lacks brackets", fix: "write [\(address)]:80")
            }
            endpoint = SocketEndpoint(address, port: 80)
        }
        guard let endpoint, endpoint.port > 0, endpoint.address.isUnicastInsideTunnel else {
            throw setting.fault(
                "\(Setting.quoted(text)) is not an address in the tunnel", fix: "write IP or IP:PORT, such as 10.1.0.2 or [fd00::2]:80")
        }
        return endpoint
    }
}

extension AllowedIPs {
    /// Which of the peers an address belongs to. A gateway may have as many routes as peers: no route looks at each of them.
    init(_ peers: [WGQuickFile.Peer]) {
        self.init()
        for (place, peer) in peers.enumerated() { for prefix in peer.allowedIPs { insert(prefix, peer: place) } }
    }
}
