import FoundationEssentials
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
    package var limits: LimitSettings
    /// Those in front of the gateway whose word on who the client is counts.
    package var trustedProxies: [IPPrefix]
    /// The path of the access log; "-" is standard output, `nil` is none.
    package var accessLog: String?
    /// Nil if certificates do not come by themselves.
    package var acme: ACMESettings?
    /// Who is told of certificates that end or are missing.
    package var alerts = AlertSettings()

    static let keys = [
        "https", "http", "public-https-port", "trusted-proxies", "access-log", "tunnel", "certificate", "limits", "acme", "cluster",
        "alerts",
    ]
    private static let certificateKeys = ["cert", "key", "domains", "default"]

    /// Builds the configuration; `nil` in its place if there is any fault.
    /// - Parameter running: at a reload the addresses that the interface has, which are those of its start: routes go over them,
    ///   whatever the file says now.
    package static func load(
        _ input: ConfigurationInput, over running: [WGQuickFile.Address]? = nil
    ) -> (configuration: GatewayConfiguration?, report: ConfigurationReport) {
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
        let accessLog = reader.value(reader.setting(flag: "access-log", key: "access-log")) { setting throws(ConfigurationFault) in
            let path = try setting.string("the path of a file, or -")
            return path == "-" ? path : SystemFiles.resolve(path, besides: setting.file)
        }
        let (routes, places) = routes(&reader, interface: interface, running: running)
        let certificates = certificates(&reader)
        let limits = reader.limits(ProxyLimits())
        let trustedProxies = trustedProxies(&reader)
        if https.isEmpty, http.isEmpty, reader.report.faults.isEmpty {
            reader.fault(ConfigurationFault(.builtIn, key: "https", "nothing is listened on", fix: "give --https IP:PORT"))
        }
        for endpoint in https where http.contains(endpoint) && endpoint.port != 0 {
            reader.fault(ConfigurationFault(.builtIn, key: "http", "\(endpoint) is also in https", fix: "give each its own port"))
        }
        let acme = reader.acme(stateDirectory: common.stateDirectory)
        let alerts = reader.alerts()
        if let acme {
            warnOfListeners(&reader, acme, https: https, http: http)
            warnOfWildcards(&reader, acme, routes, places, certificates)
        }
        guard reader.report.faults.isEmpty, let interface else { return (nil, reader.report) }
        let configuration = GatewayConfiguration(
            common: common, interface: interface, routes: routes, https: https, http: http,
            publicHTTPSPort: publicPort ?? https.first?.port ?? 443,
            certificates: certificates, limits: limits, trustedProxies: trustedProxies, accessLog: accessLog,
            acme: acme, alerts: alerts)
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

    private static func trustedProxies(_ reader: inout ConfigurationReader) -> [IPPrefix] {
        var result: [IPPrefix] = []
        for setting in reader.settings(flags: ["trusted-proxy"], key: "trusted-proxies") {
            let prefixes = reader.values(setting, "an address block such as 192.0.2.0/24") { IPPrefix($0) }
            if prefixes.contains(where: { $0.length == 0 }) {
                reader.report.warnings.append(
                    setting.fault("every visitor is trusted to say who they are", fix: "write the addresses of the proxies in front"))
            }
            result += prefixes
        }
        return result
    }

    // MARK: Certificates

    /// What a CA could not reach.
    private static func warnOfListeners(
        _ reader: inout ConfigurationReader, _ acme: ACMESettings, https: [SocketEndpoint], http: [SocketEndpoint]
    ) {
        for (type, isMissing, flag) in [(ACMEChallengeType.http01, http.isEmpty, "--http"), (.tlsALPN01, https.isEmpty, "--https")]
        where isMissing && acme.challenges.contains(type) {
            reader.report.warnings.append(
                ConfigurationFault(
                    .builtIn, key: "acme", "\(type.rawValue) needs a listener, and \(flag) is off",
                    fix: "give \(flag) IP:PORT, or leave \(type.rawValue) out of the challenges"))
        }
    }

    /// No other challenge is for them (RFC 8555 §7.1.3), so that without one there is never a certificate.
    private static func warnOfWildcards(
        _ reader: inout ConfigurationReader, _ acme: ACMESettings, _ routes: [TunnelConfig], _ places: [String: Setting],
        _ certificates: [CertificateFiles]
    ) {
        let wildcards = routes.filter { route in
            guard route.enabled, let domain = DomainPattern(route.domain), domain.isWildcard else { return false }
            return !acme.challenges.contains { $0.isUsable(for: domain) }
        }
        guard !wildcards.isEmpty else { return }
        let files = try? PEMCertificates.load(certificates, applicationProtocols: [], now: Date())
        for route in wildcards {
            guard let setting = places[route.domain], let domain = DomainPattern(route.domain), files?.byName[domain] == nil else {
                continue
            }
            reader.report.warnings.append(
                setting.fault(
                    "no certificate can be ordered for \(domain): a wildcard needs dns-01",
                    fix: "write [acme.dns], with dns-01 among the challenges if these are given; or name a certificate that is there"))
        }
    }

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
        var hasDefault = false
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
            let isDefault = reader.value(reader.setting("default", in: table)) { setting throws(ConfigurationFault) in
                let isDefault = try setting.boolean()
                guard !isDefault || !hasDefault else {
                    throw setting.fault("another certificate is the default already", fix: "leave one default = true")
                }
                return isDefault
            }
            if isDefault == true { hasDefault = true }
            var files = pair(&reader, certificate: certificate, key: key, domains: domains ?? [])
            files?.isDefault = isDefault ?? false
            return files
        }
    }

    private static func pair(
        _ reader: inout ConfigurationReader, certificate: Setting, key: Setting, domains: [String]
    ) -> CertificateFiles? {
        func path(_ setting: Setting, unless fault: (PEMContents) -> PEMContents.Fault?) -> String? {
            guard
                let path = reader.value(
                    setting,
                    { setting throws(ConfigurationFault) in
                        SystemFiles.resolve(try setting.string("the path of a PEM file"), besides: setting.file)
                    }), let contents = reader.contents(of: path, for: setting)
            else { return nil }
            guard let fault = fault(PEMContents(contents.bytes)) else { return path }
            reader.fault(setting.fault("\(LogText.escape(path)) \(fault.problem)", fix: fault.fix))
            return nil
        }
        let certificatePath = path(certificate) { $0.certificateFault }
        let keyPath = path(key) { $0.privateKeyFault }
        guard let certificatePath, let keyPath else { return nil }
        return CertificateFiles(domains: domains, certificateFile: certificatePath, keyFile: keyPath)
    }
}
