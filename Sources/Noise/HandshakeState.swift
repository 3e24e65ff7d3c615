import Inet

/// One side of a Noise handshake, message by message.
///
///     write/read ──► write/read ──► … ──► isFinished ──► split
///
/// A message that fails to be read leaves the handshake dead: what came of it is half mixed in. Who wants to survive forged messages,
/// as WireGuard does, reads on a ``copy()``. Dropping the value wipes all keys.
///
/// It does not frame or number messages, and knows nothing of fallback patterns.
///
/// Source: Noise §5.3.
public struct HandshakeState: ~Copyable, Sendable {
    public enum Role: Hashable, Sendable {
        case initiator
        case responder
    }

    /// 65,535: bytes of a message, at most (Noise §3).
    public static let maximumMessage = 65_535
    /// 32: bytes of a preshared key.
    public static let presharedKeyByteCount = 32

    public let role: Role
    public let pattern: HandshakePattern
    /// The other side's static public key, once it is known.
    public internal(set) var remoteStatic: PublicKey?
    /// Whether a message could not be read.
    public internal(set) var isDead = false

    var symmetric: SymmetricState
    var localStatic: PrivateKey?
    var localStaticPublic: PublicKey?
    var ephemeral: PrivateKey?
    var remoteEphemeral: PublicKey?
    /// One behind the other, in the order in which the pattern mixes them in.
    var presharedKeys: SecretBytes
    var presharedKeysUsed = 0
    /// Both static keys' agreement if it was computed before.
    var staticStatic: SecretBytes?
    var random: RandomSource

    var messageIndex = 0
    /// Of a message that is read in parts: how far it is read.
    var tokenIndex = 0
    var readOffset = 0

    /// - Parameters:
    ///   - prologue: what both sides must agree on beforehand, any length.
    ///   - staticKey: our static key, if the pattern uses one.
    ///   - remoteStatic: the other side's, if the pattern presumes that we know it.
    ///   - presharedKeys: 32 bytes for each `psk` of the pattern, in its order.
    ///   - random: gives the ephemeral key; must be cryptographically secure.
    /// - Throws: ``NoiseError/missingKey``, ``NoiseError/wrongPresharedKeys``.
    public init(
        _ noise: NoiseProtocol, role: Role, prologue: RawSpan = RawSpan(), staticKey: consuming PrivateKey? = nil,
        remoteStatic: PublicKey? = nil, presharedKeys: RawSpan = RawSpan(), random: RandomSource
    ) throws(NoiseError) {
        let staticPublic: PublicKey?
        switch staticKey {
        case .some(let key): staticPublic = key.publicKey
        case .none: staticPublic = nil
        }
        try self.init(
            noise, role: role, prologue: prologue, staticPublic: staticPublic, remoteStatic: remoteStatic, presharedKeys: presharedKeys,
            random: random)
        localStatic = staticKey
    }

    /// As above, of a side whose static private key comes later (``setStaticKey(_:)``) or whose agreements are computed already.
    init(
        _ noise: NoiseProtocol, role: Role, prologue: RawSpan, staticPublic: PublicKey?, remoteStatic: PublicKey?,
        presharedKeys: RawSpan, random: RandomSource
    ) throws(NoiseError) {
        let pattern = noise.pattern
        guard presharedKeys.byteCount == pattern.presharedKeyCount * Self.presharedKeyByteCount else { throw .wrongPresharedKeys }
        let isInitiator = role == .initiator
        let knowsRemote = isInitiator ? pattern.knowsResponder : pattern.knowsInitiator
        guard staticPublic != nil || !pattern.usesStatic(of: role) else { throw .missingKey }
        guard remoteStatic != nil || !knowsRemote else { throw .missingKey }
        self.role = role
        self.pattern = pattern
        self.random = random
        self.remoteStatic = knowsRemote ? remoteStatic : nil
        self.presharedKeys = SecretBytes(copying: presharedKeys)
        localStaticPublic = staticPublic
        symmetric = SymmetricState(noise)
        symmetric.mixHash(prologue)
        let initiatorKey = isInitiator ? staticPublic : remoteStatic
        let responderKey = isInitiator ? remoteStatic : staticPublic
        if pattern.knowsInitiator, let initiatorKey { symmetric.mixHash(initiatorKey) }
        if pattern.knowsResponder, let responderKey { symmetric.mixHash(responderKey) }
    }

    /// Whether all messages are through.
    public var isFinished: Bool { messageIndex == pattern.messages.count }

    /// Whether the next message is ours to write.
    public var isOurTurn: Bool { !isFinished && !isDead && messageIndex.isMultiple(of: 2) == (role == .initiator) }

    /// Calls `body` with the handshake hash, 32 or 64 bytes: it names the session, and is no secret.
    public func withHandshakeHash<Result: ~Copyable>(_ body: (RawSpan) -> Result) -> Result { symmetric.hash.withBytes(body) }

    /// Bytes that the next message has beside its payload.
    public var overhead: Int {
        guard !isFinished else { return 0 }
        var hasKey = symmetric.hasKey
        var count = 0
        let isPSK = pattern.presharedKeyCount > 0
        for token in pattern.messages[messageIndex] {
            switch token {
            case .e:
                count += PublicKey.byteCount
                if isPSK { hasKey = true }
            case .s: count += PublicKey.byteCount + (hasKey ? CipherFunction.tagByteCount : 0)
            case .ee, .es, .se, .ss, .psk: hasKey = true
            }
        }
        return count + (hasKey ? CipherFunction.tagByteCount : 0)
    }

    /// Writes the next message to `buffer`.
    ///
    /// - Parameters:
    ///   - payload: any bytes; sealed if there is a key by then.
    ///   - offset: where the message begins.
    /// - Returns: the range of the message.
    /// - Throws: ``NoiseError/outOfTurn``, ``NoiseError/messageTooLong`` (nothing has happened then), ``NoiseError/lowOrderPoint``,
    ///   ``NoiseError/dead``.
    @discardableResult
    public mutating func writeMessage(
        payload: RawSpan = RawSpan(), into buffer: inout MutableRawSpan, at offset: Int = 0
    ) throws(NoiseError) -> Range<Int> {
        guard !isDead else { throw .dead }
        guard isOurTurn else { throw .outOfTurn }
        let length = payload.byteCount + overhead
        guard length <= Self.maximumMessage, offset >= 0, length <= buffer.byteCount - offset else { throw .messageTooLong }
        do throws(HandshakeError) {
            var end = offset
            for token in pattern.messages[messageIndex] { end = try write(token, into: &buffer, at: end) }
            buffer.copy(payload, at: end)
            end = symmetric.encryptAndHash(&buffer, plaintext: end..<end + payload.byteCount)
            messageIndex += 1
            return offset..<end
        } catch {
            isDead = true
            throw NoiseError(error)
        }
    }

    /// Reads the next message, which is all of `message`, and opens it in place.
    ///
    /// - Returns: the payload's range in `message`.
    /// - Throws: ``NoiseError/outOfTurn``, ``NoiseError/messageTooLong``, ``NoiseError/messageTooShort``,
    ///   ``NoiseError/authenticationFailed``, ``NoiseError/lowOrderPoint``, ``NoiseError/dead``.
    public mutating func readMessage(_ message: inout MutableRawSpan) throws(NoiseError) -> Range<Int> {
        try readTokens(&message)
        return try finishRead(&message)
    }

    /// Both keys of the transport phase. Comes after `isFinished`.
    ///
    /// - Throws: ``NoiseError/outOfTurn`` if the handshake is not through.
    public consuming func split() throws(NoiseError) -> CipherStates {
        guard isFinished, !isDead else { throw .outOfTurn }
        let cipher = symmetric.cipher
        let keys = symmetric.split()
        return keys.withBytes {
            CipherStates(
                initiatorToResponder: CipherState(cipher, key: $0.extracting(0..<32)),
                responderToInitiator: CipherState(cipher, key: $0.extracting(32..<64)))
        }
    }

    // MARK: - For WireGuard's messages, which are read in parts

    /// The same handshake once more.
    func copy() -> HandshakeState {
        var other = HandshakeState(copying: self)
        switch localStatic {
        case .some(let key): other.localStatic = key.copy()
        case .none: break
        }
        switch ephemeral {
        case .some(let key): other.ephemeral = key.copy()
        case .none: break
        }
        switch staticStatic {
        case .some(let secret): other.staticStatic = secret.copy()
        case .none: break
        }
        return other
    }

    mutating func setStaticKey(_ key: borrowing PrivateKey) { localStatic = key.copy() }

    /// Both static keys' agreement, so that `ss` costs nothing.
    mutating func setStaticStatic(_ secret: borrowing SecretBytes) { staticStatic = secret.copy() }

    /// The preshared keys, whose number must be that of the pattern.
    mutating func setPresharedKey(_ key: borrowing PresharedKey) {
        precondition(presharedKeys.count == PresharedKey.byteCount, "one preshared key")
        presharedKeys = key.bytes.copy()
    }

    /// The two keys of a WireGuard session.
    consuming func transportKeys() -> TransportKeys {
        precondition(isFinished, "the handshake is not through")
        let isInitiator = role == .initiator
        return TransportKeys(symmetric.split(), isInitiator: isInitiator)
    }

    private init(copying other: borrowing HandshakeState) {
        role = other.role
        pattern = other.pattern
        remoteStatic = other.remoteStatic
        isDead = other.isDead
        symmetric = other.symmetric.copy()
        localStaticPublic = other.localStaticPublic
        remoteEphemeral = other.remoteEphemeral
        presharedKeys = other.presharedKeys.copy()
        presharedKeysUsed = other.presharedKeysUsed
        random = other.random
        messageIndex = other.messageIndex
        tokenIndex = other.tokenIndex
        readOffset = other.readOffset
    }
}
