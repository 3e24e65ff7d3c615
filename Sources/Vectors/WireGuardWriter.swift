import Inet
import Noise
import WGUserspace

/// All that a vector file says of one handshake, computed from what it starts from, section by section. `generate` writes
/// it; `run` computes it once more and compares.
struct WireGuardWriter {
    let handshake: WireGuardHandshake
    let keys: WireGuardHandshake.Keys
    let initiation: [UInt8]
    let response: [UInt8]
    /// What the two sides hold in the end.
    let initiatorKeys: KeysBox
    let responderKeys: KeysBox

    init(_ handshake: WireGuardHandshake) throws(Mismatch) {
        self.handshake = handshake
        keys = try handshake.keys()
        let initiator = try handshake.initiate(
            keys, ephemeral: handshake.initiator.ephemeralPrivate, index: handshake.initiator.index, label: handshake.label)
        initiation = initiator.message
        let answer = try handshake.respond(keys, to: initiation)
        guard answer.label == handshake.label else { throw Mismatch("timestamp", "the responder reads another one") }
        response = answer.message
        responderKeys = answer.keys
        initiatorKeys = try handshake.finish(keys, initiator.handshake, response: response)
        let (initiatorSide, responderSide) = (initiatorKeys.bytes(isInitiator: true), responderKeys.bytes(isInitiator: false))
        guard initiatorSide == responderSide else { throw Mismatch("transport_keys", "the two sides do not agree") }
    }

    /// The object of the handshake, without `must_reject`.
    func object() throws(Mismatch) -> [JSON.Member] {
        let trace = try WireGuardTrace(handshake, keys)
        var packets: [JSON] = []
        for packet in handshake.packets { packets.append(try self.packet(packet)) }
        return [
            JSON.Member("name", .string(handshake.name)),
            JSON.Member("psk", handshake.presharedKey.map { .hex($0) } ?? .null),
            JSON.Member("initiator", try party(isInitiator: true)),
            JSON.Member("responder", try party(isInitiator: false)),
            JSON.Member("timestamp", timestamp()),
            JSON.Member("initiation", .hex(initiation)),
            JSON.Member("response", .hex(response)),
            JSON.Member("trace_initiation", .array(trace.initiation)),
            JSON.Member("trace_response", .array(trace.response)),
            JSON.Member("transport_keys", transportKeys()),
            JSON.Member("packets", .array(packets)),
            JSON.Member("cookie", try cookie()),
        ]
    }

    func party(isInitiator: Bool) throws(Mismatch) -> JSON {
        let party = isInitiator ? handshake.initiator : handshake.responder
        let side = isInitiator ? "initiator" : "responder"
        let key = try WireGuardHandshake.privateKey(party.staticPrivate, "\(side).static_private")
        let ephemeral = try WireGuardHandshake.privateKey(party.ephemeralPrivate, "\(side).ephemeral_private")
        let macKeys = MACKeys(publicKey: key.publicKey)
        return .object([
            JSON.Member("static_private", .hex(party.staticPrivate)),
            JSON.Member("static_public", .hex([UInt8](key.publicKey))),
            JSON.Member("static_private_base64", .string(key.base64ForFile())),
            JSON.Member("static_public_base64", .string(key.publicKey.base64)),
            JSON.Member("ephemeral_private", .hex(party.ephemeralPrivate)),
            JSON.Member("ephemeral_public", .hex([UInt8](ephemeral.publicKey))),
            JSON.Member("index", .integer(party.index)),
            JSON.Member("mac1_key_for_messages_to_it", .hex([UInt8](macKeys.mac1Key))),
            JSON.Member("cookie_key", .hex([UInt8](macKeys.cookieKey))),
        ])
    }

    func timestamp() -> JSON {
        .object([
            JSON.Member("unix_seconds", .integer(handshake.time.seconds)),
            JSON.Member("nanoseconds", .integer(handshake.time.nanoseconds)),
            JSON.Member("tai64n", .hex([UInt8](handshake.label))),
        ])
    }

    func transportKeys() -> JSON {
        let keys = initiatorKeys.bytes(isInitiator: true)
        return .object([
            JSON.Member("initiator_to_responder", .hex(keys.toResponder)),
            JSON.Member("responder_to_initiator", .hex(keys.toInitiator)),
        ])
    }

    /// A data packet as its sender seals it; its receiver has opened it.
    func packet(_ packet: WireGuardHandshake.Packet) throws(Mismatch) -> JSON {
        guard packet.counter < Constants.rejectAfterMessages else { throw Mismatch("counter", "beyond REJECT-AFTER-MESSAGES") }
        let receiver = packet.isFromInitiator ? handshake.responder : handshake.initiator
        let length = DataMessage.paddedLength(packet.packet.count, mtu: packet.mtu)
        let plaintext = packet.packet + [UInt8](repeating: 0, count: length - packet.packet.count)
        let header = [UInt8](count: DataMessage.headerByteCount) {
            $0.storeLittleEndian(4 as UInt32, at: 0)
            $0.storeLittleEndian(receiver.index, at: 4)
            $0.storeLittleEndian(packet.counter, at: 8)
        }
        var datagram = header + plaintext + [UInt8](repeating: 0, count: DataMessage.tagByteCount)
        let (sender, opener) = packet.isFromInitiator ? (initiatorKeys, responderKeys) : (responderKeys, initiatorKeys)
        datagram.withMutableBytes { sender.keys.seal(&$0, plaintext: header.count..<header.count + length, counter: packet.counter) }
        try Self.expectOpens(datagram, opener, plaintext, packet)
        let both = initiatorKeys.bytes(isInitiator: true)
        return .object([
            JSON.Member("sender", .string(packet.isFromInitiator ? "initiator" : "responder")),
            JSON.Member("note", .string(packet.note)),
            JSON.Member("counter", packet.counter < 1 << 53 ? .integer(packet.counter) : .string(String(packet.counter))),
            JSON.Member("receiver_index", .integer(receiver.index)),
            JSON.Member("key", .hex(packet.isFromInitiator ? both.toResponder : both.toInitiator)),
            JSON.Member("mtu", .integer(packet.mtu)),
            JSON.Member("packet", .hex(packet.packet)),
            JSON.Member("plaintext", .hex(plaintext)),
            JSON.Member("datagram", .hex(datagram)),
        ])
    }

    /// The receiver's way: kind of message, authenticity, length by the inner header.
    private static func expectOpens(
        _ datagram: [UInt8], _ keys: KeysBox, _ plaintext: [UInt8], _ packet: WireGuardHandshake.Packet
    ) throws(Mismatch) {
        guard case .data(_, counter: packet.counter) = Message.classify(datagram.span.bytes) else {
            throw Mismatch("datagram", "it is not taken for a data message")
        }
        var opened = datagram
        let isAuthentic = opened.withMutableBytes {
            keys.keys.open(&$0, ciphertext: DataMessage.headerByteCount..<datagram.count, counter: packet.counter)
        }
        guard isAuthentic else { throw Mismatch("datagram", "the receiver cannot open it") }
        let text = Array(opened[DataMessage.headerByteCount..<DataMessage.headerByteCount + plaintext.count])
        if let mismatch = Mismatch("plaintext", expected: plaintext, actual: text) { throw mismatch }
        if let inner = IPHeader.routing(of: text.span.bytes), inner.totalLength != packet.packet.count {
            throw Mismatch("packet", .value(expected: "\(packet.packet.count) bytes", actual: "\(inner.totalLength) by its own header"))
        }
    }

    /// Cookie replies to both messages, and the initiation that is sent again because of the first.
    func cookie() throws(Mismatch) -> JSON {
        let exchange = handshake.cookie
        let secret = SecretBytes(copying: exchange.secret.span.bytes)
        let (source, responderSource) = (Self.bytes(of: exchange.source), Self.bytes(of: WireGuardHandshake.responderEndpoint))
        let cookie = Cookie(source: source.span.bytes, secret: secret)
        let toInitiation = try reply(
            cookie, to: initiation, index: handshake.initiator.index, keys: MACKeys(publicKey: keys.responder.publicKey))
        let toResponse = try reply(
            Cookie(source: responderSource.span.bytes, secret: secret), to: response, index: handshake.responder.index,
            keys: MACKeys(publicKey: keys.initiator.publicKey))

        guard let label = TAI64N(exchange.retryLabel.span.bytes) else { throw Mismatch("retry.tai64n", "not a label") }
        var retry = try handshake.initiate(keys, ephemeral: exchange.retryEphemeral, index: exchange.retryIndex, label: label).message
        let count = retry.count
        retry.withMutableBytes { cookie.writeMAC2(into: &$0, byteCount: count) }
        guard cookie.isValidMAC2(message: retry.span.bytes) else { throw Mismatch("retry.initiation_with_mac2", "its mac2 is refused") }
        guard try handshake.respond(keys, to: retry).label == label else {
            throw Mismatch("retry.tai64n", "the responder reads another one")
        }
        return .object([
            JSON.Member("secret", .hex(exchange.secret)),
            JSON.Member("source_ip", .string("\(exchange.source.address)")),
            JSON.Member("source_port", .integer(exchange.source.port)),
            JSON.Member("cookie_mac_input", .hex(source)),
            JSON.Member("cookie", .hex([UInt8](cookie.value))),
            JSON.Member("nonce", .hex(exchange.nonce)),
            JSON.Member("reply_to_initiation", .hex(toInitiation)),
            JSON.Member(
                "retry",
                .object([
                    JSON.Member("ephemeral_private", .hex(exchange.retryEphemeral)),
                    JSON.Member("index", .integer(exchange.retryIndex)),
                    JSON.Member("tai64n", .hex(exchange.retryLabel)),
                    JSON.Member("initiation_with_mac2", .hex(retry)),
                ])),
            JSON.Member("reply_to_response", .hex(toResponse)),
        ])
    }

    /// A cookie reply, which the receiver of it has opened.
    private func reply(_ cookie: Cookie, to message: [UInt8], index: UInt32, keys: MACKeys) throws(Mismatch) -> [UInt8] {
        guard let mac1 = MAC(message.span.bytes, at: message.count - MACKeys.trailerByteCount) else { throw Mismatch("cookie", "no mac1") }
        let reply = [UInt8](count: HandshakeMessage.cookieReplyByteCount) {
            cookie.writeReply(into: &$0, receiverIndex: index, mac1: mac1, keys: keys, random: .fixed(handshake.cookie.nonce))
        }
        guard let opened = Cookie(reply: reply.span.bytes, mac1: mac1, keys: keys) else {
            throw Mismatch("cookie", "the reply does not open")
        }
        if let mismatch = Mismatch("cookie", expected: [UInt8](cookie.value), actual: [UInt8](opened.value)) { throw mismatch }
        return reply
    }

    /// What a cookie is made of: the address and the port, in network order.
    private static func bytes(of endpoint: SocketEndpoint) -> [UInt8] {
        [UInt8](endpoint.address) + [UInt8(truncatingIfNeeded: endpoint.port >> 8), UInt8(truncatingIfNeeded: endpoint.port)]
    }
}

extension WireGuardHandshake {
    /// The members that `generate` writes for a handshake, without `must_reject`.
    package func document() throws(Mismatch) -> [JSON.Member] { try WireGuardWriter(self).object() }
}
