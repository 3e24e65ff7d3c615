/// The table `[alerts]` of a configuration file.
extension ConfigurationReader {
    mutating func alerts() -> AlertSettings {
        guard let entry = document.entry("alerts") else { return AlertSettings() }
        guard case .table(let table) = entry.value.kind else {
            fault(ConfigurationFault(.file(documentPath ?? "", entry.keyPosition), key: "alerts", "not a table", fix: "write [alerts]"))
            return AlertSettings()
        }
        refuseUnknownKeys(of: table, known: Self.alertKeys, section: "alerts")
        let exec = value(setting("exec", in: table)) { setting throws(ConfigurationFault) in
            let path = try setting.string("the absolute path of a program")
            guard path.hasPrefix("/"), path.utf8.count > 1, !path.utf8.contains(0) else {
                throw setting.fault("\(Setting.quoted(path)) is not an absolute path", fix: "write the absolute path of a program")
            }
            return path
        }
        if let exec, let setting = setting("exec", in: table) { warnUnlessRunnable(exec, setting) }
        return AlertSettings(webhook: webhook(table), exec: exec, mail: mail(table))
    }

    private mutating func webhook(_ table: TOMLTable) -> AlertSettings.Webhook? {
        let url = value(setting("webhook", in: table)) { setting throws(ConfigurationFault) in
            // Never quoted: it may hold a secret.
            guard let url = WebhookURL(try setting.string("a URL")) else {
                throw setting.fault(
                    "not a URL that alerts are sent to", fix: "write https://HOST/PATH, or http:// for a server on this machine")
            }
            return url
        }
        let format: AlertSettings.Webhook.Format? = choice("webhook-format", in: table, "json or slack")
        let token = secretFile("webhook-token-file", in: table)
        guard let url else {
            if table["webhook"] == nil { refuseAlone(["webhook-format", "webhook-token-file"], in: table, missing: "webhook = \"URL\"") }
            return nil
        }
        return AlertSettings.Webhook(url: url, format: format ?? .json, tokenFile: token)
    }

    private mutating func mail(_ table: TOMLTable) -> AlertSettings.Mail? {
        let to = value(setting("mail-to", in: table)) { setting throws(ConfigurationFault) in
            var all: [MailAddress] = []
            for element in try setting.strings("an address") {
                let address = try Self.address(element)
                if !all.contains(address) { all.append(address) }
            }
            guard !all.isEmpty, all.count <= MailMessage.maximumRecipients else {
                throw setting.fault("\(all.count) addresses", fix: "write 1 to \(MailMessage.maximumRecipients) addresses")
            }
            return all
        }
        let from = value(setting("mail-from", in: table)) { setting throws(ConfigurationFault) in try Self.address(setting) }
        let server = value(setting("smtp-server", in: table)) { setting throws(ConfigurationFault) in
            let text = try setting.string("HOST:PORT")
            guard let server = MailServer(text) else {
                throw setting.fault("\(Setting.quoted(text)) is not a mail server", fix: "write HOST:PORT, such as mail.example.com:587")
            }
            return server
        }
        let security: AlertSettings.Mail.Security? = choice("smtp-security", in: table, "starttls, tls or none")
        let username = value(setting("smtp-username", in: table)) { setting throws(ConfigurationFault) in
            let name = try setting.string("a name")
            guard (1...255).contains(name.utf8.count), name.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
                throw setting.fault("not the name of a user", fix: "write 1 to 255 bytes without control characters")
            }
            return name
        }
        let password = secretFile("smtp-password-file", in: table)
        guard table["mail-to"] != nil else {
            let others = ["mail-from", "smtp-server", "smtp-security", "smtp-username", "smtp-password-file"]
            refuseAlone(others, in: table, missing: "mail-to = \"ADDRESS\"")
            return nil
        }
        if table["smtp-server"] == nil { refuseAlone(["mail-to"], in: table, missing: "smtp-server = \"HOST:PORT\"") }
        if table["mail-from"] == nil { refuseAlone(["mail-to"], in: table, missing: "mail-from = \"ADDRESS\"") }
        if table["smtp-username"] != nil, table["smtp-password-file"] == nil {
            refuseAlone(["smtp-username"], in: table, missing: "smtp-password-file = \"FILE\"")
        }
        if table["smtp-password-file"] != nil, table["smtp-username"] == nil {
            refuseAlone(["smtp-password-file"], in: table, missing: "smtp-username = \"NAME\"")
        }
        if security == AlertSettings.Mail.Security.none, let server, !server.isLoopback, let setting = setting("smtp-security", in: table) {
            fault(setting.fault("\(server) is not on this machine, and mail to it would not be encrypted", fix: "write starttls or tls"))
            return nil
        }
        guard let to, let from, let server else { return nil }
        return AlertSettings.Mail(
            from: from, to: to, server: server, security: security ?? .startTLS, username: username, passwordFile: password)
    }

    private static func address(_ setting: Setting) throws(ConfigurationFault) -> MailAddress {
        let text = try setting.string("an address")
        guard let address = MailAddress(text) else {
            throw setting.fault(
                "\(Setting.quoted(text)) is not an address of mail", fix: "write one such as admin@example.com, without a name")
        }
        return address
    }

    /// One of the raw values of an enumeration.
    private mutating func choice<Choice: RawRepresentable>(_ key: String, in table: TOMLTable, _ expected: String) -> Choice?
    where Choice.RawValue == String {
        value(setting(key, in: table)) { setting throws(ConfigurationFault) in
            let text = try setting.string(expected)
            guard let choice = Choice(rawValue: text) else {
                throw setting.fault("\(Setting.quoted(text)) is not known", fix: "write \(expected)")
            }
            return choice
        }
    }

    /// The path of a file that holds a secret, which is looked at now so that its faults are told at the start.
    private mutating func secretFile(_ key: String, in table: TOMLTable) -> String? {
        guard let setting = setting(key, in: table) else { return nil }
        let path = value(setting) { setting throws(ConfigurationFault) in
            SystemFiles.resolve(try setting.string("the path of a file"), besides: setting.file)
        }
        guard let path, let contents = contents(of: path, for: setting) else { return nil }
        guard AlertSecret.parse(contents.bytes) != nil else {
            fault(
                setting.fault(
                    "\(LogText.escape(path)) does not hold one line of 1 to \(AlertSecret.longest) bytes",
                    fix: "write the secret into it, and nothing else"))
            return nil
        }
        if contents.isWorldReadable {
            report.warnings.append(
                ConfigurationFault(.file(path, nil), key: nil, "every user of this machine can read the secret in it", fix: "run chmod 600")
            )
        }
        return path
    }

    private mutating func refuseAlone(_ keys: [String], in table: TOMLTable, missing: String) {
        for key in keys {
            if let setting = setting(key, in: table) { fault(setting.fault("stands alone", fix: "write \(missing) with it")) }
        }
    }

    private static let alertKeys = [
        "webhook", "webhook-format", "webhook-token-file", "exec", "mail-to", "mail-from", "smtp-server", "smtp-security", "smtp-username",
        "smtp-password-file",
    ]
}

/// The one line of a file: a password or a token.
enum AlertSecret {
    /// Nil unless it is one line of printable characters.
    static func parse(_ bytes: [UInt8]) -> String? {
        var line = bytes[...]
        if line.last == 0x0A { line.removeLast() }
        if line.last == 0x0D { line.removeLast() }
        guard (1...longest).contains(line.count), line.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else { return nil }
        return String(validating: line, as: UTF8.self)
    }

    static func read(_ path: String) throws(AlertFault) -> String {
        do throws(FileError) {
            let contents = try SystemFiles.read(path, limit: longest + 2)
            if let text = parse(contents.bytes) { return text }
        } catch {
            throw AlertFault("\(error)")
        }
        throw AlertFault("\(path) does not hold one line of 1 to \(longest) bytes")
    }

    /// Bytes.
    static let longest = 512
}

extension AlertSettings {
    /// Reads the table and nothing else of a gateway's configuration, for a command that sends a test.
    package static func load(_ input: ConfigurationInput) -> (settings: AlertSettings, report: ConfigurationReport) {
        var reader = ConfigurationReader(role: .gateway, input: input)
        reader.readDocument(knownKeys: GatewayConfiguration.keys.filter { $0 != "alerts" } + ["alerts"])
        return (reader.alerts(), reader.report)
    }
}
