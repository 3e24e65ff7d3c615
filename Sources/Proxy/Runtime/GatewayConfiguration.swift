import Inet
import WGUserspace

/// Everything that `kakuremichi gateway` needs to know.
package struct GatewayConfiguration: Sendable {
    package var common: CommonConfiguration
    package var interface: InterfaceSettings
    /// Each with its gateway address: agents drop what comes from another.
    package var routes: [TunnelConfig]
    package var https: [SocketEndpoint]
    package var http: [SocketEndpoint]
    /// The port in the addresses that plain HTTP redirects to.
    package var publicHTTPSPort: UInt16
    package var certificates: [CertificateFiles]

    static let keys = ["https", "http", "public-https-port", "tunnel", "certificate"]
    private static let tunnelKeys = ["domain", "agent", "port", "gateway-ip", "enabled"]
    private static let certificateKeys = ["cert", "key", "domains"]

    /// Builds the configuration; `nil` in its place if there is any fault.
    package static func load(_ input: ConfigurationInput) -> (configuration: GatewayConfiguration?, report: ConfigurationReport) {
        var reader = ConfigurationReader(role: .gateway, input: input)
        reader.readDocument(knownKeys: keys)
        reader.checkControlSettings(hasLocalConfiguration: input.flags["wg"] != nil || reader.documentPath != nil)
        let common = reader.common()
        let interface = reader.interface()
        let https = listeners(
            &reader, key: "https", addressFlag: "https", portFlag: "https-port", variable: "HTTPS_PORT", standard: 443)
        let http = listeners(&reader, key: "http", addressFlag: "http", portFlag: "http-port", variable: "HTTP_PORT", standard: 80)
        let publicPort = reader.value(reader.setting(flag: "public-https-port", key: "public-https-port")) {
            port throws(ConfigurationFault) in
            UInt16(try port.integer(in: 1...65535))
        }
        let routes = routes(&reader, interface: interface)
        let certificates = certificates(&reader)
        if https.isEmpty, http.isEmpty, reader.report.faults.isEmpty {
            reader.fault(ConfigurationFault(.builtIn, key: "https", "nothing is listened on", fix: "give --https IP:PORT"))
        }
        for endpoint in https where http.contains(endpoint) && endpoint.port != 0 {
            reader.fault(ConfigurationFault(.builtIn, key: "http", "\(endpoint) is also in https", fix: "give each its own port"))
        }
        reader.warnOfACME()
        guard reader.report.faults.isEmpty, let interface else { return (nil, reader.report) }
        let configuration = GatewayConfiguration(
            common: common, interface: interface, routes: routes, https: https, http: http,
            publicHTTPSPort: publicPort ?? https.first?.port ?? 443,
            certificates: certificates)
        return (configuration, reader.report)
    }

    /// The addresses given, or the port of the original's setting on all addresses; "off" is none.
    private static func listeners(
        _ reader: inout ConfigurationReader, key: String, addressFlag: String, portFlag: String, variable: String, standard: UInt16
    ) -> [SocketEndpoint] {
        func anyAddress(_ port: UInt16) -> [SocketEndpoint] { [SocketEndpoint(.anyV6, port: port)] }
        let byAddress = reader.settings(flags: [addressFlag])
        if byAddress.isEmpty, let port = reader.setting(flag: portFlag, environment: variable) {
            return reader.value(port) { port throws(ConfigurationFault) in UInt16(try port.integer(in: 0...65535)) }.map(anyAddress) ?? []
        }
        let given = byAddress.isEmpty ? reader.settings(key: key) : byAddress
        if given.isEmpty { return anyAddress(standard) }
        var result: [SocketEndpoint] = []
        for setting in given {
            let elements = reader.value(setting) { setting throws(ConfigurationFault) in try setting.strings("IP:PORT") } ?? []
            for element in elements {
                if case .some("off") = try? element.string("") { continue }
                guard let endpoint = reader.value(element, { element throws(ConfigurationFault) in try element.listenAddress() }) else {
                    continue
                }
                if result.contains(endpoint), endpoint.port != 0 {
                    reader.fault(element.fault("\(endpoint) is given twice", fix: "remove one"))
                } else {
                    result.append(endpoint)
                }
            }
        }
        return result
    }

    // MARK: Routes

    private static func routes(_ reader: inout ConfigurationReader, interface: InterfaceSettings?) -> [TunnelConfig] {
        var routes: [TunnelConfig] = []
        let flags = reader.settings(flags: ["route"])
        if !flags.isEmpty {
            for flag in flags {
                guard let (domain, agent) = reader.value(flag, { flag throws(ConfigurationFault) in try parseRoute(flag) }) else {
                    continue
                }
                add(&routes, &reader, flag, domain: domain, agent: agent, gatewayIP: nil, isEnabled: true, interface: interface)
            }
            return routes
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
                guard let address = IPAddress(text), interface?.localAddresses.contains(address) ?? true else {
                    throw setting.fault(
                        "\(Setting.quoted(text)) is not an address of this interface",
                        fix: "write one of its Address lines, or leave it out")
                }
                return address
            }
            let isEnabled =
                reader.value(reader.setting("enabled", in: table)) { setting throws(ConfigurationFault) in try setting.boolean() } ?? true
            guard let domain, let agent else { continue }
            add(
                &routes, &reader, domainSetting, domain: domain, agent: agent, gatewayIP: gatewayIP, isEnabled: isEnabled,
                interface: interface)
        }
        if routes.isEmpty, reader.report.faults.isEmpty {
            reader.report.warnings.append(
                ConfigurationFault(
                    .builtIn, key: "route", "no route is given: every request is answered with 404", fix: "give --route DOMAIN=IP"))
        }
        return routes
    }

    private static func add(
        _ routes: inout [TunnelConfig], _ reader: inout ConfigurationReader, _ setting: Setting, domain: String, agent: SocketEndpoint,
        gatewayIP: IPAddress?, isEnabled: Bool, interface: InterfaceSettings?
    ) {
        if routes.contains(where: { $0.domain == domain }) {
            return reader.fault(setting.fault("\(domain) is given twice", fix: "remove one of the two"))
        }
        guard let interface else { return }
        if interface.localAddresses.contains(agent.address) {
            return reader.fault(setting.fault("\(agent.address) is this gateway's own address", fix: "write the agent's address"))
        }
        guard let source = gatewayIP ?? interface.sourceAddress(for: agent.address), source.family == agent.address.family else {
            let example = agent.address.family == .v4 ? "10.1.0.254/24" : "fd00::fe/64"
            return reader.fault(
                setting.fault(
                    "the interface has no address to reach \(agent.address) from",
                    fix: "add Address = \(example) (an address beside the agent's) to the WireGuard file"))
        }
        if !interface.peers.contains(where: { peer in peer.allowedIPs.contains { $0.contains(agent.address) } }) {
            reader.report.warnings.append(
                setting.fault(
                    "no peer's AllowedIPs holds \(agent.address): requests will be answered with 503", fix: "add it to the agent's [Peer]"))
        }
        routes.append(
            TunnelConfig(
                id: domain, domain: domain, agentVirtualIP: agent.address, port: agent.port, gatewayIP: source, target: "\(agent)",
                enabled: isEnabled))
    }

    /// `DOMAIN=IP[:PORT]`.
    private static func parseRoute(_ setting: Setting) throws(ConfigurationFault) -> (String, SocketEndpoint) {
        let text = try setting.string("DOMAIN=IP[:PORT]")
        guard let equals = text.firstIndex(of: "=") else {
            throw setting.fault("\(Setting.quoted(text)) is not a route", fix: "write DOMAIN=IP[:PORT], such as app.example.com=10.1.0.2")
        }
        let domain = try DomainName.parse(String(text[..<equals]), setting)
        return (domain, try parseAgent(String(text[text.index(after: equals)...]), setting))
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

    // MARK: Certificates

    private static func certificates(_ reader: inout ConfigurationReader) -> [CertificateFiles] {
        let certificate = reader.settings(flags: ["cert", "tls-cert-file"], environment: "TLS_CERT_FILE")
        let key = reader.settings(flags: ["key", "tls-key-file"], environment: "TLS_KEY_FILE")
        if !certificate.isEmpty || !key.isEmpty {
            guard certificate.count == key.count else {
                let (given, missing) = certificate.count > key.count ? (certificate, "--key") : (key, "--cert")
                if let given = given.last { reader.fault(given.fault("stands alone", fix: "give \(missing) FILE with it")) }
                return []
            }
            return zip(certificate, key).compactMap { pair(&reader, certificate: $0, key: $1, domains: []) }
        }
        return reader.tables("certificate").compactMap { table, origin in
            reader.refuseUnknownKeys(of: table, known: certificateKeys, section: "[certificate]")
            guard let certificate = reader.setting("cert", in: table), let key = reader.setting("key", in: table) else {
                let missing = table["cert"] == nil ? "cert" : "key"
                reader.fault(ConfigurationFault(origin, key: missing, "is missing", fix: "write \(missing) = \"FILE\""))
                return nil
            }
            let domains = reader.value(reader.setting("domains", in: table)) { setting throws(ConfigurationFault) in
                var domains: [String] = []
                for element in try setting.strings("a domain") {
                    domains.append(try DomainName.parse(try element.string("a domain"), element))
                }
                return domains
            }
            return pair(&reader, certificate: certificate, key: key, domains: domains ?? [])
        }
    }

    private static func pair(
        _ reader: inout ConfigurationReader, certificate: Setting, key: Setting, domains: [String]
    ) -> CertificateFiles? {
        func path(_ setting: Setting, holding marker: String) -> String? {
            guard
                let path = reader.value(
                    setting,
                    { setting throws(ConfigurationFault) in
                        SystemFiles.resolve(try setting.string("the path of a PEM file"), besides: setting.file)
                    }), let contents = reader.contents(of: path, for: setting)
            else { return nil }
            guard String(decoding: contents.bytes, as: UTF8.self).contains(marker) else {
                reader.fault(setting.fault("\(LogText.escape(path)) has no \"\(marker)\" line", fix: "name the right PEM file"))
                return nil
            }
            return path
        }
        let certificatePath = path(certificate, holding: "-----BEGIN CERTIFICATE-----")
        let keyPath = path(key, holding: "PRIVATE KEY-----")
        guard let certificatePath, let keyPath else { return nil }
        return CertificateFiles(domains: domains, certificateFile: certificatePath, keyFile: keyPath)
    }
}

extension ConfigurationReader {
    /// The original's ACME settings: what they ask for does not exist yet, and it must not seem so.
    fileprivate mutating func warnOfACME() {
        guard let email = setting(flag: "acme-email", environment: "ACME_EMAIL"), case .text(let text) = email.value,
            text != "admin@example.com"
        else { return }
        report.warnings.append(
            email.fault("certificates by ACME are not supported in this version", fix: "give --cert and --key, or use the internal CA"))
    }
}
