import Inet

/// The responder's side of one handshake.
///
///     receive ──► who is it? ──openTimestamp──► is it new? ──respond──► TransportKeys
///
/// It stops after each step for its owner to look up the peer, and to compare the timestamp with the peer's last one.
/// Dropping the value at any step wipes. mac1, mac2 and the load of the machine are judged before `receive`.
///
/// Source: WG §5.4.2, §5.4.3.
public struct ResponderHandshake: ~Copyable, Sendable {
    /// The static key that the initiator claims. It is proven only by `openTimestamp`.
    public let remoteStatic: PublicKey
    /// The index by which the initiator wants to be addressed.
    public let senderIndex: UInt32

    private var state: HandshakeState
    /// The initiation's Noise message, opened as far as it is read.
    private var message: SecretBytes
    private var isTimestampOpen = false

    /// Reads an initiation as far as the initiator's static key, for the price of one key agreement.
    ///
    /// - Parameters:
    ///   - initiation: all of the message; its mac1 has been checked.
    ///   - staticKey: ours; `staticPublic` is its public key.
    /// - Throws: any ``HandshakeError`` but `wrongReceiverIndex`.
    public static func receive(
        initiation: RawSpan, staticKey: borrowing PrivateKey, staticPublic: PublicKey
    ) throws(HandshakeError) -> ResponderHandshake {
        typealias Field = HandshakeMessage.Initiation
        guard initiation.byteCount == HandshakeMessage.initiationByteCount, initiation.littleEndian32(at: 0) == Field.type else {
            throw .malformed
        }
        var message = SecretBytes(copying: initiation.extracting(Field.noiseMessage))
        do throws(NoiseError) {
            var state = try HandshakeState.wireGuard(
                .responder, staticPublic: staticPublic, remoteStatic: nil, random: RandomSource { _ in })
            state.setStaticKey(staticKey)
            // e, es, s
            try message.withMutableBytes { (bytes) throws(NoiseError) in try state.readTokens(&bytes, upTo: .s) }
            guard let remoteStatic = state.remoteStatic else { throw .messageTooShort }
            return ResponderHandshake(
                remoteStatic: remoteStatic, senderIndex: initiation.littleEndian32(at: Field.sender), state: state, message: message)
        } catch { throw HandshakeError(error) }
    }

    /// Opens the timestamp, which proves that the initiator has the private key of `remoteStatic`. Once only.
    ///
    /// - Parameter precomputedStaticStatic: ``PrivateKey/staticStatic(with:)`` of our key and `remoteStatic`.
    /// - Throws: ``HandshakeError/authenticationFailed``; nothing can be done with the value then.
    public mutating func openTimestamp(precomputedStaticStatic: borrowing SecretBytes) throws(HandshakeError) -> TAI64N {
        precondition(!isTimestampOpen, "openTimestamp comes once")
        // ss, payload
        state.setStaticStatic(precomputedStaticStatic)
        var label: TAI64N?
        do throws(NoiseError) {
            try message.withMutableBytes { (bytes) throws(NoiseError) in
                try state.readTokens(&bytes)
                let payload = try state.finishRead(&bytes)
                label = TAI64N(bytes.bytes, at: payload.lowerBound)
            }
        } catch { throw HandshakeError(error) }
        guard let label else { throw .malformed }
        isTimestampOpen = true
        return label
    }

    /// Writes a 92-byte response to the beginning of `message`, mac1 set, mac2 zero. Comes after `openTimestamp`.
    ///
    /// - Parameters:
    ///   - message: at least 92 bytes.
    ///   - responderIndex: ours, unique among our sessions.
    ///   - presharedKey: zero if there is none.
    ///   - random: gives the ephemeral key.
    /// - Throws: ``HandshakeError/lowOrderPoint`` if a key of the initiator is one.
    public consuming func respond(
        into message: inout MutableRawSpan, responderIndex: UInt32, presharedKey: borrowing PresharedKey, random: RandomSource
    ) throws(HandshakeError) -> TransportKeys {
        typealias Field = HandshakeMessage.Response
        precondition(isTimestampOpen, "respond comes after openTimestamp")
        precondition(message.byteCount >= HandshakeMessage.responseByteCount, "no room for a response")
        message.storeLittleEndian(Field.type, at: 0)
        message.storeLittleEndian(responderIndex, at: Field.sender)
        message.storeLittleEndian(senderIndex, at: Field.receiver)
        state.setPresharedKey(presharedKey)
        state.random = random
        do throws(NoiseError) { try state.writeMessage(into: &message, at: Field.noiseMessage.lowerBound) } catch {
            throw HandshakeError(error)
        }
        MACKeys(publicKey: remoteStatic).writeMAC1(into: &message, byteCount: HandshakeMessage.responseByteCount)
        return state.transportKeys()
    }
}
