import Inet
import Noise
import WGUserspace

/// What `wg show` and `wg showconf` print about an interface, to the letter.
///
/// Source: wireguard-tools 1.0.20210914, show.c and showconf.c.
package struct WGReport {
    package static let fields = [
        "public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys", "endpoints", "allowed-ips",
        "latest-handshakes", "transfer", "persistent-keepalive", "dump",
    ]

    package var name: String
    package var state: UAPI.State
    /// Seconds since 1970.
    package var now: UInt64
    package var isColored: Bool
    /// `WG_HIDE_KEYS=never`.
    package var showsKeys: Bool

    package init(name: String, state: UAPI.State, now: UInt64, isColored: Bool = false, showsKeys: Bool = false) {
        self.name = name
        self.state = state
        self.now = now
        self.isColored = isColored
        self.showsKeys = showsKeys
    }

    // MARK: For people

    /// The human form.
    package func pretty() -> String {
        var lines: [String] = []
        lines.append(reset + green + bold + "interface" + reset + ": " + green + name + reset)
        if let key = state.privateKey {
            lines.append(item("public key", key.key.publicKey.base64))
            lines.append(item("private key", showsKeys ? key.key.base64ForFile() : "(hidden)"))
        }
        if state.listenPort != 0 { lines.append(item("listening port", "\(state.listenPort)")) }
        if state.fwmark != 0 { lines.append(item("fwmark", hexadecimal(state.fwmark))) }
        for peer in sorted() {
            lines.append("")
            lines += pretty(peer)
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private func pretty(_ peer: UAPI.State.Peer) -> [String] {
        var lines = [yellow + bold + "peer" + reset + ": " + yellow + peer.publicKey.base64 + reset]
        if let key = presharedKey(peer) { lines.append(item("preshared key", showsKeys ? key : "(hidden)")) }
        if let endpoint = peer.endpoint { lines.append(item("endpoint", "\(endpoint)")) }
        let blocks = peer.allowedIPs.map { "\($0.address)" + cyan + "/" + reset + "\($0.length)" }
        lines.append(item("allowed ips", blocks.isEmpty ? "(none)" : blocks.joined(separator: ", ")))
        if let time = peer.lastHandshake, time.seconds > 0 { lines.append(item("latest handshake", ago(time.seconds))) }
        if peer.receivedBytes > 0 || peer.sentBytes > 0 {
            lines.append(item("transfer", "\(amount(peer.receivedBytes)) received, \(amount(peer.sentBytes)) sent"))
        }
        if let interval = keepalive(peer) { lines.append(item("persistent keepalive", "every " + span(interval))) }
        return lines
    }

    /// The one heard of last comes first; those that never were keep their order behind.
    private func sorted() -> [UAPI.State.Peer] {
        state.peers.enumerated().sorted { left, right in
            switch (left.element.lastHandshake, right.element.lastHandshake) {
            case (let a?, let b?) where a != b: a > b
            case (_?, nil): true
            case (nil, _?): false
            default: left.offset < right.offset
            }
        }.map(\.element)
    }

    private func item(_ name: String, _ value: String) -> String { "  " + bold + name + reset + ": " + value }

    private func ago(_ time: UInt64) -> String {
        if now == time { return "Now" }
        if now < time { return "(" + red + "System clock wound backward; connection problems may ensue." + reset + ")" }
        return span(now - time) + " ago"
    }

    private func span(_ seconds: UInt64) -> String {
        let parts: [(UInt64, String)] = [
            (seconds / 31_536_000, "year"), (seconds % 31_536_000 / 86_400, "day"), (seconds % 86_400 / 3600, "hour"),
            (seconds % 3600 / 60, "minute"), (seconds % 60, "second"),
        ]
        return parts.filter { $0.0 > 0 }.map { "\($0.0) " + cyan + $0.1 + ($0.0 == 1 ? "" : "s") + reset }.joined(separator: ", ")
    }

    private func amount(_ bytes: UInt64) -> String {
        var unit: UInt64 = 1024
        if bytes < unit { return "\(bytes) " + cyan + "B" + reset }
        for name in ["KiB", "MiB", "GiB"] {
            if bytes / 1024 < unit { return hundredths(bytes, unit) + " " + cyan + name + reset }
            unit *= 1024
        }
        return hundredths(bytes, unit) + " " + cyan + "TiB" + reset
    }

    /// `%.2f` of a quotient by a power of two: exact in a double up to 2^53, and rounded half to even as C does.
    private func hundredths(_ bytes: UInt64, _ unit: UInt64) -> String {
        let quotient = Double(bytes) / Double(unit) * 100
        let rounded = UInt64(quotient.rounded(.toNearestOrEven))
        let fraction = rounded % 100
        return "\(rounded / 100)." + (fraction < 10 ? "0" : "") + "\(fraction)"
    }

    private var reset: String { isColored ? "\u{1B}[0m" : "" }
    private var bold: String { isColored ? "\u{1B}[1m" : "" }
    private var red: String { isColored ? "\u{1B}[31m" : "" }
    private var green: String { isColored ? "\u{1B}[32m" : "" }
    private var yellow: String { isColored ? "\u{1B}[33m" : "" }
    private var cyan: String { isColored ? "\u{1B}[36m" : "" }

    // MARK: For programs

    /// One of `fields`, tab-separated; `nil` for another one.
    /// - Parameter isNamed: whether each line begins with the interface's name.
    package func field(_ field: String, isNamed: Bool) -> String? {
        let lead = isNamed ? name + "\t" : ""
        func each(_ value: (UAPI.State.Peer) -> String) -> String {
            state.peers.map { lead + $0.publicKey.base64 + "\t" + value($0) + "\n" }.joined()
        }
        switch field {
        case "public-key": return lead + publicKey + "\n"
        case "private-key": return lead + privateKey + "\n"
        case "listen-port": return lead + "\(state.listenPort)\n"
        case "fwmark": return lead + mark + "\n"
        case "peers": return state.peers.map { lead + $0.publicKey.base64 + "\n" }.joined()
        case "preshared-keys": return each { presharedKey($0) ?? none }
        case "endpoints": return each { $0.endpoint?.description ?? none }
        case "allowed-ips": return each { blocks($0, " ") }
        case "latest-handshakes": return each { "\($0.lastHandshake?.seconds ?? 0)" }
        case "transfer": return each { "\($0.receivedBytes)\t\($0.sentBytes)" }
        case "persistent-keepalive": return each { keepalive($0).map { "\($0)" } ?? "off" }
        case "dump":
            let interface = lead + "\(privateKey)\t\(publicKey)\t\(state.listenPort)\t\(mark)\n"
            return interface
                + each { peer in
                    [
                        presharedKey(peer) ?? none, peer.endpoint?.description ?? none, blocks(peer, ","),
                        "\(peer.lastHandshake?.seconds ?? 0)", "\(peer.receivedBytes)", "\(peer.sentBytes)",
                        keepalive(peer).map { "\($0)" } ?? "off",
                    ].joined(separator: "\t")
                }
        default: return nil
        }
    }

    /// What `wg setconf` reads.
    package func configuration() -> String {
        var text = "[Interface]\n"
        if state.listenPort != 0 { text += "ListenPort = \(state.listenPort)\n" }
        if state.fwmark != 0 { text += "FwMark = \(hexadecimal(state.fwmark))\n" }
        if let key = state.privateKey { text += "PrivateKey = \(key.key.base64ForFile())\n" }
        text += "\n"
        let peers = state.peers.map { peer in
            var text = "[Peer]\nPublicKey = \(peer.publicKey.base64)\n"
            if let key = presharedKey(peer) { text += "PresharedKey = \(key)\n" }
            if !peer.allowedIPs.isEmpty { text += "AllowedIPs = \(blocks(peer, ", "))\n" }
            if let endpoint = peer.endpoint { text += "Endpoint = \(endpoint)\n" }
            if let interval = keepalive(peer) { text += "PersistentKeepalive = \(interval)\n" }
            return text
        }
        return text + peers.joined(separator: "\n")
    }

    private var none: String { "(none)" }
    private var privateKey: String { state.privateKey.map { $0.key.base64ForFile() } ?? none }
    private var publicKey: String { state.privateKey.map { $0.key.publicKey.base64 } ?? none }
    private var mark: String { state.fwmark == 0 ? "off" : hexadecimal(state.fwmark) }

    private func hexadecimal(_ value: UInt32) -> String { "0x" + String(value, radix: 16) }

    private func presharedKey(_ peer: UAPI.State.Peer) -> String? {
        guard let key = peer.presharedKey, !key.key.isZero else { return nil }
        return key.key.base64ForFile()
    }

    private func blocks(_ peer: UAPI.State.Peer, _ separator: String) -> String {
        peer.allowedIPs.isEmpty ? none : peer.allowedIPs.map(\.description).joined(separator: separator)
    }

    private func keepalive(_ peer: UAPI.State.Peer) -> UInt64? {
        guard let seconds = peer.persistentKeepalive?.components.seconds, seconds > 0 else { return nil }
        return UInt64(seconds)
    }
}
