/// A handshake pattern: which keys each side knows before, and what each message does, in order.
///
/// Source: Noise §7.4 (one-way), §7.5 (interactive), §18.1 (deferred), §9.4 (`psk` modifiers).
public struct HandshakePattern: Hashable, Sendable {
    /// What a message does (Noise §5.3, §9.2).
    public enum Token: String, Hashable, Sendable {
        case e
        case s
        case ee
        case es
        case se
        case ss
        case psk
    }

    /// `IKpsk2`, say.
    public let name: String
    /// Whether the responder knows the initiator's static key before.
    public let knowsInitiator: Bool
    /// Whether the initiator knows the responder's static key before.
    public let knowsResponder: Bool
    /// The messages, beginning with the initiator's.
    public let messages: [[Token]]

    /// How many preshared keys are mixed in.
    public var presharedKeyCount: Int { messages.joined().count { $0 == .psk } }
    /// Whether only the initiator speaks, in the handshake and after it.
    public var isOneWay: Bool { messages.count == 1 }

    /// Takes a name, such as `XX`, `X1K1` or `NNpsk0+psk2`; `nil` if it names no pattern.
    public init?(_ name: String) {
        guard name.utf8.count <= 32 else { return nil }
        let base = name.prefix { !$0.isLowercase }
        guard let text = Self.table[String(base)] else { return nil }
        let parts = text.split(separator: ";", omittingEmptySubsequences: false)
        knowsInitiator = parts[0] == "s"
        knowsResponder = parts[1] == "s"
        var messages = parts[2...].map { $0.split(separator: " ").compactMap { Token(rawValue: String($0)) } }
        var positions: Set<Int> = []
        let modifiers = name[base.endIndex...]
        if !modifiers.isEmpty {
            for modifier in modifiers.split(separator: "+", omittingEmptySubsequences: false) {
                // `psk0` comes first of all, `pskN` at the end of message N.
                guard modifier.hasPrefix("psk"), modifier.utf8.count == 4, let position = Int(modifier.dropFirst(3)),
                    (0...messages.count).contains(position), positions.insert(position).inserted
                else { return nil }
                if position == 0 { messages[0].insert(.psk, at: 0) } else { messages[position - 1].append(.psk) }
            }
        }
        self.messages = messages
        self.name = name
    }

    /// The names of all patterns without modifiers.
    public static let names = table.keys.sorted()

    /// What the initiator's static key and the responder's are before (`s` if known), then the messages.
    private static let table: [String: String] = [
        "N": ";s;e es",
        "K": "s;s;e es ss",
        "X": ";s;e es s ss",

        "NN": ";;e;e ee",
        "NK": ";s;e es;e ee",
        "NX": ";;e;e ee s es",
        "KN": "s;;e;e ee se",
        "KK": "s;s;e es ss;e ee se",
        "KX": "s;;e;e ee se s es",
        "XN": ";;e;e ee;s se",
        "XK": ";s;e es;e ee;s se",
        "XX": ";;e;e ee s es;s se",
        "IN": ";;e s;e ee se",
        "IK": ";s;e es s ss;e ee se",
        "IX": ";;e s;e ee se s es",

        "NK1": ";s;e;e ee es",
        "NX1": ";;e;e ee s;es",
        "X1N": ";;e;e ee;s;se",
        "X1K": ";s;e es;e ee;s;se",
        "XK1": ";s;e;e ee es;s se",
        "X1K1": ";s;e;e ee es;s;se",
        "X1X": ";;e;e ee s es;s;se",
        "XX1": ";;e;e ee s;es s se",
        "X1X1": ";;e;e ee s;es s;se",
        "K1N": "s;;e;e ee;se",
        "K1K": "s;s;e es;e ee;se",
        "KK1": "s;s;e;e ee se es",
        "K1K1": "s;s;e;e ee es;se",
        "K1X": "s;;e;e ee s es;se",
        "KX1": "s;;e;e ee se s;es",
        "K1X1": "s;;e;e ee s;se es",
        "I1N": ";;e s;e ee;se",
        "I1K": ";s;e es s;e ee;se",
        "IK1": ";s;e s;e ee se es",
        "I1K1": ";s;e s;e ee es;se",
        "I1X": ";;e s;e ee s es;se",
        "IX1": ";;e s;e ee se s;es",
        "I1X1": ";;e s;e ee s;se es",
    ]
}

/// A Noise protocol by its name: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`.
///
/// Source: Noise §8.
public struct NoiseProtocol: Hashable, Sendable {
    public let name: String
    public let pattern: HandshakePattern
    public let cipher: CipherFunction
    public let hash: HashFunction

    /// - Throws: ``NoiseError/unknownProtocol``; key agreement is over 25519 only, and the cipher has to be
    ///   ``CipherFunction/isAvailable``.
    public init(_ name: String) throws(NoiseError) {
        guard name.utf8.count <= 255 else { throw .unknownProtocol }
        let parts = name.split(separator: "_", omittingEmptySubsequences: false)
        guard parts.count == 5, parts[0] == "Noise", parts[2] == "25519", let pattern = HandshakePattern(String(parts[1])),
            let cipher = CipherFunction(rawValue: String(parts[3])), cipher.isAvailable, let hash = HashFunction(rawValue: String(parts[4]))
        else { throw .unknownProtocol }
        self.init(name: name, pattern: pattern, cipher: cipher, hash: hash)
    }

    private init(name: String, pattern: HandshakePattern, cipher: CipherFunction, hash: HashFunction) {
        self.name = name
        self.pattern = pattern
        self.cipher = cipher
        self.hash = hash
    }

    /// WireGuard's.
    public static let wireGuard: NoiseProtocol = {
        do {
            return try NoiseProtocol("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        } catch {
            preconditionFailure("the table of patterns has IK")
        }
    }()
}
