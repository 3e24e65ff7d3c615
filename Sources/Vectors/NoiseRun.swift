import Inet
import Noise

/// Runs a case: both parties are built and talk to each other. Every message that one writes has to be the vector's, and the other
/// has to read the payload out of it.
extension NoiseCase {
    package func run() -> Outcome {
        let noise: NoiseProtocol
        do throws(NoiseError) { noise = try NoiseProtocol(protocolName) } catch {
            return .skipped(Self.skipReason(protocolName) ?? "protocol not supported")
        }
        do throws(Mismatch) {
            try converse(noise)
            return .passed
        } catch {
            return .failed(error)
        }
    }

    private func converse(_ noise: NoiseProtocol) throws(Mismatch) {
        var near = try state(noise, .initiator)
        var far = try state(noise, .responder)
        var index = 0
        while index < messages.count, !near.isFinished {
            if index.isMultiple(of: 2) {
                try exchange(index, from: &near, to: &far)
            } else {
                try exchange(index, from: &far, to: &near)
            }
            index += 1
        }
        // It was refused, as it had to be.
        if near.isDead || far.isDead { return }
        guard near.isFinished else { throw Mismatch("messages", "they end before the handshake does") }
        if let handshakeHash {
            for hash in [near.withHandshakeHash { [UInt8]($0) }, far.withHandshakeHash { [UInt8]($0) }] {
                if let mismatch = Mismatch("handshake_hash", expected: handshakeHash, actual: hash) { throw mismatch }
            }
        }
        guard index < messages.count else {
            guard !mustFail else { throw Mismatch("message \(index - 1)", "accepted, although it must fail") }
            return
        }
        try transport(from: index, near, far, isOneWay: noise.pattern.isOneWay)
    }

    // MARK: - Handshake

    private func exchange(_ index: Int, from writer: inout HandshakeState, to reader: inout HandshakeState) throws(Mismatch) {
        let (message, step) = (messages[index], "message \(index) (handshake)")
        let mustRefuse = mustFail && index == messages.count - 1
        var written = [UInt8](repeating: 0, count: message.payload.count + writer.overhead)
        do throws(NoiseError) {
            var span = written.mutableSpan
            var bytes = span.mutableBytes
            _ = try writer.writeMessage(payload: message.payload.span.bytes, into: &bytes)
        } catch {
            throw Mismatch(step, "the writer refuses: \(error)")
        }
        if !mustRefuse, let mismatch = Mismatch(step, expected: message.ciphertext, actual: written) { throw mismatch }
        var received = message.ciphertext
        do throws(NoiseError) {
            var span = received.mutableSpan
            var bytes = span.mutableBytes
            let payload = try reader.readMessage(&bytes)
            received = Array(received[payload])
        } catch {
            if mustRefuse { return }
            throw Mismatch(step, "the reader refuses it: \(error)")
        }
        if mustRefuse { throw Mismatch(step, "accepted, although it must fail") }
        if let mismatch = Mismatch("\(step), payload", expected: message.payload, actual: received) { throw mismatch }
    }

    private func state(_ noise: NoiseProtocol, _ role: HandshakeState.Role) throws(Mismatch) -> HandshakeState {
        let (own, other) = role == .initiator ? (initiator, responder) : (responder, initiator)
        let prefix = role == .initiator ? "init" : "resp"
        let staticKey: PrivateKey?
        if let bytes = own.staticKey { staticKey = try Self.privateKey(bytes, "\(prefix)_static") } else { staticKey = nil }
        var remote = own.remoteStatic.flatMap { PublicKey($0.span.bytes) }
        if remote == nil, let bytes = other.staticKey { remote = try Self.privateKey(bytes, "static").publicKey }
        var presharedKeys = own.presharedKeys
        // A file may name one key for all places of the pattern.
        let count = noise.pattern.presharedKeyCount
        if presharedKeys.count == 1, count > 1 { presharedKeys = Array(repeating: presharedKeys[0], count: count) }
        let joined = Array(presharedKeys.joined())
        do throws(NoiseError) {
            return try HandshakeState(
                noise, role: role, prologue: own.prologue.span.bytes, staticKey: staticKey, remoteStatic: remote,
                presharedKeys: joined.span.bytes, random: .fixed(own.ephemeral ?? []))
        } catch {
            throw Mismatch("\(prefix) keys", "\(error)")
        }
    }

    private static func privateKey(_ bytes: [UInt8], _ name: String) throws(Mismatch) -> PrivateKey {
        guard let key = PrivateKey(bytes.span.bytes) else { throw Mismatch(name, "a key has 32 bytes") }
        return key
    }

    // MARK: - Transport

    private func transport(
        from first: Int, _ near: consuming HandshakeState, _ far: consuming HandshakeState, isOneWay: Bool
    ) throws(Mismatch) {
        var sides: (CipherStatesBox, CipherStatesBox)
        do throws(NoiseError) { sides = (CipherStatesBox(try near.split()), CipherStatesBox(try far.split())) } catch {
            throw Mismatch("split", "\(error)")
        }
        for index in first..<messages.count {
            let isFromInitiator =
                switch transportOrder {
                case .inTurns: isOneWay || index.isMultiple(of: 2)
                case .initiatorFirst: (index - first).isMultiple(of: 2)
                }
            let (message, step) = (messages[index], "message \(index) (transport)")
            let mustRefuse = mustFail && index == messages.count - 1
            let writer = isFromInitiator ? sides.0 : sides.1
            let reader = isFromInitiator ? sides.1 : sides.0
            var written = message.payload + [UInt8](repeating: 0, count: CipherFunction.tagByteCount)
            do throws(NoiseError) { try writer.seal(&written, isFromInitiator: isFromInitiator) } catch {
                throw Mismatch(step, "the writer refuses: \(error)")
            }
            if !mustRefuse, let mismatch = Mismatch(step, expected: message.ciphertext, actual: written) { throw mismatch }
            var received = message.ciphertext
            do throws(NoiseError) { try reader.open(&received, isFromInitiator: isFromInitiator) } catch {
                if mustRefuse { return }
                throw Mismatch(step, "the reader refuses it: \(error)")
            }
            if mustRefuse { throw Mismatch(step, "accepted, although it must fail") }
            if let mismatch = Mismatch("\(step), payload", expected: message.payload, actual: received) { throw mismatch }
        }
    }
}

/// Tuples hold no values that cannot be copied.
private final class CipherStatesBox {
    private var states: CipherStates

    init(_ states: consuming CipherStates) { self.states = states }

    func seal(_ buffer: inout [UInt8], isFromInitiator: Bool) throws(NoiseError) {
        let plaintext = 0..<buffer.count - CipherFunction.tagByteCount
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        if isFromInitiator {
            try states.initiatorToResponder.encrypt(&bytes, plaintext: plaintext)
        } else {
            try states.responderToInitiator.encrypt(&bytes, plaintext: plaintext)
        }
    }

    func open(_ buffer: inout [UInt8], isFromInitiator: Bool) throws(NoiseError) {
        let ciphertext = 0..<buffer.count
        do {
            var span = buffer.mutableSpan
            var bytes = span.mutableBytes
            if isFromInitiator {
                try states.initiatorToResponder.decrypt(&bytes, ciphertext: ciphertext)
            } else {
                try states.responderToInitiator.decrypt(&bytes, ciphertext: ciphertext)
            }
        }
        buffer.removeLast(CipherFunction.tagByteCount)
    }
}
