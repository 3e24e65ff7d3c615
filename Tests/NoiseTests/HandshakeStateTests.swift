import Inet
import Noise
import Testing

@Suite struct HandshakeStateTests {
    static let protocols: [String] = HandshakePattern.names.flatMap { name -> [String] in
        let count = HandshakePattern(name)?.messages.count ?? 0
        let modifiers = ["", "psk0", "psk\(count)", "psk0+psk1"]
        return modifiers.enumerated().map { index, modifier in
            let hash = HashFunction.allCases[(index + count) % 4].rawValue
            return "Noise_\(name)\(modifier)_25519_\(index.isMultiple(of: 2) ? "ChaChaPoly" : "AESGCM")_\(hash)"
        }
    }

    @Test("every pattern runs to its end, both sides agree, and transport messages pass", arguments: protocols)
    func completes(name: String) throws {
        var pair = try NoisePair(name)
        let count = try pair.run()
        #expect(count == pair.pattern.messages.count)
        #expect(pair.initiatorHash == pair.responderHash)
        #expect(pair.initiatorHash.count == (name.hasSuffix("512") || name.hasSuffix("2b") ? 64 : 32))
        try pair.checkTransport()
    }

    @Test(
        "a bit that is changed in any message is found out, at the latest by the next sealed field",
        arguments: ["XX", "IKpsk2", "NNpsk0", "X", "KK1"])
    func tampering(pattern: String) throws {
        let name = "Noise_\(pattern)_25519_ChaChaPoly_BLAKE2s"
        let lengths = try NoisePair(name).recorded()
        for (index, length) in lengths.enumerated() {
            for offset in stride(from: 0, to: length, by: 5) {
                var pair = try NoisePair(name)
                let failure = pair.failure(flipping: offset, ofMessage: index)
                // Bits of a key that X25519 passes over change the hash all the same.
                #expect(failure != nil, "\(name), message \(index), byte \(offset)")
                let isDead = pair.isReaderDead
                #expect(isDead)
            }
        }
    }

    @Test("a message cut at any length is refused and kills the handshake")
    func truncation() throws {
        let name = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
        let lengths = try NoisePair(name).recorded()
        for (index, length) in lengths.enumerated() {
            for cut in 0..<length {
                var pair = try NoisePair(name)
                let failure = pair.failure(cutting: index, to: cut)
                #expect(failure == .messageTooShort || failure == .authenticationFailed || failure == .lowOrderPoint, "\(cut)")
            }
        }
    }

    @Test("wrong keys are refused before anything happens")
    func keys() throws {
        let xx = try NoiseProtocol("Noise_XX_25519_ChaChaPoly_SHA256")
        let ik = try NoiseProtocol("Noise_IKpsk2_25519_ChaChaPoly_SHA256")
        let random = RandomSource.seeded(1)
        #expect(throws: NoiseError.missingKey) { _ = try HandshakeState(xx, role: .initiator, random: random) }
        let psk = [UInt8](repeating: 1, count: 32)
        #expect(throws: NoiseError.missingKey) {
            _ = try HandshakeState(
                ik, role: .initiator, staticKey: .generate(using: random), presharedKeys: psk.span.bytes, random: random)
        }
        #expect(throws: NoiseError.wrongPresharedKeys) {
            _ = try HandshakeState(ik, role: .responder, staticKey: .generate(using: random), random: random)
        }
        #expect(throws: NoiseError.wrongPresharedKeys) {
            _ = try HandshakeState(
                ik, role: .responder, staticKey: .generate(using: random), presharedKeys: psk.span.bytes.extracting(0..<31), random: random)
        }
    }

    @Test("out of turn, without room and too long: nothing happens")
    func misuse() throws {
        var pair = try NoisePair("Noise_NN_25519_ChaChaPoly_SHA256")
        var buffer = [UInt8](repeating: 0, count: 70_000)
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        let first = failure { () throws(NoiseError) in _ = try pair.responder.writeMessage(into: &bytes) }
        #expect(first == .outOfTurn)
        let second = failure { () throws(NoiseError) in _ = try pair.initiator.readMessage(&bytes) }
        #expect(second == .outOfTurn)
        let long = [UInt8](repeating: 0, count: 65_535 - 31)
        let third = failure { () throws(NoiseError) in _ = try pair.initiator.writeMessage(payload: long.span.bytes, into: &bytes) }
        #expect(third == .messageTooLong)
        let fourth = failure { () throws(NoiseError) in _ = try pair.initiator.writeMessage(into: &bytes, at: 70_000 - 31) }
        #expect(fourth == .messageTooLong)
        let range = try pair.initiator.writeMessage(payload: long.span.bytes.extracting(0..<65_535 - 32), into: &bytes)
        #expect(range == 0..<65_535)
        let fifth = failure { () throws(NoiseError) in _ = try pair.responder.readMessage(&bytes) }
        #expect(fifth == .messageTooLong)
    }

    @Test("an ephemeral key of low order is refused")
    func lowOrder() throws {
        var pair = try NoisePair("Noise_NN_25519_ChaChaPoly_SHA256")
        var zero = [UInt8](repeating: 0, count: 32)
        try read(&pair.responder, &zero)
        var buffer = [UInt8](repeating: 0, count: 100)
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        let error = failure { () throws(NoiseError) in _ = try pair.responder.writeMessage(into: &bytes) }
        #expect(error == .lowOrderPoint)
        let isDead = pair.responder.isDead
        #expect(isDead)
    }

    @Test("a rekeyed side understands a rekeyed side only; the last nonce is not used")
    func cipherStates() throws {
        var pair = try NoisePair("Noise_NN_25519_AESGCM_SHA512")
        _ = try pair.run()
        var states = try pair.split()
        var text = [UInt8](repeating: 7, count: 5 + 16)
        func seal(_ state: inout CipherState) throws(NoiseError) {
            var span = text.mutableSpan
            var bytes = span.mutableBytes
            try state.encrypt(&bytes, plaintext: 0..<5)
        }
        func open(_ state: inout CipherState) throws(NoiseError) {
            var span = text.mutableSpan
            var bytes = span.mutableBytes
            try state.decrypt(&bytes, ciphertext: 0..<21)
        }
        states.mine.initiatorToResponder.rekey()
        try seal(&states.mine.initiatorToResponder)
        let sealed = text
        let before = failure { () throws(NoiseError) in try open(&states.theirs.initiatorToResponder) }
        #expect(before == .authenticationFailed)
        text = sealed
        states.theirs.initiatorToResponder.rekey()
        try open(&states.theirs.initiatorToResponder)
        #expect(Array(text.prefix(5)) == [7, 7, 7, 7, 7])
        states.mine.initiatorToResponder.setNonce(.max)
        let last = failure { () throws(NoiseError) in try seal(&states.mine.initiatorToResponder) }
        #expect(last == .nonceExhausted)
    }
}

/// Two sides of one protocol with keys of a seed.
struct NoisePair: ~Copyable {
    struct Both: ~Copyable {
        var mine: CipherStates
        var theirs: CipherStates
    }

    let pattern: HandshakePattern
    var initiator: HandshakeState
    var responder: HandshakeState

    init(_ name: String) throws {
        let noise = try NoiseProtocol(name)
        let random = RandomSource.seeded(UInt64(name.utf8.count))
        let mine = PrivateKey.generate(using: random)
        let theirs = PrivateKey.generate(using: random)
        let psks = (0..<32 * noise.pattern.presharedKeyCount).map { UInt8(truncatingIfNeeded: $0) }
        let prologue = [UInt8]("prologue".utf8)
        let first = try HandshakeState(
            noise, role: .initiator, prologue: prologue.span.bytes, staticKey: mine.copy(), remoteStatic: theirs.publicKey,
            presharedKeys: psks.span.bytes, random: random)
        let second = try HandshakeState(
            noise, role: .responder, prologue: prologue.span.bytes, staticKey: theirs.copy(), remoteStatic: mine.publicKey,
            presharedKeys: psks.span.bytes, random: random)
        pattern = noise.pattern
        initiator = first
        responder = second
    }

    var initiatorHash: [UInt8] { initiator.withHandshakeHash { [UInt8]($0) } }
    var responderHash: [UInt8] { responder.withHandshakeHash { [UInt8]($0) } }
    var isReaderDead: Bool { initiator.isDead || responder.isDead }

    /// Passes messages with payloads until both are through.
    ///
    /// - Parameter change: sees each message before it is read.
    mutating func run(_ change: (Int, inout [UInt8]) -> Void = { _, _ in }) throws(NoiseError) -> Int {
        var count = 0
        while !initiator.isFinished {
            let payload = [UInt8](repeating: UInt8(count), count: 3 * count + 1)
            var message: [UInt8]
            if initiator.isOurTurn { message = try write(&initiator, payload) } else { message = try write(&responder, payload) }
            change(count, &message)
            let got: [UInt8]
            if count.isMultiple(of: 2) { got = try read(&responder, &message) } else { got = try read(&initiator, &message) }
            #expect(got == payload)
            count += 1
        }
        return count
    }

    /// The lengths of the messages.
    consuming func recorded() throws -> [Int] {
        var lengths: [Int] = []
        _ = try run { lengths.append($1.count) }
        return lengths
    }

    mutating func failure(flipping offset: Int, ofMessage index: Int) -> NoiseError? {
        do throws(NoiseError) {
            _ = try run { if $0 == index { $1[offset] ^= 0x40 } }
            return nil
        } catch { return error }
    }

    mutating func failure(cutting index: Int, to length: Int) -> NoiseError? {
        do throws(NoiseError) {
            _ = try run { if $0 == index { $1.removeLast($1.count - length) } }
            return nil
        } catch { return error }
    }

    consuming func split() throws -> Both { Both(mine: try initiator.split(), theirs: try responder.split()) }

    consuming func checkTransport() throws {
        var both = try split()
        for number in UInt8(0)..<3 {
            var text = [number, 1, 2] + [UInt8](repeating: 0, count: 16)
            var span = text.mutableSpan
            var bytes = span.mutableBytes
            try both.mine.initiatorToResponder.encrypt(&bytes, plaintext: 0..<3, additionalData: unsafe [number].span.bytes)
            try both.theirs.initiatorToResponder.decrypt(&bytes, ciphertext: 0..<19, additionalData: unsafe [number].span.bytes)
            try both.theirs.responderToInitiator.encrypt(&bytes, plaintext: 0..<3)
            try both.mine.responderToInitiator.decrypt(&bytes, ciphertext: 0..<19)
            #expect(Array(text.prefix(3)) == [number, 1, 2])
        }
    }
}

private func write(_ state: inout HandshakeState, _ payload: [UInt8]) throws(NoiseError) -> [UInt8] {
    var buffer = [UInt8](repeating: 0xEE, count: payload.count + state.overhead)
    var span = buffer.mutableSpan
    var bytes = span.mutableBytes
    let range = try state.writeMessage(payload: payload.span.bytes, into: &bytes)
    #expect(range == 0..<payload.count + (range.count - payload.count))
    return Array(buffer[range])
}

@discardableResult
private func read(_ state: inout HandshakeState, _ message: inout [UInt8]) throws(NoiseError) -> [UInt8] {
    var span = message.mutableSpan
    var bytes = span.mutableBytes
    let payload = try state.readMessage(&bytes)
    return Array(message[payload])
}

private func failure(_ body: () throws(NoiseError) -> Void) -> NoiseError? {
    do throws(NoiseError) {
        try body()
        return nil
    } catch { return error }
}
