import Inet
import Noise
import WGUserspace

/// Judges a message as its receiver does, in the order of the checks.
enum WireGuardRejection: String {
    case length = "its length"
    case type = "its type"
    case mac1 = "its mac1"
    case lowOrderPoint = "a point of low order"
    case notAuthentic = "it is not authentic"
    case unknownPeer = "an unknown peer"
    case unknownIndex = "an unknown index"

    /// What the words of a file's `why` ask for; `nil` if they ask for no particular one.
    init?(why: String) {
        switch why {
        case "mac1 is wrong", "sender index is not authenticated by the AEAD, only by mac1": self = .mac1
        case "a reserved byte is not zero (mac1 valid)": self = .type
        case "one byte short", "one byte long": self = .length
        case "ephemeral is a low-order point (mac1 valid)": self = .lowOrderPoint
        case "authentic, but from an unknown static key": self = .unknownPeer
        case "receiver index is unknown (mac1 valid)": self = .unknownIndex
        case _ where why.contains("tampered with"): self = .notAuthentic
        case _: return nil
        }
    }

    private init(_ error: HandshakeError) {
        switch error {
        case .malformed: self = .type
        case .lowOrderPoint: self = .lowOrderPoint
        case .authenticationFailed: self = .notAuthentic
        case .wrongReceiverIndex: self = .unknownIndex
        }
    }

    /// `nil` if the responder takes the message for a good initiation of the initiator.
    static func judgeInitiation(
        _ message: [UInt8], _ handshake: WireGuardHandshake, _ keys: WireGuardHandshake.Keys
    ) -> WireGuardRejection? {
        switch Message.classify(message.span.bytes) {
        case .initiation: break
        case .invalid(.unknownType), .response, .cookieReply, .data: return .type
        case .invalid: return .length
        }
        let publicKey = keys.responder.publicKey
        guard MACKeys(publicKey: publicKey).isValidMAC1(message: message.span.bytes) else { return .mac1 }
        do throws(HandshakeError) {
            var responder = try ResponderHandshake.receive(
                initiation: message.span.bytes, staticKey: keys.responder, staticPublic: publicKey)
            guard responder.remoteStatic == keys.initiator.publicKey else { return .unknownPeer }
            _ = try responder.openTimestamp(precomputedStaticStatic: keys.responder.staticStatic(with: responder.remoteStatic))
            return nil
        } catch {
            return WireGuardRejection(error)
        }
    }

    /// `nil` if the initiator takes the message for a good response to its initiation.
    static func judgeResponse(
        _ message: [UInt8], _ handshake: WireGuardHandshake, _ keys: WireGuardHandshake.Keys
    ) throws(Mismatch) -> WireGuardRejection? {
        switch Message.classify(message.span.bytes) {
        case .response: break
        case .invalid(.unknownType), .initiation, .cookieReply, .data: return .type
        case .invalid: return .length
        }
        guard MACKeys(publicKey: keys.initiator.publicKey).isValidMAC1(message: message.span.bytes) else { return .mac1 }
        let initiator = try handshake.initiate(
            keys, ephemeral: handshake.initiator.ephemeralPrivate, index: handshake.initiator.index, label: handshake.label
        ).handshake
        do throws(HandshakeError) {
            _ = try initiator.handshake.finish(
                response: message.span.bytes, staticKey: keys.initiator, presharedKey: keys.presharedKey)
            return nil
        } catch {
            return WireGuardRejection(error)
        }
    }
}
