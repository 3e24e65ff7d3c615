import Inet

/// What each token of a pattern does.
///
/// Source: Noise §5.3 (`WriteMessage`, `ReadMessage`), §9.2 (`e` and `psk` in PSK handshakes).
extension HandshakeState {
    /// Reads the tokens of the next message, all or up to and with the first `last`.
    mutating func readTokens(_ message: inout MutableRawSpan, upTo last: HandshakePattern.Token? = nil) throws(NoiseError) {
        guard !isDead else { throw .dead }
        guard !isFinished, !isOurTurn else { throw .outOfTurn }
        guard message.byteCount <= Self.maximumMessage else { throw .messageTooLong }
        do throws(HandshakeError) {
            let tokens = pattern.messages[messageIndex]
            while tokenIndex < tokens.count {
                let token = tokens[tokenIndex]
                try read(token, from: &message)
                tokenIndex += 1
                if token == last { return }
            }
        } catch {
            isDead = true
            throw NoiseError(error)
        }
    }

    /// Reads the payload behind the tokens.
    mutating func finishRead(_ message: inout MutableRawSpan) throws(NoiseError) -> Range<Int> {
        guard !isDead else { throw .dead }
        let field = readOffset..<message.byteCount
        let tag = symmetric.hasKey ? CipherFunction.tagByteCount : 0
        guard field.count >= tag else {
            isDead = true
            throw .messageTooShort
        }
        do throws(HandshakeError) { try symmetric.decryptAndHash(&message, ciphertext: field) } catch {
            isDead = true
            throw NoiseError(error)
        }
        messageIndex += 1
        tokenIndex = 0
        readOffset = 0
        return field.lowerBound..<field.upperBound - tag
    }

    /// - Returns: where the message goes on.
    mutating func write(
        _ token: HandshakePattern.Token, into buffer: inout MutableRawSpan, at offset: Int
    ) throws(HandshakeError) -> Int {
        switch token {
        case .e:
            let key = PrivateKey.generate(using: random)
            let publicKey = key.publicKey
            ephemeral = consume key
            publicKey.write(into: &buffer, at: offset)
            mixEphemeral(publicKey)
            return offset + PublicKey.byteCount
        case .s:
            // The constructor has seen to it that there is one.
            guard let localStaticPublic else { throw .malformed }
            localStaticPublic.write(into: &buffer, at: offset)
            return symmetric.encryptAndHash(&buffer, plaintext: offset..<offset + PublicKey.byteCount)
        case .ee, .es, .se, .ss, .psk:
            try mix(token)
            return offset
        }
    }

    private mutating func read(_ token: HandshakePattern.Token, from message: inout MutableRawSpan) throws(HandshakeError) {
        switch token {
        case .e:
            guard message.byteCount - readOffset >= PublicKey.byteCount else { throw .malformed }
            let key = PublicKey(message.bytes, at: readOffset)
            readOffset += PublicKey.byteCount
            remoteEphemeral = key
            mixEphemeral(key)
        case .s:
            let length = PublicKey.byteCount + (symmetric.hasKey ? CipherFunction.tagByteCount : 0)
            guard message.byteCount - readOffset >= length else { throw .malformed }
            try symmetric.decryptAndHash(&message, ciphertext: readOffset..<readOffset + length)
            remoteStatic = PublicKey(message.bytes, at: readOffset)
            readOffset += length
        case .ee, .es, .se, .ss, .psk: try mix(token)
        }
    }

    private mutating func mixEphemeral(_ key: PublicKey) {
        symmetric.mixHash(key)
        // Noise §9.2: with a preshared key nobody's randomness alone decides the keys.
        if pattern.presharedKeyCount > 0 { symmetric.mixKey(key) }
    }

    private mutating func mix(_ token: HandshakePattern.Token) throws(HandshakeError) {
        let isInitiator = role == .initiator
        switch token {
        case .ee: symmetric.mixKey(try agree(ephemeral, remoteEphemeral))
        case .es: symmetric.mixKey(try isInitiator ? agree(ephemeral, remoteStatic) : agree(localStatic, remoteEphemeral))
        case .se: symmetric.mixKey(try isInitiator ? agree(localStatic, remoteEphemeral) : agree(ephemeral, remoteStatic))
        case .ss:
            if let known = staticStatic.take() {
                symmetric.mixKey(known)
            } else {
                symmetric.mixKey(try agree(localStatic, remoteStatic))
            }
        case .psk:
            let offset = presharedKeysUsed * Self.presharedKeyByteCount
            presharedKeysUsed += 1
            // The constructor has counted them; the bytes live as long as `self`.
            let key = unsafe RawSpan(_unsafeStart: presharedKeys.base + offset, byteCount: Self.presharedKeyByteCount)
            symmetric.mixKeyAndHash(key)
        case .e, .s: break
        }
    }

    private func agree(_ ours: borrowing PrivateKey?, _ theirs: PublicKey?) throws(HandshakeError) -> SecretBytes {
        guard let theirs else { throw .malformed }
        switch ours {
        case .some(let key): return try X25519.sharedSecret(key.bytes, theirs)
        // A pattern does not agree on what it has not sent; the constructor has asked for the rest.
        case .none: throw .malformed
        }
    }
}

extension HandshakePattern {
    /// Whether the side has a static key, known before or sent.
    func usesStatic(of role: HandshakeState.Role) -> Bool {
        if role == .initiator ? knowsInitiator : knowsResponder { return true }
        let first = role == .initiator ? 0 : 1
        return stride(from: first, to: messages.count, by: 2).contains { messages[$0].contains(.s) }
    }
}
