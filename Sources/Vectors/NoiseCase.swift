/// One conversation between two Noise parties: what goes in, and what must come out.
package struct NoiseCase: Equatable, Sendable {
    /// What one side starts with.
    package struct Party: Equatable, Sendable {
        package var prologue: [UInt8] = []
        package var staticKey: [UInt8]?
        package var ephemeral: [UInt8]?
        /// The other's static public key. If it is missing where the pattern wants it, it derives from the other's private key.
        package var remoteStatic: [UInt8]?
        package var presharedKeys: [[UInt8]] = []

        package init() {}
    }

    package struct Message: Equatable, Sendable {
        package var payload: [UInt8]
        package var ciphertext: [UInt8]

        package init(payload: [UInt8], ciphertext: [UInt8]) {
            self.payload = payload
            self.ciphertext = ciphertext
        }
    }

    /// Who sends the messages that come after the handshake.
    package enum TransportOrder: Equatable, Sendable {
        /// The conversation goes on in turns; in a one-way pattern the initiator sends all.
        case inTurns
        /// The initiator's key comes first, then the responder's, whoever would be next.
        case initiatorFirst
    }

    package enum Parsed: Equatable, Sendable {
        case good(NoiseCase)
        case skipped(name: String, reason: String)
        case bad(name: String, Mismatch)
    }

    package var name: String
    package var protocolName: String
    package var initiator = Party()
    package var responder = Party()
    package var messages: [Message] = []
    package var handshakeHash: [UInt8]?
    package var transportOrder = TransportOrder.inTurns
    /// The last message is to be refused.
    package var mustFail = false

    package init(name: String, protocolName: String) {
        self.name = name
        self.protocolName = protocolName
    }

    /// 65,535: bytes of a message, tag included (Noise §3).
    package static let maximumMessage = 65_535
    /// 64: messages of one case.
    package static let maximumMessages = 64
    /// 16: pre-shared keys of one side.
    package static let maximumPresharedKeys = 16

    /// Bytes of a field of a case.
    enum Field {
        static func key(_ text: String, _ name: String) throws(Mismatch) -> [UInt8] {
            let bytes = try bytes(text, name)
            guard bytes.count == 32 else { throw Mismatch(name, "a key has 32 bytes, this has \(bytes.count)") }
            return bytes
        }

        static func bytes(_ text: String, _ name: String) throws(Mismatch) -> [UInt8] {
            guard text.utf8.count <= 2 * maximumMessage else { throw Mismatch(name, "longer than \(maximumMessage) bytes") }
            guard let bytes = Hex.decode(text) else { throw Mismatch(name, "not hexadecimal") }
            return bytes
        }
    }
}
