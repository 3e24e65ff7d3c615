import Inet
import Noise
import TestSupport
import Testing

/// Handshakes between our two sides, true and forged.
@Suite struct HandshakeTests {
    @Test("both sides agree, with and without a pre-shared key", arguments: [false, true], 1...8 as ClosedRange<UInt64>)
    func agreement(hasPresharedKey: Bool, seed: UInt64) throws {
        let pair = Pair(seed: seed, hasPresharedKey: hasPresharedKey)
        let (initiation, initiator) = try pair.initiate()
        let (response, responderKeys) = try pair.respond(initiation)
        let initiatorKeys = try initiator.handshake.finish(
            response: response.span.bytes, staticKey: pair.initiator, presharedKey: pair.presharedKey)
        #expect(transfers(from: initiatorKeys, to: responderKeys.keys) == true, "seed \(seed)")
        #expect(transfers(from: responderKeys.keys, to: initiatorKeys) == true, "seed \(seed)")
        #expect(transfers(from: initiatorKeys, to: initiatorKeys) == false, "seed \(seed)")
    }

    @Test("either side can begin, and no two handshakes of a pair share a key")
    func bothRoles() throws {
        let pair = Pair(seed: 11, hasPresharedKey: true)
        let (first, _) = try pair.initiate()
        let (second, _) = try pair.initiate()
        #expect(Array(first[8..<116]) != Array(second[8..<116]))
        let (_, firstKeys) = try pair.respond(first)
        let (_, secondKeys) = try pair.respond(first)
        #expect(firstKeys.sending != secondKeys.sending)
        let turned = Pair(turning: pair)
        let (initiation, initiator) = try turned.initiate()
        let (response, keys) = try turned.respond(initiation)
        let initiatorKeys = try initiator.handshake.finish(
            response: response.span.bytes, staticKey: turned.initiator, presharedKey: turned.presharedKey)
        #expect(transfers(from: initiatorKeys, to: keys.keys) == true)
    }

    @Test("another pre-shared key fails at the response, and the true one still succeeds")
    func wrongPresharedKey() throws {
        let pair = Pair(seed: 21, hasPresharedKey: true)
        let (initiation, initiator) = try pair.initiate()
        let (response, keys) = try pair.respond(initiation)
        #expect(
            failure { () throws(HandshakeError) in
                try initiator.handshake.finish(response: response.span.bytes, staticKey: pair.initiator, presharedKey: .zero())
            } == .authenticationFailed)
        let initiatorKeys = try initiator.handshake.finish(
            response: response.span.bytes, staticKey: pair.initiator, presharedKey: pair.presharedKey)
        #expect(transfers(from: initiatorKeys, to: keys.keys) == true)
    }

    @Test("an initiation to another responder, or by one who lacks the claimed key, is refused")
    func wrongKeys() throws {
        let pair = Pair(seed: 31, hasPresharedKey: false)
        let stranger = PrivateKey.generate(using: .seeded(99))
        let (initiation, initiator) = try pair.initiate()
        #expect(
            failure { () throws(HandshakeError) in
                try ResponderHandshake.receive(
                    initiation: initiation.span.bytes, staticKey: stranger, staticPublic: stranger.publicKey)
            } == .authenticationFailed)
        #expect(MACKeys(publicKey: stranger.publicKey).isValidMAC1(message: initiation.span.bytes) == false)

        // The stranger claims the initiator's public key, but can only agree by its own.
        var forged = [UInt8](repeating: 0, count: HandshakeMessage.initiationByteCount)
        do {
            var span = forged.mutableSpan
            var bytes = span.mutableBytes
            _ = try InitiatorHandshake.initiate(
                into: &bytes, staticPublic: pair.initiatorPublic, remote: pair.responderPublic,
                precomputedStaticStatic: stranger.staticStatic(with: pair.responderPublic), senderIndex: 1,
                timestamp: TAI64N(WallTime(seconds: 1)), random: .seeded(5))
        }
        #expect(MACKeys(publicKey: pair.responderPublic).isValidMAC1(message: forged.span.bytes) == true)
        #expect(pair.judgeInitiation(forged) == .authenticationFailed)

        let (response, _) = try pair.respond(initiation)
        #expect(
            failure { () throws(HandshakeError) in
                try initiator.handshake.finish(response: response.span.bytes, staticKey: stranger, presharedKey: pair.presharedKey)
            } == .authenticationFailed)
    }

    @Test("an initiation to a point of low order is not written")
    func lowOrderResponder() throws {
        let pair = Pair(seed: 32, hasPresharedKey: false)
        let remote = try PublicKey([UInt8](repeating: 0, count: 32))
        var message = [UInt8](repeating: 0, count: HandshakeMessage.initiationByteCount)
        var span = message.mutableSpan
        var bytes = span.mutableBytes
        #expect(throws: HandshakeError.lowOrderPoint) {
            _ = try pair.initiator.staticStatic(with: remote)
        }
        do {
            _ = try InitiatorHandshake.initiate(
                into: &bytes, staticPublic: pair.initiatorPublic, remote: remote, precomputedStaticStatic: SecretBytes(count: 32),
                senderIndex: 1, timestamp: TAI64N(WallTime(seconds: 1)), random: .seeded(5))
            Issue.record("it was written")
        } catch {
            #expect(error == .lowOrderPoint)
        }
    }

    @Test("every truncation of both messages is refused")
    func truncations() throws {
        let pair = Pair(seed: 41, hasPresharedKey: true)
        let (initiation, initiator) = try pair.initiate()
        let (response, _) = try pair.respond(initiation)
        let responderMACs = MACKeys(publicKey: pair.responderPublic)
        for count in 0..<initiation.count {
            let cut = Array(initiation.prefix(count))
            #expect(responderMACs.isValidMAC1(message: cut.span.bytes) == false)
            #expect(pair.judgeInitiation(cut) == .malformed)
        }
        for count in 0..<response.count {
            let cut = Array(response.prefix(count))
            #expect(MACKeys(publicKey: pair.initiatorPublic).isValidMAC1(message: cut.span.bytes) == false)
            #expect(pair.judge(cut, initiator) == .malformed)
        }
        #expect(pair.judgeInitiation(initiation + [0]) == .malformed)
        #expect(pair.judge(response + [0], initiator) == .malformed)
        #expect(pair.judge(response, initiator) == nil)
    }

    @Test("every bit of an initiation counts: mac1 sees all but mac2, the AEAD all but the sender index and the MACs")
    func flippedInitiation() throws {
        let pair = Pair(seed: 51, hasPresharedKey: false)
        let (initiation, _) = try pair.initiate()
        let macs = MACKeys(publicKey: pair.responderPublic)
        for offset in initiation.indices {
            for bit in 0..<8 {
                let flipped = initiation.flipping(bit: bit, at: offset)
                #expect(macs.isValidMAC1(message: flipped.span.bytes) == (offset >= 132), "byte \(offset), bit \(bit)")
                let isOutsideTheAEAD = (4..<8).contains(offset) || offset >= 116
                #expect((pair.judgeInitiation(flipped) == nil) == isOutsideTheAEAD, "byte \(offset), bit \(bit)")
            }
        }
    }

    @Test("every bit of a response counts, and no forgery kills the handshake")
    func flippedResponse() throws {
        let pair = Pair(seed: 52, hasPresharedKey: true)
        let (initiation, initiator) = try pair.initiate()
        let (response, keys) = try pair.respond(initiation)
        let macs = MACKeys(publicKey: pair.initiatorPublic)
        for offset in response.indices {
            for bit in 0..<8 {
                let flipped = response.flipping(bit: bit, at: offset)
                #expect(macs.isValidMAC1(message: flipped.span.bytes) == (offset >= 76), "byte \(offset), bit \(bit)")
                let isOutsideTheAEAD = (4..<8).contains(offset) || offset >= 60
                let verdict = pair.judge(flipped, initiator)
                #expect((verdict == nil) == isOutsideTheAEAD, "byte \(offset), bit \(bit)")
                if (8..<12).contains(offset) { #expect(verdict == .wrongReceiverIndex) }
            }
        }
        let initiatorKeys = try initiator.handshake.finish(
            response: response.span.bytes, staticKey: pair.initiator, presharedKey: pair.presharedKey)
        #expect(transfers(from: initiatorKeys, to: keys.keys) == true)
    }

    @Test("random bytes of every length are refused", arguments: 1...4 as ClosedRange<UInt64>)
    func garbage(seed: UInt64) throws {
        let pair = Pair(seed: seed, hasPresharedKey: false)
        let (_, initiator) = try pair.initiate()
        let random = RandomSource.seeded(seed &+ 1_000)
        for round in 0..<300 {
            // Half of them have the right length and type.
            let isInitiation = round.isMultiple(of: 2)
            let right = isInitiation ? HandshakeMessage.initiationByteCount : HandshakeMessage.responseByteCount
            var bytes = [UInt8](repeating: 0, count: round % 4 < 2 ? right : Int(random.next(below: 200)))
            for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: random.nextUInt64()) }
            if bytes.count == right { bytes.replaceSubrange(0..<4, with: [isInitiation ? 1 : 2, 0, 0, 0]) }
            #expect(pair.judgeInitiation(bytes) != nil && pair.judge(bytes, initiator) != nil, "seed \(seed), round \(round)")
        }
    }

    @Test("several threads may use one set of MAC keys and run handshakes at once")
    func concurrency() async throws {
        let pair = Pair(seed: 61, hasPresharedKey: true)
        let macs = MACKeys(publicKey: pair.responderPublic)
        let verdicts = try await withThrowingTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    var isRight = true
                    for _ in 0..<20 {
                        let (initiation, initiator) = try pair.initiate()
                        let (response, keys) = try pair.respond(initiation)
                        let initiatorKeys = try initiator.handshake.finish(
                            response: response.span.bytes, staticKey: pair.initiator, presharedKey: pair.presharedKey)
                        isRight = isRight && macs.isValidMAC1(message: initiation.span.bytes)
                        isRight = isRight && transfers(from: initiatorKeys, to: keys.keys)
                    }
                    return isRight
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(verdicts == [Bool](repeating: true, count: 8))
    }
}

/// An initiator and a responder who know each other.
private final class Pair: Sendable {
    let initiator: PrivateKey
    let initiatorPublic: PublicKey
    let responder: PrivateKey
    let responderPublic: PublicKey
    let presharedKey: PresharedKey
    let random: RandomSource

    init(seed: UInt64, hasPresharedKey: Bool) {
        random = .seeded(seed)
        initiator = .generate(using: random)
        responder = .generate(using: random)
        initiatorPublic = initiator.publicKey
        responderPublic = responder.publicKey
        presharedKey = hasPresharedKey ? .generate(using: random) : .zero()
    }

    init(turning other: Pair) {
        random = other.random
        initiator = other.responder.copy()
        responder = other.initiator.copy()
        initiatorPublic = other.responderPublic
        responderPublic = other.initiatorPublic
        presharedKey = other.presharedKey.copy()
    }

    func initiate() throws -> ([UInt8], InitiatorHandshakeBox) {
        var message = [UInt8](repeating: 0, count: HandshakeMessage.initiationByteCount)
        var span = message.mutableSpan
        var bytes = span.mutableBytes
        let handshake = try InitiatorHandshake.initiate(
            into: &bytes, staticPublic: initiatorPublic, remote: responderPublic,
            precomputedStaticStatic: initiator.staticStatic(with: responderPublic), senderIndex: random.nextUInt32(),
            timestamp: TAI64N(WallTime(seconds: 1_700_000_000)), random: random)
        return (message, InitiatorHandshakeBox(handshake))
    }

    func respond(_ initiation: [UInt8]) throws -> ([UInt8], TransportKeysBox) {
        var handshake = try ResponderHandshake.receive(
            initiation: initiation.span.bytes, staticKey: responder, staticPublic: responderPublic)
        _ = try handshake.openTimestamp(precomputedStaticStatic: responder.staticStatic(with: handshake.remoteStatic))
        var response = [UInt8](repeating: 0, count: HandshakeMessage.responseByteCount)
        var span = response.mutableSpan
        var bytes = span.mutableBytes
        let keys = try handshake.respond(
            into: &bytes, responderIndex: random.nextUInt32(), presharedKey: presharedKey, random: random)
        return (response, TransportKeysBox(keys))
    }

    /// What the responder says to an initiation; `nil` is yes.
    func judgeInitiation(_ message: [UInt8]) -> HandshakeError? {
        failure { () throws(HandshakeError) in
            var handshake = try ResponderHandshake.receive(
                initiation: message.span.bytes, staticKey: responder, staticPublic: responderPublic)
            _ = try handshake.openTimestamp(precomputedStaticStatic: responder.staticStatic(with: initiatorPublic))
        }
    }

    /// What the initiator says to a response; `nil` is yes.
    func judge(_ response: [UInt8], _ box: InitiatorHandshakeBox) -> HandshakeError? {
        failure { () throws(HandshakeError) in
            try box.handshake.finish(response: response.span.bytes, staticKey: initiator, presharedKey: presharedKey)
        }
    }
}

/// Tuples hold no values that cannot be copied.
private final class TransportKeysBox: Sendable {
    let keys: TransportKeys
    init(_ keys: consuming TransportKeys) { self.keys = keys }
    var sending: [UInt8] { keys.withKeys { sending, _ in [UInt8](sending) } }
}

private func transfers(from sender: borrowing TransportKeys, to receiver: borrowing TransportKeys) -> Bool {
    let text = [UInt8](utf8: "one packet")
    var buffer = text + [UInt8](repeating: 0, count: 16)
    var span = buffer.mutableSpan
    var bytes = span.mutableBytes
    sender.seal(&bytes, plaintext: 0..<text.count, counter: 7)
    let isOpen = receiver.open(&bytes, ciphertext: 0..<text.count + 16, counter: 7)
    return isOpen && Array(buffer.prefix(text.count)) == text
}
