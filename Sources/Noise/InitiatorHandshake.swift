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

    private let symmetric: SymmetricState
    private let ephemeral: PrivateKey

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
        var symmetric = SymmetricState.wireGuard()
        symmetric.mixHash(remote)
        // e
        let ephemeral = PrivateKey.generate(using: random)
        let ephemeralPublic = ephemeral.publicKey
        ephemeralPublic.write(into: &message, at: Field.ephemeral)
        symmetric.mixHash(ephemeralPublic)
        symmetric.mixChainingKey(ephemeralPublic)
        // es, s
        symmetric.mixKey(try X25519.sharedSecret(ephemeral.bytes, remote))
        staticPublic.write(into: &message, at: Field.staticKey.lowerBound)
        symmetric.encryptAndHash(&message, plaintext: Field.staticKey.withoutTag)
        // ss, payload
        symmetric.mixKey(precomputedStaticStatic)
        timestamp.write(into: &message, at: Field.timestamp.lowerBound)
        symmetric.encryptAndHash(&message, plaintext: Field.timestamp.withoutTag)
        MACKeys(publicKey: remote).writeMAC1(into: &message, byteCount: HandshakeMessage.initiationByteCount)
        return InitiatorHandshake(senderIndex: senderIndex, symmetric: symmetric, ephemeral: ephemeral)
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
        var symmetric = symmetric.copy()
        // e
        let remoteEphemeral = PublicKey(response, at: Field.ephemeral)
        symmetric.mixHash(remoteEphemeral)
        symmetric.mixChainingKey(remoteEphemeral)
        // ee, se
        symmetric.mixKey(try X25519.sharedSecret(ephemeral.bytes, remoteEphemeral))
        symmetric.mixKey(try X25519.sharedSecret(staticKey.bytes, remoteEphemeral))
        // psk, payload
        symmetric.mixKeyAndHash(presharedKey.bytes)
        var empty = SecretBytes(copying: response.extracting(Field.empty))
        try symmetric.decryptAndHash(&empty)
        return symmetric.split(isInitiator: true)
    }
}

extension Range<Int> {
    /// The plaintext of a sealed field.
    var withoutTag: Range<Int> { lowerBound..<upperBound - ChaChaPoly.tagByteCount }
}
