import Inet
import Noise
import WGUserspace

/// What one handshake of a vector file starts from: keys, indices and times. Everything else of it is computed.
package struct WireGuardHandshake: Equatable, Sendable {
    package struct Party: Equatable, Sendable {
        package var staticPrivate: [UInt8]
        package var ephemeralPrivate: [UInt8]
        package var index: UInt32
    }

    package struct Packet: Equatable, Sendable {
        package var isFromInitiator: Bool
        package var note: String
        package var counter: UInt64
        /// 0 for none.
        package var mtu: Int
        package var packet: [UInt8]
    }

    package struct CookieExchange: Equatable, Sendable {
        package var secret: [UInt8]
        package var source: SocketEndpoint
        package var nonce: [UInt8]
        package var retryEphemeral: [UInt8]
        package var retryIndex: UInt32
        package var retryLabel: [UInt8]
    }

    package var name: String
    package var presharedKey: [UInt8]?
    package var initiator: Party
    package var responder: Party
    package var time: WallTime
    package var packets: [Packet]
    package var cookie: CookieExchange

    /// Where the responder is: the cookie in `reply_to_response` is made for it.
    package static let responderEndpoint = SocketEndpoint(IPAddress(v4: 192, 0, 2, 20), port: 51820)
}

extension WireGuardHandshake {
    package final class Keys: Sendable {
        package let initiator: PrivateKey
        package let responder: PrivateKey
        package let presharedKey: PresharedKey

        init(initiator: consuming PrivateKey, responder: consuming PrivateKey, presharedKey: consuming PresharedKey) {
            self.initiator = initiator
            self.responder = responder
            self.presharedKey = presharedKey
        }
    }

    package func keys() throws(Mismatch) -> Keys {
        Keys(
            initiator: try Self.privateKey(initiator.staticPrivate, "initiator.static_private"),
            responder: try Self.privateKey(responder.staticPrivate, "responder.static_private"),
            presharedKey: try Self.presharedKey(presharedKey))
    }

    /// The exact label: what is sent by a node is rounded, a vector may say any.
    package var label: TAI64N { TAI64N(exactly: time) }

    /// The initiator's handshake, for an ephemeral key, an index and a label.
    package func initiate(
        _ keys: Keys, ephemeral: [UInt8], index: UInt32, label: TAI64N
    ) throws(Mismatch) -> (message: [UInt8], handshake: InitiatorBox) {
        let remote = keys.responder.publicKey
        do throws(HandshakeError) {
            let staticStatic = try keys.initiator.staticStatic(with: remote)
            var message = [UInt8](repeating: 0, count: HandshakeMessage.initiationByteCount)
            let publicKey = keys.initiator.publicKey
            var span = message.mutableSpan
            var bytes = span.mutableBytes
            let handshake = try InitiatorHandshake.initiate(
                into: &bytes, staticPublic: publicKey, remote: remote, precomputedStaticStatic: staticStatic, senderIndex: index,
                timestamp: label, random: .fixed(ephemeral))
            return (message, InitiatorBox(handshake))
        } catch {
            throw Mismatch("initiation", "the handshake fails: \(error)")
        }
    }

    /// Reads an initiation as the responder does, and answers it.
    package func respond(
        _ keys: Keys, to initiation: [UInt8]
    ) throws(Mismatch) -> (message: [UInt8], label: TAI64N, keys: KeysBox) {
        do throws(HandshakeError) {
            var handshake = try ResponderHandshake.receive(
                initiation: initiation.span.bytes, staticKey: keys.responder, staticPublic: keys.responder.publicKey)
            let staticStatic = try keys.responder.staticStatic(with: handshake.remoteStatic)
            let label = try handshake.openTimestamp(precomputedStaticStatic: staticStatic)
            var message = [UInt8](repeating: 0, count: HandshakeMessage.responseByteCount)
            var span = message.mutableSpan
            var bytes = span.mutableBytes
            let transport = try handshake.respond(
                into: &bytes, responderIndex: responder.index, presharedKey: keys.presharedKey,
                random: .fixed(responder.ephemeralPrivate))
            return (message, label, KeysBox(transport))
        } catch {
            throw Mismatch("response", "the responder refuses the initiation: \(error)")
        }
    }

    /// Reads a response as the initiator does.
    package func finish(_ keys: Keys, _ handshake: InitiatorBox, response: [UInt8]) throws(Mismatch) -> KeysBox {
        do throws(HandshakeError) {
            return KeysBox(
                try handshake.handshake.finish(
                    response: response.span.bytes, staticKey: keys.initiator, presharedKey: keys.presharedKey))
        } catch {
            throw Mismatch("response", "the initiator refuses it: \(error)")
        }
    }

    static func privateKey(_ bytes: [UInt8], _ name: String) throws(Mismatch) -> PrivateKey {
        guard let key = PrivateKey(bytes.span.bytes) else { throw Mismatch(name, "a key has 32 bytes") }
        return key
    }

    private static func presharedKey(_ bytes: [UInt8]?) throws(Mismatch) -> PresharedKey {
        guard let bytes else { return .zero() }
        guard let key = PresharedKey(bytes.span.bytes) else { throw Mismatch("psk", "a key has 32 bytes") }
        return key
    }
}

/// Tuples and arrays hold no values that cannot be copied.
package final class InitiatorBox: Sendable {
    package let handshake: InitiatorHandshake
    init(_ handshake: consuming InitiatorHandshake) { self.handshake = handshake }
}

package final class KeysBox: Sendable {
    package let keys: TransportKeys
    init(_ keys: consuming TransportKeys) { self.keys = keys }

    /// Initiator to responder, and back, of the keys of one side.
    func bytes(isInitiator: Bool) -> (toResponder: [UInt8], toInitiator: [UInt8]) {
        keys.withKeys { sending, receiving in
            isInitiator ? ([UInt8](sending), [UInt8](receiving)) : ([UInt8](receiving), [UInt8](sending))
        }
    }
}

extension RandomSource {
    /// Gives `bytes` over and over: an ephemeral key, or a nonce, that a vector names. It is internal to this target, and a
    /// node is never built from it.
    static func fixed(_ bytes: [UInt8]) -> RandomSource {
        let source = FixedBytes(bytes)
        return RandomSource { output in
            for offset in 0..<output.byteCount { output.store(source.next(), at: offset) }
        }
    }
}
