import NIOCore

extension ConfigurationReader {
    static let routeOptionKeys = ["protocol", "response-timeout", "upgrade", "idle-timeout"]

    /// Those that the file gives for all tunnels, and `--protocol`, which wins.
    mutating func routeOptions() -> RouteOptions {
        var options = routeOptions(in: document)
        if let flag = setting(flag: "protocol") {
            options.upstreamProtocol =
                value(flag) { setting throws(ConfigurationFault) in try setting.upstreamProtocol() } ?? options.upstreamProtocol
        }
        return options
    }

    /// The keys of a `[[tunnel]]` that say how it differs from the others.
    /// - Parameter standard: where the table says nothing.
    mutating func routeOptions(in table: TOMLTable, standard: RouteOptions = RouteOptions()) -> RouteOptions {
        var options = standard
        options.upstreamProtocol =
            value(setting("protocol", in: table)) { setting throws(ConfigurationFault) in try setting.upstreamProtocol() }
            ?? options.upstreamProtocol
        options.responseTimeout =
            value(setting("response-timeout", in: table)) { setting throws(ConfigurationFault) in
                setting.isOff ? .off : .after(try setting.duration(in: .milliseconds(100)...(.hours(24))))
            } ?? options.responseTimeout
        options.upgrades =
            value(setting("upgrade", in: table)) { setting throws(ConfigurationFault) in try setting.upgrades() } ?? options.upgrades
        options.upgradedIdle =
            value(setting("idle-timeout", in: table)) { setting throws(ConfigurationFault) in
                try setting.duration(in: .seconds(1)...(.hours(24)))
            } ?? options.upgradedIdle
        return options
    }
}

extension Setting {
    func upstreamProtocol() throws(ConfigurationFault) -> UpstreamProtocol {
        let text = try string("http1 or h2c")
        guard let choice = UpstreamProtocol(rawValue: text) else {
            throw fault("\(Self.quoted(text)) is not known", fix: "write http1, or h2c (HTTP/2 without TLS, for gRPC)")
        }
        return choice
    }

    /// Names of protocols, in lower case, each once. Those that would lead past the proxy's rules are refused (RFC 9110 §7.8).
    fileprivate func upgrades() throws(ConfigurationFault) -> [String] {
        let expected = "a protocol such as websocket"
        var result: [String] = []
        for element in try strings(expected) {
            let text = try element.string(expected).lowercased()
            guard !text.isEmpty, text.utf8.allSatisfy({ Self.isTokenByte($0) || $0 == UInt8(ascii: "/") }) else {
                throw element.fault("\(Self.quoted(text)) is not a protocol's name", fix: "write \(expected), or [] for none")
            }
            guard text != "h2c", text != "tls", !text.hasPrefix("tls/"), !text.hasPrefix("http/") else {
                throw element.fault(
                    "an upgrade to \(Self.quoted(text)) would lead past the proxy", fix: "remove it (protocol = \"h2c\" is for gRPC)")
            }
            if !result.contains(text) { result.append(text) }
        }
        return result
    }

    /// RFC 9110 §5.6.2.
    private static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}
