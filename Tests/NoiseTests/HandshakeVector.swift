import Inet
import Noise
import TestSupport
import Testing

/// One of the `handshakes` of `vectors/wireguard.json`, with the verbs that the tests need.
struct HandshakeVector: Sendable, CustomTestStringConvertible {
    let json: JSONValue

    var testDescription: String { (try? json["name"].string) ?? "unnamed" }

    static func all() throws -> [HandshakeVector] {
        let all = try VectorFile("wireguard").root["handshakes"].array.map { HandshakeVector(json: $0) }
        #expect(all.count == 6)
        return all
    }

    func publicKey(_ side: String) throws -> PublicKey { try PublicKey(json[side]["static_public"].hex) }

    func privateKey(_ side: String) throws -> PrivateKey { try PrivateKey.make(json[side]["static_private"].hex) }

    func ephemeral(_ side: String) throws -> PrivateKey { try PrivateKey.make(json[side]["ephemeral_private"].hex) }

    /// 32 bytes, zero if the file has `null`.
    func presharedKeyBytes() throws -> [UInt8] {
        json["psk"] == .null ? [UInt8](repeating: 0, count: 32) : try json["psk"].hex
    }

    func presharedKey() throws -> PresharedKey { try PresharedKey.make(presharedKeyBytes()) }

    /// Our initiator writes an initiation, by default the one of the vector.
    func initiate(
        ephemeral: [UInt8]? = nil, index: UInt32? = nil, tai64n: [UInt8]? = nil
    ) throws -> (message: [UInt8], handshake: InitiatorHandshakeBox) {
        let initiator = json["initiator"]
        let random = RandomSource.giving(try ephemeral ?? initiator["ephemeral_private"].hex)
        let timestamp = try TAI64N(tai64n ?? json["timestamp"]["tai64n"].hex)
        let remote = try publicKey("responder")
        let staticStatic = try privateKey("initiator").staticStatic(with: remote)
        var message = [UInt8](repeating: 0xEE, count: HandshakeMessage.initiationByteCount)
        var span = message.mutableSpan
        var bytes = span.mutableBytes
        let handshake = try InitiatorHandshake.initiate(
            into: &bytes, staticPublic: publicKey("initiator"), remote: remote, precomputedStaticStatic: staticStatic,
            senderIndex: index ?? initiator["index"].uint32, timestamp: timestamp, random: random)
        return (message, InitiatorHandshakeBox(handshake))
    }

    /// Our responder reads an initiation as far as the static key.
    func receive(_ initiation: [UInt8]) throws -> ResponderHandshake {
        try ResponderHandshake.receive(
            initiation: initiation.span.bytes, staticKey: privateKey("responder"), staticPublic: publicKey("responder"))
    }

    /// The whole handshake between our two sides; both messages must be those of the vector.
    func run() throws -> KeysOfBoth {
        let (initiation, initiator) = try initiate()
        #expect(try initiation == json["initiation"].hex)
        #expect(MACKeys(publicKey: try publicKey("responder")).isValidMAC1(message: initiation.span.bytes) == true)
        var responder = try receive(initiation)
        #expect(responder.remoteStatic == (try publicKey("initiator")))
        #expect(responder.senderIndex == (try json["initiator"]["index"].uint32))
        let staticStatic = try privateKey("responder").staticStatic(with: responder.remoteStatic)
        let timestamp = try responder.openTimestamp(precomputedStaticStatic: staticStatic)
        #expect(try [UInt8](timestamp) == json["timestamp"]["tai64n"].hex)
        var response = [UInt8](repeating: 0xEE, count: HandshakeMessage.responseByteCount)
        var span = response.mutableSpan
        var bytes = span.mutableBytes
        let responderKeys = try responder.respond(
            into: &bytes, responderIndex: json["responder"]["index"].uint32, presharedKey: presharedKey(),
            random: .giving(json["responder"]["ephemeral_private"].hex))
        #expect(try response == json["response"].hex)
        #expect(MACKeys(publicKey: try publicKey("initiator")).isValidMAC1(message: response.span.bytes) == true)
        let initiatorKeys = try initiator.handshake.finish(
            response: response.span.bytes, staticKey: privateKey("initiator"), presharedKey: presharedKey())
        return KeysOfBoth(initiator: initiatorKeys, responder: responderKeys)
    }

    /// What our responder says to an initiation; `nil` is yes.
    func judgeInitiation(_ message: [UInt8]) throws -> HandshakeError? {
        let key = try privateKey("responder")
        let publicKey = try publicKey("responder")
        return failure { () throws(HandshakeError) in
            var responder = try ResponderHandshake.receive(initiation: message.span.bytes, staticKey: key, staticPublic: publicKey)
            _ = try responder.openTimestamp(precomputedStaticStatic: key.staticStatic(with: responder.remoteStatic))
        }
    }

    /// What our initiator says to a response; `nil` is yes.
    func judgeResponse(_ message: [UInt8]) throws -> HandshakeError? {
        let (_, initiator) = try initiate()
        let key = try privateKey("initiator")
        let presharedKey = try presharedKey()
        return failure { () throws(HandshakeError) in
            try initiator.handshake.finish(response: message.span.bytes, staticKey: key, presharedKey: presharedKey)
        }
    }

    /// Goes through the initiation step by step, compares every one, and returns the state behind the last.
    func afterInitiation() throws -> SymmetricState {
        let trace = try json["trace_initiation"].array
        #expect(
            try trace.map { try $0["step"].string } == [
                "initial", "responder static: MixHash", "e: MixHash, MixKey", "es: MixKey", "s: EncryptAndHash", "ss: MixKey",
                "timestamp: EncryptAndHash",
            ])
        let ephemeral = try ephemeral("initiator")
        let responder = try publicKey("responder")
        var state = SymmetricState.wireGuard()
        try expect(state, trace[0])
        state.mixHash(responder)
        try expect(state, trace[1])
        // e
        state.mixHash(ephemeral.publicKey)
        state.mixKey(ephemeral.publicKey)
        try expect(state, trace[2])
        // es
        let es = try ephemeral.staticStatic(with: responder)
        #expect(try [UInt8](es) == trace[3]["shared_secret"].hex)
        state.mixKey(es)
        try expect(state, trace[3])
        // s
        try expectEncryption(&state, trace[4])
        // ss
        let ss = try privateKey("initiator").staticStatic(with: responder)
        #expect(try [UInt8](ss) == trace[5]["shared_secret"].hex)
        state.mixKey(ss)
        try expect(state, trace[5])
        // timestamp
        try expectEncryption(&state, trace[6])
        return state
    }

    /// The `tau` of the `psk` step: what MixKeyAndHash mixes into the hash.
    func tau() throws -> [UInt8] {
        let before = try json["trace_response"][2]["ck"].hex
        let presharedKey = try presharedKeyBytes()
        var derivation = KeyDerivation()
        var outputs = SecretBytes(count: 96)
        derivation.extract(key: before.span.bytes, input: presharedKey.span.bytes)
        derivation.expand(3, into: &outputs)
        return Array([UInt8](outputs)[32..<64])
    }
}

struct KeysOfBoth: ~Copyable {
    let initiator: TransportKeys
    let responder: TransportKeys
}

/// Tuples hold no values that cannot be copied.
final class InitiatorHandshakeBox: Sendable {
    let handshake: InitiatorHandshake
    init(_ handshake: consuming InitiatorHandshake) { self.handshake = handshake }
}

/// Whether the state is that of a step. A step has no members that this does not know.
func expect(_ state: borrowing SymmetricState, _ step: JSONValue) throws {
    let known: Set<String> = [
        "step", "ck", "h", "shared_secret", "key", "ad", "plaintext", "ciphertext", "tau", "initiator_to_responder",
        "responder_to_initiator",
    ]
    #expect(try step.keys.isSubset(of: known))
    #expect(try state.withChainingKey { [UInt8]($0) } == step["ck"].hex)
    #expect(try [UInt8](state.hash) == step["h"].hex)
    if step["key"] != .null { #expect(try state.withCipherKey { [UInt8]($0) } == step["key"].hex) }
}

/// Does the EncryptAndHash of a step, after its DecryptAndHash on a copy.
func expectEncryption(_ state: inout SymmetricState, _ step: JSONValue) throws {
    #expect(try [UInt8](state.hash) == step["ad"].hex)
    let (text, ciphertext) = (try step["plaintext"].hex, try step["ciphertext"].hex)
    var reader = state.copy()
    var message = SecretBytes(ciphertext.flipping(bit: 0, at: 0))
    let before = [UInt8](reader.hash)
    #expect(throws: HandshakeError.authenticationFailed) { try reader.decryptAndHash(&message) }
    #expect([UInt8](reader.hash) == before)
    message = SecretBytes(ciphertext)
    try reader.decryptAndHash(&message)
    #expect(Array([UInt8](message).prefix(text.count)) == text)
    try expect(reader, step)

    var buffer = text + [UInt8](repeating: 0, count: 16)
    do {
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        state.encryptAndHash(&bytes, plaintext: 0..<text.count)
    }
    #expect(buffer == ciphertext)
    try expect(state, step)
}
