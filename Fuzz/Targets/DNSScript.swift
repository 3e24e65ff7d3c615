import Proxy

/// What comes from DNS servers and from whoever holds zones, each parser on all of the input.
struct DNSScript {
    private let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func run() {
        message()
        if let element = XMLElement.read(bytes) { _ = element.descendant("Code") }
        let servers = DNSResolver.nameservers(bytes)
        precondition((1...3).contains(servers.count), "more servers than fit")
        let text = String(decoding: bytes, as: UTF8.self)
        if let record = try? DNSPersistRecord(parsing: text) {
            precondition((try? DNSPersistRecord(parsing: record.description)) != nil, "a record that is written is none")
        }
        if let name = DNSName(text) { precondition(name.encoded.count <= 255, "a name that is too long") }
    }

    /// What was read is written and read as the same.
    private func message() {
        guard let message = DNSMessage(bytes) else { return }
        for name in message.questions.map(\.name) + (message.answers + message.authorities + message.additionals).map(\.name) {
            precondition(name.encoded.count <= 255, "a name that is too long")
            precondition(name.description.utf8.allSatisfy { (0x21...0x7E).contains($0) }, "a name that is not fit for a log")
            _ = DNSResolver.texts(message, at: name)
        }
        let written = message.encode()
        // Without compression it may be longer than a message can be.
        if written.count <= DNSMessage.maximumLength {
            guard let again = DNSMessage(written) else { preconditionFailure("what was written is none") }
            precondition(again.questions == message.questions && again.answers == message.answers, "it is not what it was")
            precondition(again.authorities == message.authorities && again.additionals == message.additionals, "it is not what it was")
        }
        _ = message.answers(DNSMessage(id: message.id, flags: 0, questions: message.questions))
        let key = TSIGKey(name: "key.example", algorithm: .sha256, secret: Secret("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))
        try? key?.verify(message, bytes, requestMAC: [1, 2, 3], at: 1_800_000_000)
    }
}
