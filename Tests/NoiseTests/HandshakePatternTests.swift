import Noise
import Testing

@Suite struct HandshakePatternTests {
    @Test("38 patterns by name: 3 one-way, 12 interactive, 23 deferred")
    func names() {
        #expect(HandshakePattern.names.count == 38)
        #expect(HandshakePattern.names.count { $0.count == 1 } == 3)
        #expect(HandshakePattern.names.count { $0.count == 2 } == 12)
    }

    /// What Noise §7.3 asks of every pattern, which a slip of the pen in the table would break.
    @Test("every pattern is valid", arguments: HandshakePattern.names)
    func validity(name: String) throws {
        let pattern = try #require(HandshakePattern(name))
        var sent: [Bool: Set<HandshakePattern.Token>] = [true: [], false: []]
        if pattern.knowsInitiator { sent[true]?.insert(.s) }
        if pattern.knowsResponder { sent[false]?.insert(.s) }
        var agreed: Set<HandshakePattern.Token> = []
        for (index, message) in pattern.messages.enumerated() {
            let isInitiator = index.isMultiple(of: 2)
            // 2. Nobody sends a static or ephemeral key twice.
            for key in message where key == .e || key == .s { #expect(sent[isInitiator]?.insert(key).inserted == true) }
            for token in message {
                // 1. and 3. Nobody agrees on a key that the other has not, nor twice.
                switch token {
                case .ee: #expect(sent[true]?.contains(.e) == true && sent[false]?.contains(.e) == true)
                case .es: #expect(sent[true]?.contains(.e) == true && sent[false]?.contains(.s) == true)
                case .se: #expect(sent[true]?.contains(.s) == true && sent[false]?.contains(.e) == true)
                case .ss: #expect(sent[true]?.contains(.s) == true && sent[false]?.contains(.s) == true)
                case .e, .s, .psk: continue
                }
                #expect(agreed.insert(token).inserted)
            }
            // 4. Behind an agreement with a static key of its own, a side has one with its ephemeral key too.
            if isInitiator {
                if agreed.contains(.se) { #expect(agreed.contains(.ee)) }
                if agreed.contains(.ss) { #expect(agreed.contains(.es)) }
            } else {
                if agreed.contains(.es) { #expect(agreed.contains(.ee) || pattern.isOneWay || index == 0) }
                if agreed.contains(.ss) { #expect(agreed.contains(.se)) }
            }
        }
        // Every message that is not only a deferred agreement begins with `e`, once.
        #expect(pattern.messages[0].first == .e)
        if pattern.messages.count > 1 { #expect(pattern.messages[1].first == .e) }
    }

    @Test("`psk0` comes first, `pskN` at the end of message N, and several are kept apart by a plus sign")
    func modifiers() throws {
        #expect(try #require(HandshakePattern("NNpsk0")).messages == [[.psk, .e], [.e, .ee]])
        #expect(try #require(HandshakePattern("IKpsk2")).messages == [[.e, .es, .s, .ss], [.e, .ee, .se, .psk]])
        let several = try #require(HandshakePattern("XXpsk0+psk3"))
        #expect(several.messages == [[.psk, .e], [.e, .ee, .s, .es], [.s, .se, .psk]])
        #expect(several.presharedKeyCount == 2)
    }

    @Test(
        "what is no pattern is none",
        arguments: [
            "", "Z", "xx", "XXXX", "XXpsk", "XXpsk4", "XXpsk0psk1", "XXpsk0+", "XXpsk0+psk0", "XXpsk+1", "XXpsk-1", "Npsk2", "XXfallback",
            "XX+psk0",
            String(repeating: "X", count: 1000), "XXpsk٣",
        ])
    func unknown(name: String) { #expect(HandshakePattern(name) == nil) }

    @Test(
        "what is no protocol is none",
        arguments: [
            "", "Noise", "Noise_XX_25519_ChaChaPoly", "Noise_XX_448_ChaChaPoly_BLAKE2s", "Noise_XX_25519_ChaChaPoly_BLAKE2s_",
            "Noise_XX_25519_AESGCM_SHA3", "noise_XX_25519_AESGCM_SHA256", "Noise_XX_25519+X_AESGCM_SHA256",
        ])
    func unknownProtocol(name: String) { #expect(throws: NoiseError.unknownProtocol) { try NoiseProtocol(name) } }
}
