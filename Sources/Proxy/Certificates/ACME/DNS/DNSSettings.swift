import Inet
import Logging
import NIOCore

/// What `[acme.dns]` says: who changes the zones, and how it is looked whether the change can be seen.
package struct DNSProviderSettings: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        case cloudflare(token: Secret, endpoint: ACMEURL)
        case route53(signer: SigV4, hostedZone: String?, endpoint: ACMEURL)
        case rfc2136(server: SocketEndpoint, zone: DNSName?, key: TSIGKey)
        case exec(command: String, environment: [String: String])
        case webhook(url: ACMEURL, token: Secret?)
    }

    package var kind: Kind
    /// Asked in the place of the machine's resolvers.
    package var resolver: SocketEndpoint?
    package var propagationLimit: Duration
    package var propagationWait: Duration

    /// Reads `[acme.dns]` of the configuration by itself.
    package static func read(_ input: ConfigurationInput) -> (settings: DNSProviderSettings?, report: ConfigurationReport) {
        var reader = ConfigurationReader(role: .gateway, input: input)
        reader.readDocument(knownKeys: ["acme"])
        guard case .table(let acme)? = reader.document["acme"]?.kind, case .table(let dns)? = acme["dns"]?.kind else {
            return (nil, reader.report)
        }
        let settings = reader.dnsProvider(in: dns)
        return (settings, reader.report)
    }
}

/// The provider that the settings describe.
package func makeDNSProvider(_ settings: DNSProviderSettings, group: any EventLoopGroup) -> any DNSProvider {
    switch settings.kind {
    case .cloudflare(let token, let endpoint): CloudflareProvider(token: token, endpoint: endpoint, group: group)
    case .route53(let signer, let zone, let endpoint): Route53Provider(signer: signer, hostedZone: zone, endpoint: endpoint, group: group)
    case .rfc2136(let server, let zone, let key): RFC2136Provider(server: server, zone: zone, key: key, group: group)
    case .exec(let command, let environment): ExecProvider(command: command, environment: environment)
    case .webhook(let url, let token): WebhookProvider(url: url, token: token, group: group)
    }
}

/// The presenter of DNS-01 that the settings describe.
package func makeDNSChallenge(_ settings: DNSProviderSettings, group: any EventLoopGroup, logger: Logger) -> DNSChallenge {
    let resolver = DNSResolver.system(override: settings.resolver, group: group)
    return DNSChallenge(
        provider: makeDNSProvider(settings, group: group), resolver: resolver,
        propagation: DNSPropagation(resolver: resolver, limit: settings.propagationLimit, patience: settings.propagationWait),
        logger: logger)
}

extension ConfigurationReader {
    /// `[acme.dns]`. Nil when it has a fault, which is in the report then.
    mutating func dnsProvider(in table: TOMLTable) -> DNSProviderSettings? {
        let before = report.faults.count
        refuseInlineSecrets(in: table)
        let inline = Set(Self.inlineSecrets.keys)
        refuseUnknownKeys(
            of: TOMLTable(table.entries.filter { !inline.contains($0.key) }), known: Self.dnsKeys.sorted(), section: "acme.dns")
        let kind = dnsKind(in: table)
        let resolver = value(setting("resolver", in: table)) { setting throws(ConfigurationFault) in try setting.serverAddress() }
        let limit = value(setting("propagation-limit", in: table)) { setting throws(ConfigurationFault) in
            try setting.duration(in: .seconds(2)...Self.longestPropagation)
        }
        let wait = value(setting("propagation-wait", in: table)) { setting throws(ConfigurationFault) in
            try setting.duration(in: .seconds(0)...Self.longestPropagation)
        }
        let propagation = propagationTimes(in: table, limit: limit, wait: wait)
        guard let kind, report.faults.count == before else { return nil }
        return DNSProviderSettings(
            kind: kind, resolver: resolver, propagationLimit: propagation.limit, propagationWait: propagation.wait)
    }

    /// At the limit nobody decides any more, so that the wait must be over before.
    private mutating func propagationTimes(in table: TOMLTable, limit: TimeAmount?, wait: TimeAmount?) -> (limit: Duration, wait: Duration)
    {
        let limit = limit.map { Duration.nanoseconds($0.nanoseconds) } ?? DNSPropagation.limit
        guard let wait = wait.map({ Duration.nanoseconds($0.nanoseconds) }) else { return (limit, min(DNSPropagation.patience, limit / 2)) }
        if wait >= limit, let setting = setting("propagation-wait", in: table) {
            fault(
                setting.fault(
                    "is not shorter than propagation-limit, \(limit.components.seconds)s",
                    fix: "write a shorter time, or a propagation-limit that is longer (600s at most)"))
        }
        return (limit, wait)
    }

    private mutating func dnsKind(in table: TOMLTable) -> DNSProviderSettings.Kind? {
        let names = "cloudflare, route53, rfc2136, exec or webhook"
        guard let provider = setting("provider", in: table) else {
            fault(
                ConfigurationFault(
                    .file(documentPath ?? "", nil), key: "provider", "is missing in [acme.dns]", fix: "write one of \(names)"))
            return nil
        }
        let name = value(provider) { setting throws(ConfigurationFault) in
            let name = try setting.string(names)
            guard Self.dnsKeysOfProvider[name] != nil else {
                throw setting.fault("\(Setting.quoted(name)) is not known", fix: "write one of \(names)")
            }
            return name
        }
        guard let name, let own = Self.dnsKeysOfProvider[name] else { return nil }
        for entry in table.entries
        where Self.dnsKeys.contains(entry.key) && !own.contains(entry.key) && !Self.commonKeys.contains(entry.key) {
            fault(
                ConfigurationFault(
                    .file(documentPath ?? "", entry.keyPosition), key: entry.key, "the provider \(name) has no such key",
                    fix: own.isEmpty ? "remove it" : "\(name) has \(own.sorted().joined(separator: ", "))"))
        }
        switch name {
        case "cloudflare": return cloudflare(in: table)
        case "route53": return route53(in: table)
        case "rfc2136": return rfc2136(in: table)
        case "exec": return exec(in: table)
        default: return webhook(in: table)
        }
    }

    private mutating func cloudflare(in table: TOMLTable) -> DNSProviderSettings.Kind? {
        let token = secret("token-file", in: table, variables: ["CLOUDFLARE_API_TOKEN", "CF_API_TOKEN"], what: "the API token")
        let endpoint = url("endpoint", in: table, standard: CloudflareProvider.defaultEndpoint)
        guard let token, let endpoint else { return nil }
        return .cloudflare(token: token, endpoint: endpoint)
    }

    private mutating func route53(in table: TOMLTable) -> DNSProviderSettings.Kind? {
        let keyID =
            setting("access-key-id", in: table, variable: "AWS_ACCESS_KEY_ID").flatMap { plain($0, "an access key's identifier") }
            ?? secret(nil, in: table, variables: ["AWS_ACCESS_KEY_ID"])?.reveal()
        if keyID == nil {
            missing("access-key-id", "the access key's identifier", "give access-key-id, or AWS_ACCESS_KEY_ID in the environment")
        }
        let key = secret("secret-access-key-file", in: table, variables: ["AWS_SECRET_ACCESS_KEY"], what: "the secret access key")
        let session = secret("session-token-file", in: table, variables: ["AWS_SESSION_TOKEN"])
        let region = setting("region", in: table).flatMap { plain($0, "a region such as us-east-1") } ?? "us-east-1"
        let zone = setting("hosted-zone-id", in: table).flatMap { plain($0, "an identifier such as Z0123456789ABCDEFGHIJ") }
        let endpoint = url("endpoint", in: table, standard: Route53Provider.defaultEndpoint)
        guard let keyID, let key, let endpoint else { return nil }
        let signer = SigV4(accessKeyID: keyID, secretAccessKey: key, sessionToken: session, region: region, service: "route53")
        return .route53(signer: signer, hostedZone: zone, endpoint: endpoint)
    }

    private mutating func rfc2136(in table: TOMLTable) -> DNSProviderSettings.Kind? {
        let server = required("server", in: table, "the address of the zone's primary server, IP:PORT") {
            setting throws(ConfigurationFault) in
            try setting.serverAddress()
        }
        let zone = value(setting("zone", in: table)) { setting throws(ConfigurationFault) in
            let text = try setting.string("a zone such as example.com")
            guard let name = DNSName(text), !name.labels.isEmpty else {
                throw setting.fault("\(Setting.quoted(text)) is not a zone", fix: "write its name, such as example.com")
            }
            return name
        }
        let name = required("key-name", in: table, "the name of the TSIG key") { setting throws(ConfigurationFault) in
            try setting.string("the name of the TSIG key")
        }
        let algorithms = TSIGKey.Algorithm.allCases.map(\.rawValue).joined(separator: ", ")
        let algorithm = value(setting("key-algorithm", in: table)) { setting throws(ConfigurationFault) in
            let text = try setting.string(algorithms).lowercased()
            guard let algorithm = TSIGKey.Algorithm(rawValue: text.hasSuffix(".") ? String(text.dropLast()) : text) else {
                throw setting.fault("\(Setting.quoted(text)) is not known", fix: "write one of \(algorithms)")
            }
            return algorithm
        }
        let secret = secret("key-secret-file", in: table, variables: [], what: "the secret of the TSIG key, base64")
        guard let server, let name, let secret else { return nil }
        guard let key = TSIGKey(name: name, algorithm: algorithm ?? .sha256, secret: secret) else {
            if let setting = setting("key-secret-file", in: table) {
                fault(setting.fault("key-name is not a name, or the file holds no base64", fix: "write what tsig-keygen or keymgr prints"))
            }
            return nil
        }
        return .rfc2136(server: server, zone: zone, key: key)
    }

    private mutating func exec(in table: TOMLTable) -> DNSProviderSettings.Kind? {
        let command = required("command", in: table, "the path of a program") { setting throws(ConfigurationFault) in
            let path = SystemFiles.resolve(try setting.string("the path of a program"), besides: setting.file)
            guard path.contains("/"), !path.utf8.contains(0) else {
                throw setting.fault("is not a path", fix: "write one such as /usr/local/bin/hook; arguments and shell syntax are not taken")
            }
            return path
        }
        if let command, let setting = setting("command", in: table) { warnUnlessRunnable(command, setting) }
        return command.map { .exec(command: $0, environment: input.environment.filter { ExecProvider.passedOn.contains($0.key) }) }
    }

    private mutating func webhook(in table: TOMLTable) -> DNSProviderSettings.Kind? {
        let token = secret("token-file", in: table, variables: [])
        let url = required("url", in: table, "the URL to post to") { setting throws(ConfigurationFault) in try setting.httpsURL() }
        return url.map { .webhook(url: $0, token: token) }
    }

    /// An order has 15 minutes, with all of its names.
    private static let longestPropagation = TimeAmount.seconds(600)
    static let commonKeys: Set<String> = ["provider", "resolver", "propagation-limit", "propagation-wait"]
    static let dnsKeysOfProvider: [String: Set<String>] = [
        "cloudflare": ["token-file", "endpoint"],
        "route53": ["access-key-id", "secret-access-key-file", "session-token-file", "region", "hosted-zone-id", "endpoint"],
        "rfc2136": ["server", "zone", "key-name", "key-algorithm", "key-secret-file"],
        "exec": ["command"],
        "webhook": ["url", "token-file"],
    ]
    static let dnsKeys = dnsKeysOfProvider.values.reduce(commonKeys) { $0.union($1) }
    /// What somebody might write, and what is to be written.
    static let inlineSecrets = [
        "token": "token-file", "api-token": "token-file", "secret-access-key": "secret-access-key-file",
        "session-token": "session-token-file", "key-secret": "key-secret-file", "secret": "key-secret-file", "key": "key-secret-file",
    ]
}
