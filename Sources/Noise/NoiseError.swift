/// Why a Noise handshake cannot begin or does not go on.
public enum NoiseError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The name is not `Noise_PATTERN_25519_CIPHER_HASH` with parts that are known.
    case unknownProtocol
    /// The pattern needs a key that was not given: the own static one, or the remote's.
    case missingKey
    /// Not as many preshared keys as the pattern mixes in, 32 bytes each.
    case wrongPresharedKeys
    /// It is the other side's turn, or the handshake is through.
    case outOfTurn
    /// Longer than 65,535 bytes (Noise §3), or than the room that is there for it.
    case messageTooLong
    /// Shorter than the keys and tags that it has to hold.
    case messageTooShort
    /// A key agreement gave zero: the remote's key is a point of low order.
    case lowOrderPoint
    /// A field does not decrypt: forged, damaged, or made with other keys.
    case authenticationFailed
    /// The cipher has sealed or opened 2^64 - 1 messages.
    case nonceExhausted
    /// An earlier message failed: the handshake is dead.
    case dead

    public var description: String {
        switch self {
        case .unknownProtocol:
            "not a Noise protocol that is known here: Noise_PATTERN_25519_(ChaChaPoly|AESGCM)_(BLAKE2s|BLAKE2b|SHA256|SHA512)"
        case .missingKey: "the pattern needs a static key that was not given"
        case .wrongPresharedKeys: "the pattern needs another number of preshared keys of 32 bytes"
        case .outOfTurn: "it is the other side's turn, or the handshake is through"
        case .messageTooLong: "the message is longer than Noise or the buffer allows"
        case .messageTooShort: "the message is shorter than what it has to hold"
        case .lowOrderPoint: "a public key is a point of low order"
        case .authenticationFailed: "a field does not decrypt"
        case .nonceExhausted: "the nonces of this key are used up"
        case .dead: "an earlier message of the handshake failed"
        }
    }

    init(_ error: HandshakeError) {
        switch error {
        case .lowOrderPoint: self = .lowOrderPoint
        case .authenticationFailed: self = .authenticationFailed
        case .malformed, .wrongReceiverIndex: self = .messageTooShort
        }
    }
}

extension HandshakeError {
    init(_ error: NoiseError) {
        switch error {
        case .lowOrderPoint: self = .lowOrderPoint
        case .authenticationFailed: self = .authenticationFailed
        case .unknownProtocol, .missingKey, .wrongPresharedKeys, .outOfTurn, .messageTooLong, .messageTooShort, .nonceExhausted, .dead:
            self = .malformed
        }
    }
}
