import Inet
import Noise

/// A handshake written down operation by operation: chaining key and hash after each, and what went in.
///
/// It shares the operations with the handshake that nodes run, but not the order they come in: that stands here once more,
/// from the whitepaper, so that a step that a node leaves out shows.
///
/// Source: WG §5.4.2, §5.4.3, §5.4.5.
struct WireGuardTrace: ~Copyable {
    private var state = SymmetricState.wireGuard()
    private(set) var initiation: [JSON] = []
    private(set) var response: [JSON] = []

    init(_ handshake: WireGuardHandshake, _ keys: WireGuardHandshake.Keys) throws(Mismatch) {
        let initiatorEphemeral = try WireGuardHandshake.privateKey(handshake.initiator.ephemeralPrivate, "initiator.ephemeral_private")
        let responderEphemeral = try WireGuardHandshake.privateKey(handshake.responder.ephemeralPrivate, "responder.ephemeral_private")
        let (initiatorPublic, responderPublic) = (keys.initiator.publicKey, keys.responder.publicKey)
        do throws(HandshakeError) {
            initiation.append(step("initial"))
            state.mixHash(responderPublic)
            initiation.append(step("responder static: MixHash"))
            state.mixHash(initiatorEphemeral.publicKey)
            state.mixKey(initiatorEphemeral.publicKey)
            initiation.append(step("e: MixHash, MixKey"))
            initiation.append(mixKey("es: MixKey", try initiatorEphemeral.staticStatic(with: responderPublic)))
            initiation.append(encrypt("s: EncryptAndHash", [UInt8](initiatorPublic)))
            initiation.append(mixKey("ss: MixKey", try keys.initiator.staticStatic(with: responderPublic)))
            initiation.append(encrypt("timestamp: EncryptAndHash", [UInt8](handshake.label)))

            state.mixHash(responderEphemeral.publicKey)
            state.mixKey(responderEphemeral.publicKey)
            response.append(step("e: MixHash, MixKey"))
            response.append(mixKey("ee: MixKey", try responderEphemeral.staticStatic(with: initiatorEphemeral.publicKey)))
            response.append(mixKey("se: MixKey", try responderEphemeral.staticStatic(with: initiatorPublic)))
            response.append(mixPresharedKey(handshake.presharedKey ?? [UInt8](repeating: 0, count: PresharedKey.byteCount)))
            response.append(encrypt("empty: EncryptAndHash", []))
        } catch {
            throw Mismatch("trace", "a key agreement fails: \(error)")
        }
        let transport = KeysBox(TransportKeys(state.copy().split(), isInitiator: true)).bytes(isInitiator: true)
        response.append(
            step("split", ["initiator_to_responder": transport.toResponder, "responder_to_initiator": transport.toInitiator]))
    }

    private func step(_ name: String, _ more: KeyValuePairs<String, [UInt8]> = [:]) -> JSON {
        let state: [JSON.Member] = [
            JSON.Member("step", .string(name)), JSON.Member("ck", .hex(state.withChainingKey { [UInt8]($0) })),
            JSON.Member("h", .hex([UInt8](state.hash))),
        ]
        return .object(state + more.map { JSON.Member($0.key, .hex($0.value)) })
    }

    private mutating func mixKey(_ name: String, _ secret: consuming SecretBytes) -> JSON {
        state.mixKey(secret)
        return step(name, ["shared_secret": [UInt8](secret), "key": state.withCipherKey { [UInt8]($0) }])
    }

    private mutating func encrypt(_ name: String, _ plaintext: [UInt8]) -> JSON {
        let additionalData = [UInt8](state.hash)
        var buffer = plaintext + [UInt8](repeating: 0, count: 16)
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        state.encryptAndHash(&bytes, plaintext: 0..<plaintext.count)
        return step(name, ["ad": additionalData, "plaintext": plaintext, "ciphertext": buffer])
    }

    /// `tau` is the second output, which is mixed into the hash and kept nowhere else.
    private mutating func mixPresharedKey(_ presharedKey: [UInt8]) -> JSON {
        let outputs = WireGuardPrimitives.kdf(3, key: state.withChainingKey { [UInt8]($0) }, input: presharedKey)
        state.mixKeyAndHash(SecretBytes(copying: presharedKey.span.bytes))
        return step("psk: MixKeyAndHash", ["tau": Array(outputs[32..<64]), "key": state.withCipherKey { [UInt8]($0) }])
    }
}
