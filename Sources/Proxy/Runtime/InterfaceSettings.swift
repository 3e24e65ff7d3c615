import Inet
import Noise
import WGUserspace

/// The WireGuard side of a role: one private key, its addresses in the tunnel, its peers.
package struct InterfaceSettings: Sendable {
    package static let defaultMTU = 1420

    package var privateKey: StoredPrivateKey
    package var addresses: [WGQuickFile.Address]
    /// The UDP port; 0 lets the system choose.
    package var listenPort: UInt16
    package var mtu: Int
    package var peers: [WGQuickFile.Peer]

    package var localAddresses: [IPAddress] { addresses.map(\.address) }

    /// Where packets to `remote` come from: the address whose block holds it (the narrowest), else the first of its family.
    package func sourceAddress(for remote: IPAddress) -> IPAddress? {
        let holding = addresses.filter { $0.prefix.contains(remote) }.max { $0.prefix.length < $1.prefix.length }
        return (holding ?? addresses.first { $0.address.family == remote.family })?.address
    }
}

extension ConfigurationReader {
    private static let interfaceKeys = ["config", "private-key", "private-key-file", "address", "listen-port", "mtu", "peer"]
    private static let peerKeys = ["public-key", "preshared-key", "preshared-key-file", "allowed-ips", "endpoint", "persistent-keepalive"]

    /// A part of an interface before it is known to be complete.
    private struct Draft {
        var origin: ConfigurationFault.Origin
        var privateKey: StoredPrivateKey?
        var addresses: [WGQuickFile.Address] = []
        var listenPort: UInt16?
        var mtu: Int?
        var peers: [WGQuickFile.Peer] = []
        /// A key was given and is wrong: its absence is no second fault.
        var hasFaultyKey = false
    }

    /// Reads `--wg FILE` or the table `[wireguard]`, then applies flags and variables. `nil` after a fault.
    mutating func interface() -> InterfaceSettings? {
        guard var draft = draft() else { return nil }
        overrideKey(of: &draft)
        if let port = setting(flag: "wireguard-port", environment: "WIREGUARD_PORT") {
            if role == .gateway || port.origin == .flag {
                draft.listenPort = value(port) { port throws(ConfigurationFault) in UInt16(try port.integer(in: 0...65535)) }
            }
        }
        let mtu = draft.mtu ?? InterfaceSettings.defaultMTU
        if draft.addresses.isEmpty {
            fault(
                ConfigurationFault(
                    draft.origin, key: "Address", "the interface has no address", fix: "write its own, such as Address = 10.1.0.2/24"))
        }
        if mtu < 1280, draft.addresses.contains(where: { $0.address.family == .v6 }) {
            fault(ConfigurationFault(draft.origin, key: "MTU", "\(mtu) is too small for IPv6", fix: "write 1280 or more (RFC 8200 §5)"))
        }
        for peer in draft.peers where peer.allowedIPs.isEmpty {
            let origin: ConfigurationFault.Origin
            if case .file(let path, _) = draft.origin {
                origin = .file(path, TOMLPosition(line: peer.line, column: 1))
            } else {
                origin = draft.origin
            }
            report.warnings.append(
                ConfigurationFault(
                    origin, key: "AllowedIPs", "the peer has none: nothing can be sent to it", fix: "write its addresses in the tunnel"))
        }
        guard let privateKey = draft.privateKey else {
            if !draft.hasFaultyKey {
                fault(
                    ConfigurationFault(
                        draft.origin, key: "PrivateKey", "there is no private key",
                        fix: "make one by kakuremichi keys, or by kakuremichi init"))
            }
            return nil
        }
        for peer in draft.peers where peer.publicKey == privateKey.key.publicKey {
            fault(
                ConfigurationFault(
                    draft.origin, key: "PublicKey", "a peer has this interface's own key", fix: "write the other side's public key"))
        }
        guard !draft.addresses.isEmpty else { return nil }
        return InterfaceSettings(
            privateKey: privateKey, addresses: draft.addresses, listenPort: draft.listenPort ?? 0, mtu: mtu, peers: draft.peers)
    }

    private mutating func draft() -> Draft? {
        if let flag = setting(flag: "wg") { return wgQuick(flag) }
        guard let section = document.entry("wireguard") else {
            if report.faults.isEmpty {
                fault(
                    ConfigurationFault(
                        documentPath.map { .file($0, nil) } ?? .flag, key: documentPath == nil ? "--wg" : "wireguard",
                        "no WireGuard configuration is given",
                        fix: documentPath == nil
                            ? "give --wg FILE or --config FILE (kakuremichi init makes both sides' files)" : "write [wireguard]"))
            }
            return nil
        }
        guard case .table(let table) = section.value.kind else {
            fault(
                ConfigurationFault(
                    .file(documentPath ?? "", section.keyPosition), key: "wireguard", "not a table", fix: "write [wireguard]"))
            return nil
        }
        refuseUnknownKeys(of: table, known: Self.interfaceKeys, section: "wireguard")
        if let path = setting("config", in: table) {
            for entry in table.entries where entry.key != "config" && Self.interfaceKeys.contains(entry.key) {
                fault(
                    ConfigurationFault(
                        .file(documentPath ?? "", entry.keyPosition), key: entry.key, "stands beside config",
                        fix: "write either config = FILE or the interface itself"))
            }
            return wgQuick(path)
        }
        return inline(table, origin: .file(documentPath ?? "", section.keyPosition))
    }

    private mutating func wgQuick(_ setting: Setting) -> Draft? {
        guard
            let path = value(
                setting,
                { setting throws(ConfigurationFault) in
                    SystemFiles.resolve(try setting.string("the path of a wg-quick file"), besides: setting.file)
                }), let contents = contents(of: path, for: setting)
        else { return nil }
        func place(_ fault: WGQuickFault) -> ConfigurationFault {
            ConfigurationFault(.file(path, TOMLPosition(line: fault.line, column: fault.column)), key: nil, fault.message, fix: "")
        }
        do throws(WGQuickError) {
            let file = try WGQuickFile(contents.bytes.span.bytes)
            report.warnings += file.warnings.map(place)
            if contents.isWorldReadable, file.privateKey != nil || file.peers.contains(where: { $0.presharedKey != nil }) {
                warnWorldReadable(path)
            }
            return Draft(
                origin: .file(path, TOMLPosition(line: file.interfaceLine, column: 1)), privateKey: file.privateKey,
                addresses: file.addresses,
                listenPort: file.listenPort, mtu: file.mtu, peers: file.peers)
        } catch {
            report.faults += error.faults.map(place)
            return nil
        }
    }

    mutating func contents(of path: String, for setting: Setting) -> SystemFiles.Contents? {
        do throws(FileError) {
            return try input.readFile(path)
        } catch {
            fault(setting.fault("\(LogText.escape(path)) \(error.message)", fix: error.advice))
            return nil
        }
    }

    // MARK: Keys

    private mutating func overrideKey(of draft: inout Draft) {
        if role == .agent, let given = setting(flag: "wireguard-private-key", environment: "WIREGUARD_PRIVATE_KEY") {
            if given.origin == .flag {
                report.warnings.append(given.fault("the key is visible in the list of processes", fix: "give it by a file"))
            }
            draft.privateKey = privateKey(given)
            draft.hasFaultyKey = draft.privateKey == nil
        } else if let file = setting(flag: "wireguard-key-file", environment: role == .gateway ? "WIREGUARD_KEY_FILE" : nil) {
            draft.privateKey = privateKeyFile(file)
            draft.hasFaultyKey = draft.privateKey == nil
        }
    }

    private mutating func privateKey(_ setting: Setting) -> StoredPrivateKey? {
        value(setting) { setting throws(ConfigurationFault) in
            let text = try setting.string("the 44 characters that kakuremichi keys prints")
            guard let key = PrivateKey(base64: KeyFiles.trimmed(text)) else {
                throw setting.fault("not a private key", fix: KeyFiles.advice)
            }
            return StoredPrivateKey(key)
        }
    }

    private mutating func privateKeyFile(_ setting: Setting) -> StoredPrivateKey? {
        guard
            let path = value(
                setting,
                { setting throws(ConfigurationFault) in
                    SystemFiles.resolve(try setting.string("the path of a key file"), besides: setting.file)
                }), let contents = contents(of: path, for: setting)
        else { return nil }
        if contents.isWorldReadable { warnWorldReadable(path) }
        guard let key = PrivateKey(base64: KeyFiles.trimmed(String(decoding: contents.bytes, as: UTF8.self))) else {
            fault(setting.fault("\(LogText.escape(path)) does not hold a private key", fix: KeyFiles.advice))
            return nil
        }
        return StoredPrivateKey(key)
    }

    private mutating func presharedKey(of table: TOMLTable) -> StoredPresharedKey? {
        let text: String
        let given: Setting
        if let inline = setting("preshared-key", in: table) {
            guard let string = value(inline, { setting throws(ConfigurationFault) in try setting.string("a preshared key") }) else {
                return nil
            }
            (text, given) = (string, inline)
        } else if let file = setting("preshared-key-file", in: table) {
            guard
                let path = value(
                    file,
                    { setting throws(ConfigurationFault) in
                        SystemFiles.resolve(try setting.string("the path of a key file"), besides: setting.file)
                    }), let contents = contents(of: path, for: file)
            else { return nil }
            if contents.isWorldReadable { warnWorldReadable(path) }
            (text, given) = (String(decoding: contents.bytes, as: UTF8.self), file)
        } else {
            return nil
        }
        guard let key = PresharedKey(base64: KeyFiles.trimmed(text)) else {
            fault(given.fault("not a preshared key", fix: "write the 44 characters that wg genpsk prints"))
            return nil
        }
        return StoredPresharedKey(key)
    }

    // MARK: [wireguard]

    private mutating func inline(_ table: TOMLTable, origin: ConfigurationFault.Origin) -> Draft {
        var draft = Draft(origin: origin)
        if let key = setting("private-key", in: table) {
            draft.privateKey = privateKey(key)
            draft.hasFaultyKey = draft.privateKey == nil
        } else if let file = setting("private-key-file", in: table) {
            draft.privateKey = privateKeyFile(file)
            draft.hasFaultyKey = draft.privateKey == nil
        }
        draft.addresses = values(setting("address", in: table), "an address such as 10.1.0.2/24") { WGQuickFile.Address($0) }
        draft.listenPort = value(setting("listen-port", in: table)) { port throws(ConfigurationFault) in
            UInt16(try port.integer(in: 0...65535))
        }
        draft.mtu = value(setting("mtu", in: table)) { mtu throws(ConfigurationFault) in try mtu.integer(in: WGQuickFile.mtuRange) }
        for (table, origin) in tables("peer", in: table) {
            guard let peer = peer(table, origin: origin) else { continue }
            if let other = draft.peers.first(where: { $0.publicKey == peer.publicKey }) {
                fault(ConfigurationFault(origin, key: "public-key", "the same peer as in line \(other.line)", fix: "join the two"))
            } else {
                draft.peers.append(peer)
            }
        }
        return draft
    }

    private mutating func peer(_ table: TOMLTable, origin: ConfigurationFault.Origin) -> WGQuickFile.Peer? {
        refuseUnknownKeys(of: table, known: Self.peerKeys, section: "[wireguard.peer]")
        let preshared = presharedKey(of: table)
        let allowed = values(setting("allowed-ips", in: table), "an address block such as 10.1.0.0/24") { IPPrefix($0) }
        let endpoint = values(setting("endpoint", in: table), "HOST:PORT, such as vpn.example.com:51820") { WGQuickFile.Endpoint($0) }.first
        let keepalive = value(setting("persistent-keepalive", in: table)) { setting throws(ConfigurationFault) in
            Duration.seconds(try setting.integer(in: 0...65535))
        }
        guard let key = setting("public-key", in: table) else {
            fault(ConfigurationFault(origin, key: "public-key", "the peer has no public key", fix: "write public-key = \"...\""))
            return nil
        }
        guard
            let publicKey = value(
                key,
                { setting throws(ConfigurationFault) in
                    guard let publicKey = PublicKey(base64: try setting.string("a public key")) else {
                        throw setting.fault("not a public key", fix: "write the 44 characters that wg pubkey or kakuremichi keys prints")
                    }
                    return publicKey
                })
        else { return nil }
        var line = 1
        if case .file(_, let position?) = origin { line = position.line }
        return WGQuickFile.Peer(
            publicKey: publicKey, presharedKey: preshared, allowedIPs: allowed, endpoint: endpoint, persistentKeepalive: keepalive,
            line: line)
    }

    /// Every string of a setting, parsed; a fault for each that is not what is expected.
    mutating func values<Value>(_ setting: Setting?, _ expected: String, _ parse: (String) -> Value?) -> [Value] {
        guard let elements = value(setting, { setting throws(ConfigurationFault) in try setting.strings(expected) }) else { return [] }
        return elements.compactMap { element in
            value(element) { element throws(ConfigurationFault) in
                let text = try element.string(expected)
                guard let parsed = parse(text) else {
                    throw element.fault("\(Setting.quoted(text)) is not valid", fix: "write \(expected)")
                }
                return parsed
            }
        }
    }
}
