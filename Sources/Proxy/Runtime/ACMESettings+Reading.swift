import Inet
import NIOSSL

/// `[acme]` and `[cluster]`, their flags and variables.
extension ConfigurationReader {
    static let acmeKeys = [
        "email", "staging", "cache-dir", "directory", "staging-directory", "ca-file", "eab-key-id", "eab-key-file", "challenges",
        "profile", "preferred-issuer", "key-type", "gateway-name", "ca", "dns",
    ]
    private static let authorityKeys = ["directory", "staging-directory", "ca-file", "eab-key-id", "eab-key-file"]

    /// Nil if ACME is off: neither an e-mail address nor a directory is given.
    mutating func acme(stateDirectory: String?) -> ACMESettings? {
        let table = table("acme", known: Self.acmeKeys) ?? TOMLTable()
        let cluster = cluster()
        let email = value(setting(flag: "acme-email", environment: "ACME_EMAIL") ?? setting("email", in: table)) {
            setting throws(ConfigurationFault) in try Self.email(setting)
        }
        let stagingSetting = setting(flag: "acme-staging", environment: "ACME_STAGING") ?? setting("staging", in: table)
        let staging = stagingSetting.flatMap { (try? $0.boolean()) == true ? $0 : nil }
        let authorities = authorities(table, staging: staging)
        guard email?.isEmpty == false || !authorities.isEmpty else {
            warnOfUnusedACME(table, cluster)
            return nil
        }
        _ = value(stagingSetting) { setting throws(ConfigurationFault) in try setting.boolean() }
        var dns: DNSProviderSettings?
        if case .table(let table)? = table["dns"]?.kind {
            dns = dnsProvider(in: table)
        } else if let other = setting("dns", in: table) {
            fault(other.fault("not a table", fix: "write [acme.dns]"))
        }
        let isDNSConfigured = table["dns"] != nil
        guard
            let cache = value(
                setting(flag: "acme-cache-dir", environment: "ACME_CACHE_DIR") ?? setting("cache-dir", in: table),
                { setting throws(ConfigurationFault) in
                    let path = try setting.string("a directory")
                    return SystemFiles.resolve(path, besides: setting.file)
                }) ?? stateDirectory.map({ $0 + "/certificates" })
        else { return nil }
        var settings = ACMESettings(
            email: email ?? "", authorities: authorities.isEmpty ? standardAuthority(table, staging: staging) : authorities,
            cacheDirectory: cache, challenges: challenges(table, isDNSConfigured: isDNSConfigured, cluster), cluster: cluster)
        if settings.authorities.isEmpty { return nil }
        settings.dns = dns
        settings.profile = value(setting(flag: "acme-profile", environment: "ACME_PROFILE") ?? setting("profile", in: table)) {
            setting throws(ConfigurationFault) in
            try setting.string("a profile that the CA offers, such as shortlived")
        }
        settings.preferredIssuer = value(setting("preferred-issuer", in: table)) { setting throws(ConfigurationFault) in
            try setting.string("the common name of a root or intermediate certificate")
        }
        settings.keyKind =
            value(setting("key-type", in: table)) { setting throws(ConfigurationFault) in
                switch try setting.string("p256 or rsa2048") {
                case "p256": return .ecdsa
                case "rsa2048": return .rsa
                case let other: throw setting.fault("\(Setting.quoted(other)) is not known", fix: "write p256 or rsa2048")
                }
            } ?? .ecdsa
        settings.gatewayName =
            value(setting("gateway-name", in: table)) { setting throws(ConfigurationFault) in
                let text = try setting.string("a name of this gateway alone")
                guard let name = DomainPattern(text), !name.isWildcard else {
                    throw setting.fault("\(Setting.quoted(text)) is not a host name", fix: "write a name such as gw1.example.com")
                }
                return name
            } ?? nil
        if cluster.peers.count >= 4, settings.gatewayName == nil {
            report.warnings.append(
                ConfigurationFault(
                    .builtIn, key: "cluster",
                    "\(cluster.peers.count + 1) gateways order certificates for the same names: Let's Encrypt issues five equal ones in 7 days",
                    fix: "give each gateway a name of its own: [acme] gateway-name = \"gw1.example.com\""))
        }
        return settings
    }

    /// The table of that name; nil if there is none.
    mutating func table(_ name: String, known: [String]) -> TOMLTable? {
        guard let entry = document.entry(name) else { return nil }
        guard case .table(let table) = entry.value.kind else {
            fault(ConfigurationFault(.file(documentPath ?? "", entry.keyPosition), key: name, "not a table", fix: "write [\(name)]"))
            return nil
        }
        refuseUnknownKeys(of: table, known: known, section: name)
        return table
    }

    private mutating func warnOfUnusedACME(_ table: TOMLTable, _ cluster: ClusterSettings) {
        guard !table.entries.isEmpty || !cluster.peers.isEmpty, report.faults.isEmpty else { return }
        report.warnings.append(
            ConfigurationFault(
                .builtIn, key: table.entries.isEmpty ? "cluster" : "acme",
                "ACME is off: neither an e-mail address nor a directory is given",
                fix: "write email = \"you@example.com\" into [acme], or give --acme-email"))
    }

    private static func email(_ setting: Setting) throws(ConfigurationFault) -> String {
        let text = try setting.string("an e-mail address", mayBeEmpty: true)
        guard text.lowercased() != "admin@example.com" else {
            throw setting.fault(
                "admin@example.com is a placeholder, which once switched certificates off; no CA takes it",
                fix: "write your own address, or leave it out to have no ACME")
        }
        let parts = text.split(separator: "@", omittingEmptySubsequences: false)
        guard
            text.isEmpty
                || parts.count == 2 && !parts[0].isEmpty && DomainPattern(parts[1]) != nil && parts[1].contains(".")
                    && text.utf8.allSatisfy({ (0x21...0x7E).contains($0) && !#"<>,;"%?&"#.utf8.contains($0) })
        else { throw setting.fault("\(Setting.quoted(text)) is not an e-mail address", fix: "write one such as you@example.com") }
        return text
    }

    // MARK: Authorities

    /// - Parameter staging: the setting that is on, if it is.
    private mutating func authorities(_ table: TOMLTable, staging: Setting?) -> [ACMEAuthority] {
        let flags = settings(flags: ["acme-directory"], environment: "ACME_DIRECTORY")
        if table["ca"] != nil {
            for entry in table.entries where Self.authorityKeys.contains(entry.key) {
                fault(
                    ConfigurationFault(
                        .file(documentPath ?? "", entry.keyPosition), key: entry.key, "stands beside [[acme.ca]]",
                        fix: "write it into one of the [[acme.ca]] tables, or write no such table"))
            }
        }
        if flags.isEmpty, table["ca"] != nil {
            return tables("ca", in: table).compactMap { table, _ in
                refuseUnknownKeys(of: table, known: Self.authorityKeys, section: "[acme.ca]")
                guard let directory = setting("directory", in: table) else {
                    fault(
                        ConfigurationFault(
                            .file(documentPath ?? "", nil), key: "acme.ca", "directory is missing", fix: "write directory = \"letsencrypt\""
                        ))
                    return nil
                }
                return authority(directory, table, hasFlags: false, staging: staging)
            }
        }
        var given = flags
        if given.isEmpty, let setting = setting("directory", in: table) {
            given = value(setting) { setting throws(ConfigurationFault) in try setting.strings("a directory") } ?? []
        }
        return given.compactMap { authority($0, table, hasFlags: true, staging: staging) }
    }

    private mutating func standardAuthority(_ table: TOMLTable, staging: Setting?) -> [ACMEAuthority] {
        let setting = Setting(value: .text("letsencrypt"), origin: .builtIn, key: "acme-directory")
        return authority(setting, table, hasFlags: true, staging: staging).map { [$0] } ?? []
    }

    private mutating func authority(
        _ directory: Setting, _ table: TOMLTable, hasFlags: Bool, staging: Setting?
    ) -> ACMEAuthority? {
        func given(_ flag: String, _ variable: String, _ key: String) -> Setting? {
            (hasFlags ? setting(flag: flag, environment: variable) : nil) ?? setting(key, in: table)
        }
        var rehearsal = value(setting("staging-directory", in: table)) { setting throws(ConfigurationFault) in
            try Self.url(setting, try setting.string("a URL"))
        }
        let url = value(directory) { setting throws(ConfigurationFault) -> ACMEURL in
            let text = try setting.string("the URL of an ACME directory, or letsencrypt, letsencrypt-staging, zerossl")
            let known = ACMEAuthority.known.first { $0.name == text }
            if let staging {
                if let directory = known?.staging { return try Self.url(setting, directory) }
                guard known?.name == "letsencrypt-staging" else {
                    throw staging.fault(
                        "is for letsencrypt alone, and another directory is given",
                        fix: "write that CA's staging directory as directory, and no staging")
                }
            }
            guard let known else { return try Self.url(setting, text) }
            if let staging = known.staging, rehearsal == nil { rehearsal = try Self.url(setting, staging) }
            return try Self.url(setting, known.directory)
        }
        let readFile = input.readFile
        let trustFile = value(given("acme-ca-file", "ACME_CA_FILE", "ca-file")) { setting throws(ConfigurationFault) -> String in
            let path = SystemFiles.resolve(try setting.string("a file with PEM certificates"), besides: setting.file)
            let bytes: [UInt8]
            do throws(FileError) { bytes = try readFile(path).bytes } catch { throw setting.fault("\(error)", fix: "") }
            guard (try? NIOSSLCertificate.fromPEMBytes(bytes))?.isEmpty == false else {
                let problem = PEMContents(bytes).certificateFault?.problem ?? "holds a certificate that cannot be parsed"
                throw setting.fault("\(LogText.escape(path)) \(problem)", fix: "name a PEM file with the roots of the CA")
            }
            return path
        }
        let account = externalAccount(
            given("acme-eab-key-id", "ACME_EAB_KEY_ID", "eab-key-id"), given("acme-eab-key-file", "ACME_EAB_KEY_FILE", "eab-key-file"))
        guard let url else { return nil }
        if url.text.contains("acme.zerossl.com"), account == nil {
            fault(
                directory.fault(
                    "ZeroSSL wants an external account", fix: "write eab-key-id and eab-key-file, which its site gives you"))
        }
        return ACMEAuthority(directory: url, rehearsal: rehearsal, trustFile: trustFile, externalAccount: account)
    }

    private static func url(_ setting: Setting, _ text: String) throws(ConfigurationFault) -> ACMEURL {
        do throws(ACMEFault) {
            return try ACMEURL(text)
        } catch {
            throw setting.fault(error.reason, fix: "write a URL such as https://acme.example.com/directory")
        }
    }

    private mutating func externalAccount(_ identifier: Setting?, _ file: Setting?) -> ExternalAccount? {
        guard let identifier, let file else {
            if let alone = identifier ?? file {
                fault(alone.fault("stands alone", fix: "give both eab-key-id and eab-key-file"))
            }
            return nil
        }
        guard let keyID = value(identifier, { setting throws(ConfigurationFault) in try setting.string("a key identifier") }),
            let path = value(
                file,
                { setting throws(ConfigurationFault) in
                    SystemFiles.resolve(try setting.string("a file"), besides: setting.file)
                })
        else { return nil }
        do throws(FileError) {
            let contents = try input.readFile(path)
            if contents.isWorldReadable { warnWorldReadable(path) }
            let text = String(decoding: contents.bytes.prefix(4_096), as: UTF8.self).filter { !$0.isWhitespace }
            if let account = ExternalAccount(keyID: keyID, hmacKey: text) { return account }
            fault(file.fault("\(LogText.escape(path)) holds no HMAC key in base64url", fix: "write the key as the CA shows it"))
        } catch {
            fault(file.fault("\(error)", fix: ""))
        }
        return nil
    }

    // MARK: Challenges

    private mutating func challenges(_ table: TOMLTable, isDNSConfigured: Bool, _ cluster: ClusterSettings) -> [ACMEChallengeType] {
        guard let setting = setting(flag: "acme-challenges", environment: "ACME_CHALLENGES") ?? setting("challenges", in: table) else {
            let direct: [ACMEChallengeType] = cluster.peers.isEmpty ? ACMESettings.standardChallenges : [.http01]
            return isDNSConfigured ? direct + [.dns01] : direct
        }
        let known = ACMEChallengeType.allCases.map(\.rawValue).joined(separator: ", ")
        let before = report.faults.count
        var result: [ACMEChallengeType] = []
        for element in value(setting, { setting throws(ConfigurationFault) in try setting.strings("a challenge type") }) ?? [] {
            for word in ((try? element.string("")) ?? "").split(whereSeparator: { $0 == "," || $0 == " " }) {
                guard let type = ACMEChallengeType(rawValue: String(word)) else {
                    fault(element.fault("\(Setting.quoted(String(word))) is not a challenge type", fix: "write some of \(known)"))
                    continue
                }
                if !result.contains(type) { result.append(type) }
            }
        }
        if result.isEmpty, report.faults.count == before {
            fault(setting.fault("no challenge type is given", fix: "write some of \(known)"))
        }
        if result.contains(.dns01), !isDNSConfigured {
            fault(setting.fault("dns-01 needs a DNS provider", fix: "write [acme.dns] with provider = \"...\" into the file"))
        }
        if result.contains(.tlsALPN01), !cluster.peers.isEmpty {
            report.warnings.append(
                setting.fault("another gateway cannot answer tls-alpn-01, and DNS may send the CA there", fix: "leave it out"))
        }
        return result
    }

    // MARK: Cluster

    private mutating func cluster() -> ClusterSettings {
        guard let table = table("cluster", known: ["peers"]) else { return ClusterSettings() }
        var peers: [ClusterSettings.Peer] = []
        for (peer, _) in tables("peers", in: table) {
            refuseUnknownKeys(of: peer, known: ["address", "account_thumbprint", "account-thumbprint"], section: "[cluster.peers]")
            guard let addressSetting = setting("address", in: peer),
                let thumbprintSetting = setting("account_thumbprint", in: peer) ?? setting("account-thumbprint", in: peer)
            else {
                let place = ConfigurationFault.Origin.file(documentPath ?? "", table.entry("peers")?.value.position)
                fault(
                    ConfigurationFault(
                        place, key: "peers", "a peer lacks its address or account_thumbprint",
                        fix: "write peers = [{ address = \"192.0.2.2:80\", account_thumbprint = \"...\" }]"))
                continue
            }
            let address = value(addressSetting) { setting throws(ConfigurationFault) -> SocketEndpoint in
                let text = try setting.string("IP or IP:PORT")
                if let endpoint = SocketEndpoint(text), endpoint.port > 0 { return endpoint }
                if let address = IPAddress(text) { return SocketEndpoint(address, port: 80) }
                throw setting.fault("\(Setting.quoted(text)) is not an address", fix: "write IP or IP:PORT of its plain HTTP listener")
            }
            let thumbprint = value(thumbprintSetting) { setting throws(ConfigurationFault) -> String in
                let text = try setting.string("the thumbprint of its ACME account")
                guard text.utf8.count == GatewayCluster.thumbprintLength, Base64URL.isAlphabetic(text) else {
                    throw setting.fault(
                        "not a thumbprint of \(GatewayCluster.thumbprintLength) characters",
                        fix: "write what `kakuremichi certs account` prints on that gateway")
                }
                return text
            }
            if let address, let thumbprint { peers.append(ClusterSettings.Peer(address: address, thumbprint: thumbprint)) }
        }
        if peers.count > Self.maximumClusterPeers {
            fault(
                ConfigurationFault(
                    .builtIn, key: "cluster", "more than \(Self.maximumClusterPeers) peers", fix: "use dns-01, which needs no peers"))
        }
        return ClusterSettings(peers: peers)
    }

    /// Each unknown token is asked of all.
    private static var maximumClusterPeers: Int { 32 }
}
