import Inet
import Noise

/// Takes from a file's handshake what it starts from. Lengths and ranges are checked here, so that nothing behind it can trap.
extension WireGuardHandshake {
    package init(reading json: JSON) throws(Mismatch) {
        name = json["name"]?.string ?? ""
        presharedKey = json["psk"] == nil || json["psk"] == .null ? nil : try json.bytes("psk", count: 32...32)
        initiator = try Party(reading: json["initiator"] ?? .null, "initiator")
        responder = try Party(reading: json["responder"] ?? .null, "responder")
        time = try Self.within("timestamp") { () throws(Mismatch) in try (json["timestamp"] ?? .null).wallTime() }
        packets = []
        cookie = Self.noCookie
        if let exchange = json["cookie"] {
            cookie = try Self.within("cookie") { () throws(Mismatch) in try CookieExchange(reading: exchange) }
        }
    }

    /// Stands in where a file has no cookie; nothing of it is compared then.
    private static let noCookie = CookieExchange(
        secret: [UInt8](repeating: 0, count: 32), source: responderEndpoint, nonce: [UInt8](repeating: 0, count: 24),
        retryEphemeral: [UInt8](repeating: 1, count: 32), retryIndex: 0, retryLabel: [UInt8](repeating: 0, count: 12))

    /// Faults of `body`, under the name of the section.
    static func within<Value>(_ section: String, _ body: () throws(Mismatch) -> Value) throws(Mismatch) -> Value {
        do {
            return try body()
        } catch {
            throw Mismatch("\(section).\(error.step)", error.detail)
        }
    }
}

extension WireGuardHandshake.Party {
    init(reading json: JSON, _ side: String) throws(Mismatch) {
        self = try WireGuardHandshake.within(side) { () throws(Mismatch) in
            Self(
                staticPrivate: try json.bytes("static_private", count: 32...32),
                ephemeralPrivate: try json.bytes("ephemeral_private", count: 32...32),
                index: UInt32(truncatingIfNeeded: try json.integer("index", 0...UInt64(UInt32.max))))
        }
    }
}

extension WireGuardHandshake.Packet {
    package init(reading json: JSON) throws(Mismatch) {
        switch json["sender"]?.string {
        case "initiator": isFromInitiator = true
        case "responder": isFromInitiator = false
        case _: throw Mismatch("sender", "neither initiator nor responder")
        }
        note = json["note"]?.string ?? ""
        counter = try json.integer("counter")
        mtu = Int(truncatingIfNeeded: try json.integer("mtu", 0...65_535))
        packet = try json.bytes("packet")
    }
}

extension WireGuardHandshake.CookieExchange {
    init(reading json: JSON) throws(Mismatch) {
        guard let text = json["source_ip"]?.string, let address = IPAddress(text) else { throw Mismatch("source_ip", "not an address") }
        secret = try json.bytes("secret", count: 32...32)
        source = SocketEndpoint(address, port: UInt16(truncatingIfNeeded: try json.integer("source_port", 0...65_535)))
        nonce = try json.bytes("nonce", count: 24...24)
        let retry = json["retry"] ?? .null
        retryEphemeral = try retry.bytes("ephemeral_private", count: 32...32)
        retryIndex = UInt32(truncatingIfNeeded: try retry.integer("index", 0...UInt64(UInt32.max)))
        retryLabel = try retry.bytes("tai64n", count: 12...12)
    }
}
