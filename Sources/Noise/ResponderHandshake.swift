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

    private let remoteEphemeral: PublicKey
    private var symmetric: SymmetricState
    /// The timestamp's field, sealed or opened.
    private var timestamp: SecretBytes
    private var isTimestampOpen: Bool

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
        var symmetric = SymmetricState.wireGuard()
        symmetric.mixHash(staticPublic)
        // e
        let remoteEphemeral = PublicKey(initiation, at: Field.ephemeral)
        symmetric.mixHash(remoteEphemeral)
        symmetric.mixChainingKey(remoteEphemeral)
        // es, s
        symmetric.mixKey(try X25519.sharedSecret(staticKey.bytes, remoteEphemeral))
        var claim = SecretBytes(copying: initiation.extracting(Field.staticKey))
        try symmetric.decryptAndHash(&claim)
        return ResponderHandshake(
            remoteStatic: claim.withBytes { PublicKey($0, at: 0) }, senderIndex: initiation.littleEndian32(at: Field.sender),
            remoteEphemeral: remoteEphemeral, symmetric: symmetric,
            timestamp: SecretBytes(copying: initiation.extracting(Field.timestamp)), isTimestampOpen: false)
    }

    /// Opens the timestamp, which proves that the initiator has the private key of `remoteStatic`. Once only.
    ///
    /// - Parameter precomputedStaticStatic: ``PrivateKey/staticStatic(with:)`` of our key and `remoteStatic`.
    /// - Throws: ``HandshakeError/authenticationFailed``; nothing can be done with the value then.
    public mutating func openTimestamp(precomputedStaticStatic: borrowing SecretBytes) throws(HandshakeError) -> TAI64N {
        precondition(!isTimestampOpen, "openTimestamp comes once")
        // ss, payload
        symmetric.mixKey(precomputedStaticStatic)
        try symmetric.decryptAndHash(&timestamp)
        guard let label = timestamp.withBytes({ TAI64N($0) }) else { throw .malformed }
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
        // e
        let ephemeral = PrivateKey.generate(using: random)
        let ephemeralPublic = ephemeral.publicKey
        ephemeralPublic.write(into: &message, at: Field.ephemeral)
        symmetric.mixHash(ephemeralPublic)
        symmetric.mixChainingKey(ephemeralPublic)
        // ee, se
        symmetric.mixKey(try X25519.sharedSecret(ephemeral.bytes, remoteEphemeral))
        symmetric.mixKey(try X25519.sharedSecret(ephemeral.bytes, remoteStatic))
        // psk, payload
        symmetric.mixKeyAndHash(presharedKey.bytes)
        symmetric.encryptAndHash(&message, plaintext: Field.empty.withoutTag)
        MACKeys(publicKey: remoteStatic).writeMAC1(into: &message, byteCount: HandshakeMessage.responseByteCount)
        return symmetric.split(isInitiator: false)
    }
}
