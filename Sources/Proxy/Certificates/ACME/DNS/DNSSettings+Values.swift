import Inet

/// Values of `[acme.dns]`. What is secret comes from a file or the environment, and is in no fault.
extension ConfigurationReader {
    mutating func refuseInlineSecrets(in table: TOMLTable) {
        for entry in table.entries {
            guard let key = Self.inlineSecrets[entry.key] else { continue }
            fault(
                ConfigurationFault(
                    .file(documentPath ?? "", entry.keyPosition), key: entry.key, "secrets do not stand in this file",
                    fix: "write it to a file of mode 600, and its path as \(key)"))
        }
    }

    /// A secret: of the first variable that is set, of the file that a variable `..._FILE` names, or of the file that the key names.
    /// - Parameter what: tells the operator what is missing; nil if it may be.
    mutating func secret(_ key: String?, in table: TOMLTable, variables: [String], what: String? = nil) -> Secret? {
        for variable in variables {
            if let text = input.environment[variable].map(KeyFiles.trimmed), !text.isEmpty { return checked(text, .environment, variable) }
            if let path = input.environment[variable + "_FILE"], !path.isEmpty {
                return secret(at: path, .environment, variable + "_FILE")
            }
        }
        if let key, let setting = setting(key, in: table) {
            let path = value(setting) { setting throws(ConfigurationFault) in
                SystemFiles.resolve(try setting.string("the path of a file"), besides: setting.file)
            }
            return path.flatMap { secret(at: $0, setting.origin, key) }
        }
        if let key, let what {
            let others = variables.isEmpty ? "" : ", or \(variables[0]) or \(variables[0])_FILE in the environment"
            missing(key, what, "give \(key)\(others)")
        }
        return nil
    }

    private mutating func secret(at path: String, _ origin: ConfigurationFault.Origin, _ key: String) -> Secret? {
        do throws(FileError) {
            let contents = try input.readFile(path)
            if contents.isWorldReadable {
                report.warnings.append(
                    ConfigurationFault(
                        .file(path, nil), key: nil, "every user of this machine can read the secret in it", fix: "run chmod 600"))
            }
            return checked(KeyFiles.trimmed(String(decoding: contents.bytes, as: UTF8.self)), origin, key)
        } catch {
            fault(ConfigurationFault(origin, key: key, "\(LogText.escape(path)) \(error.message)", fix: error.advice))
            return nil
        }
    }

    /// It becomes part of a header.
    private mutating func checked(_ text: String, _ origin: ConfigurationFault.Origin, _ key: String) -> Secret? {
        guard (1...4_096).contains(text.utf8.count), text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            fault(
                ConfigurationFault(
                    origin, key: key, text.isEmpty ? "there is nothing in it" : "it holds more than one word of printable ASCII",
                    fix: "write the secret alone, in one line"))
            return nil
        }
        return Secret(text)
    }

    func setting(_ key: String, in table: TOMLTable, variable: String) -> Setting? {
        if let value = input.environment[variable], !value.isEmpty {
            return Setting(value: .text(value), origin: .environment, key: variable)
        }
        return setting(key, in: table)
    }

    mutating func required<Value>(
        _ key: String, in table: TOMLTable, _ what: String, _ convert: (Setting) throws(ConfigurationFault) -> Value
    ) -> Value? {
        guard let setting = setting(key, in: table) else {
            missing(key, what, "give \(key)")
            return nil
        }
        return value(setting, convert)
    }

    mutating func missing(_ key: String, _ what: String, _ fix: String) {
        fault(ConfigurationFault(.file(documentPath ?? "", nil), key: key, "\(what) is missing in [acme.dns]", fix: fix))
    }

    /// One word of letters, digits and `-`: it becomes part of a header or a path.
    mutating func plain(_ setting: Setting, _ expected: String) -> String? {
        value(setting) { setting throws(ConfigurationFault) in
            let text = try setting.string(expected)
            guard (1...128).contains(text.utf8.count), Base64URL.isAlphabetic(text) else {
                throw setting.fault("is not valid", fix: "write \(expected)")
            }
            return text
        }
    }

    mutating func url(_ key: String, in table: TOMLTable, standard: String) -> ACMEURL? {
        guard let setting = setting(key, in: table) else { return try? ACMEURL(standard) }
        return value(setting) { setting throws(ConfigurationFault) in try setting.httpsURL() }
    }
}

extension Setting {
    /// `IP:PORT`, or an address alone for port 53.
    func serverAddress() throws(ConfigurationFault) -> SocketEndpoint {
        let text = try string("IP:PORT")
        if let endpoint = SocketEndpoint(text), endpoint.port > 0 { return endpoint }
        if let address = IPAddress(text) { return SocketEndpoint(address, port: 53) }
        throw fault(
            "\(Setting.quoted(text)) is not the address of a server", fix: "write IP:PORT, such as 192.0.2.1:53 or [2001:db8::1]:53")
    }

    func httpsURL() throws(ConfigurationFault) -> ACMEURL {
        let text = try string("an https URL")
        // Never quoted: it may hold a secret.
        guard let url = try? ACMEURL(text) else {
            throw fault("not an https URL", fix: "write https://HOST/PATH (http only to a loopback address)")
        }
        return url
    }
}
