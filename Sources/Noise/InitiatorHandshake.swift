import Inet

/// The initiator's side of one handshake: what has to be remembered between the initiation and its response.
///
///     initiate ──► InitiatorHandshake ──finish──► TransportKeys
///
/// `finish` leaves the value as it was, so that a forged response cannot kill the handshake; the owner drops it when the
/// true response came or the time is up, and dropping wipes. It does not resend: every initiation is a new handshake.
///
/// Source: WG §5.4.2, §5.4.3.
public struct InitiatorHandshake: ~Copyable, Sendable {
    /// The index by which the responder addresses us.
    public let senderIndex: UInt32

    private let state: Waiting

    /// On the heap: the many peers that are not shaking hands shall not keep room for it.
    private final class Waiting: Sendable {
        let state: HandshakeState
        init(_ state: consuming HandshakeState) { self.state = state }
    }

    /// Writes a 148-byte initiation to the beginning of `message`, mac1 set, mac2 zero.
    ///
    /// - Parameters:
    ///   - message: at least 148 bytes.
    ///   - staticPublic: the public key of our static key.
    ///   - remote: the responder's static key.
    ///   - precomputedStaticStatic: ``PrivateKey/staticStatic(with:)`` of the two.
    ///   - senderIndex: unique among our sessions.
    ///   - timestamp: later than that of every earlier initiation to this responder.
    ///   - random: gives the ephemeral key.
    /// - Throws: ``HandshakeError/lowOrderPoint`` if `remote` is none.
    public static func initiate(
        into message: inout MutableRawSpan, staticPublic: PublicKey, remote: PublicKey,
        precomputedStaticStatic: borrowing SecretBytes, senderIndex: UInt32, timestamp: TAI64N, random: RandomSource
    ) throws(HandshakeError) -> InitiatorHandshake {
        typealias Field = HandshakeMessage.Initiation
        precondition(message.byteCount >= HandshakeMessage.initiationByteCount, "no room for an initiation")
        message.storeLittleEndian(Field.type, at: 0)
        message.storeLittleEndian(senderIndex, at: Field.sender)
        do throws(NoiseError) {
            var state = try HandshakeState.wireGuard(.initiator, staticPublic: staticPublic, remoteStatic: remote, random: random)
            state.setStaticStatic(precomputedStaticStatic)
            var label = InlineArray<2, UInt64>(repeating: 0)
            var words = label.mutableSpan
            // Integers have no padding, so that looking at their bytes is sound.
            var bytes = unsafe words.mutableBytes
            timestamp.write(into: &bytes, at: 0)
            try state.writeMessage(
                payload: bytes.bytes.extracting(0..<TAI64N.byteCount), into: &message, at: Field.noiseMessage.lowerBound)
            MACKeys(publicKey: remote).writeMAC1(into: &message, byteCount: HandshakeMessage.initiationByteCount)
            return InitiatorHandshake(senderIndex: senderIndex, state: Waiting(state))
        } catch { throw HandshakeError(error) }
    }

    /// Takes the response.
    ///
    /// - Parameters:
    ///   - response: all of the message; its mac1 has been checked.
    ///   - staticKey: the one that `initiate` was about.
    ///   - presharedKey: zero if there is none.
    /// - Throws: any ``HandshakeError``; the value is as before and waits for the true response.
    public func finish(
        response: RawSpan, staticKey: borrowing PrivateKey, presharedKey: borrowing PresharedKey
    ) throws(HandshakeError) -> TransportKeys {
        typealias Field = HandshakeMessage.Response
        guard response.byteCount == HandshakeMessage.responseByteCount, response.littleEndian32(at: 0) == Field.type else {
            throw .malformed
        }
        guard response.littleEndian32(at: Field.receiver) == senderIndex else { throw .wrongReceiverIndex }
        var state = state.state.copy()
        state.setStaticKey(staticKey)
        state.setPresharedKey(presharedKey)
        var field = SecretBytes(copying: response.extracting(Field.noiseMessage))
        do throws(NoiseError) { try field.withMutableBytes { (bytes) throws(NoiseError) in _ = try state.readMessage(&bytes) } } catch {
            throw HandshakeError(error)
        }
        return state.transportKeys()
    }
}

extension HandshakeState {
    /// The state that a WireGuard handshake starts from. The preshared key, and what is computed already, come later.
    static func wireGuard(
        _ role: Role, staticPublic: PublicKey, remoteStatic: PublicKey?, random: RandomSource
    ) throws(NoiseError) -> HandshakeState {
        let none = InlineArray<4, UInt64>(repeating: 0)
        // The spans are used during the call only.
        return try HandshakeState(
            .wireGuard, role: role, prologue: unsafe identifier.utf8Span.span.bytes, staticPublic: staticPublic,
            remoteStatic: remoteStatic, presharedKeys: unsafe none.span.bytes, random: random)
    }

    /// WG §5.4: the prologue.
    package static let identifier = "WireGuard v1 zx2c4 Jason@zx2c4.com"
}
