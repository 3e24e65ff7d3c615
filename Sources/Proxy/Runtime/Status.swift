/// What a running process tells about itself over its admin socket.
package struct Status: Codable, Sendable, Equatable {
    package struct Interface: Codable, Sendable, Equatable {
        package var publicKey: String
        package var addresses: [String]
        package var listenPort: Int
        package var mtu: Int

        package init(publicKey: String, addresses: [String], listenPort: Int, mtu: Int) {
            self.publicKey = publicKey
            self.addresses = addresses
            self.listenPort = listenPort
            self.mtu = mtu
        }
    }

    package struct Peer: Codable, Sendable, Equatable {
        package var publicKey: String
        package var endpoint: String?
        package var allowedIPs: [String]
        /// Seconds since 1970; `nil` if there has been none.
        package var latestHandshake: Int?
        package var receivedBytes: UInt64
        package var sentBytes: UInt64
        /// Seconds; `nil` is off.
        package var persistentKeepalive: Int?
        package var hasSession: Bool
        /// Handshakes by outcome.
        package var handshakes: [String: UInt64]?
        /// Initiations refused since the last accepted one, as their timestamps were not later; `nil` is none.
        package var refusedTimestamps: UInt64?
        /// Seconds by which the last of them was behind the last accepted one.
        package var refusedTimestampBehind: Double?

        package init(
            publicKey: String, endpoint: String?, allowedIPs: [String], latestHandshake: Int?, receivedBytes: UInt64, sentBytes: UInt64,
            persistentKeepalive: Int?, hasSession: Bool, handshakes: [String: UInt64]? = nil, refusedTimestamps: UInt64? = nil,
            refusedTimestampBehind: Double? = nil
        ) {
            self.publicKey = publicKey
            self.endpoint = endpoint
            self.allowedIPs = allowedIPs
            self.latestHandshake = latestHandshake
            self.receivedBytes = receivedBytes
            self.sentBytes = sentBytes
            self.persistentKeepalive = persistentKeepalive
            self.hasSession = hasSession
            self.handshakes = handshakes
            self.refusedTimestamps = refusedTimestamps
            self.refusedTimestampBehind = refusedTimestampBehind
        }
    }

    package struct Route: Codable, Sendable, Equatable {
        /// "*" is every host.
        package var domain: String
        /// The agent's address (gateway) or the target (agent).
        package var target: String
        package var enabled: Bool

        package init(domain: String, target: String, enabled: Bool) {
            self.domain = domain
            self.target = target
            self.enabled = enabled
        }
    }

    package struct Listener: Codable, Sendable, Equatable {
        /// "https", "http" or "tunnel".
        package var kind: String
        package var address: String

        package init(kind: String, address: String) {
            self.kind = kind
            self.address = address
        }
    }

    package var role: String
    package var version: String
    package var processID: Int
    /// Seconds since 1970.
    package var startedAt: Int
    /// Seconds since 1970, when this was written.
    package var now: Int
    package var interface: Interface
    package var peers: [Peer]
    package var routes: [Route]
    package var listeners: [Listener]
    /// Counters of the tunnel by name, those that are not zero.
    package var counters: [String: UInt64]
    /// Whether handshakes come faster than they can be served.
    package var isUnderLoad: Bool
    /// Handshake messages that wait.
    package var queuedHandshakes: Int
    /// Of a gateway: those of ACME, and the configured files.
    package var certificates: [CertificateList.Entry]?

    package init(
        role: String, version: String, processID: Int, startedAt: Int, now: Int, interface: Interface, peers: [Peer], routes: [Route],
        listeners: [Listener], counters: [String: UInt64], isUnderLoad: Bool = false, queuedHandshakes: Int = 0
    ) {
        self.role = role
        self.version = version
        self.processID = processID
        self.startedAt = startedAt
        self.now = now
        self.interface = interface
        self.peers = peers
        self.routes = routes
        self.listeners = listeners
        self.counters = counters
        self.isUnderLoad = isUnderLoad
        self.queuedHandshakes = queuedHandshakes
    }
}

extension Status {
    /// The form for people.
    package var table: String {
        var lines = ["\(role) \(version), process \(processID), up \(Self.span(now - startedAt))"]
        lines.append("interface  \(interface.publicKey)")
        lines.append("  addresses \(interface.addresses.joined(separator: ", "))  UDP port \(interface.listenPort)  MTU \(interface.mtu)")
        if isUnderLoad { lines.append("  under load: \(queuedHandshakes) handshakes wait, peers have to prove their address first") }
        lines += Self.columns(
            ["PEER", "ENDPOINT", "LAST HANDSHAKE", "RECEIVED", "SENT", "ALLOWED IPS"],
            peers.map {
                [
                    $0.publicKey, $0.endpoint ?? "unknown", $0.latestHandshake.map { "\(Self.span(now - $0)) ago" } ?? "never",
                    Self.size($0.receivedBytes), Self.size($0.sentBytes), $0.allowedIPs.joined(separator: ", "),
                ]
            })
        lines += Self.columns(
            ["REFUSED TIMESTAMPS OF", "COUNT", "LAST ONE BEHIND BY"],
            peers.compactMap { peer in
                peer.refusedTimestamps.map { [peer.publicKey, "\($0)", Self.precise(peer.refusedTimestampBehind ?? 0)] }
            })
        lines += Self.columns(
            ["ROUTE", role == "gateway" ? "AGENT" : "TARGET", "STATE"],
            routes.map { [$0.domain, $0.target, $0.enabled ? "enabled" : "disabled"] })
        lines += Self.columns(
            ["CERTIFICATE", "STATE", "EXPIRES", "REASON"],
            (certificates ?? []).map { entry in
                let expiry = entry.notAfter.map { CertificateList.relative($0, now) } ?? "-"
                return [entry.name, entry.state.rawValue + (entry.isOverdue ? ", overdue" : ""), expiry, entry.reason ?? ""]
            })
        lines += Self.columns(["LISTENER", "ADDRESS"], listeners.map { [$0.kind, $0.address] })
        lines += Self.columns(["COUNTER", "VALUE"], counters.sorted { $0.key < $1.key }.map { [$0.key, "\($0.value)"] })
        return lines.joined(separator: "\n") + "\n"
    }

    static func columns(_ header: [String], _ rows: [[String]]) -> [String] {
        guard !rows.isEmpty else { return [] }
        let all = [header] + rows.map { $0.map { LogText.escape($0, limit: 200) } }
        let widths = header.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
        return [""]
            + all.map { row in
                let padded = zip(row, widths).map { $0.padded(to: $1) }.joined(separator: "  ")
                return padded.reversed().drop { $0 == " " }.reversed().map(String.init).joined()
            }
    }

    static func span(_ seconds: Int) -> String {
        let seconds = max(0, seconds)
        if seconds < 60 { return "\(seconds) s" }
        if seconds < 3600 { return "\(seconds / 60) min \(seconds % 60) s" }
        if seconds < 86400 { return "\(seconds / 3600) h \(seconds / 60 % 60) min" }
        return "\(seconds / 86400) d \(seconds / 3600 % 24) h"
    }

    /// Below a minute to the millisecond.
    private static func precise(_ seconds: Double) -> String {
        seconds < 60 ? "\((seconds * 1000).rounded() / 1000) s" : span(Int(min(seconds, 1e15)))
    }

    static func size(_ bytes: UInt64) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        var (value, unit) = (Double(bytes), 0)
        while value >= 1024, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        return unit == 0 ? "\(bytes) B" : "\(Double(Int(value * 10)) / 10) \(units[unit])"
    }
}
