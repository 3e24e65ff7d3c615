import Inet
import Noise
import TestSupport
import Testing

/// The `handshakes` of `vectors/wireguard.json`: keys, every step of both messages, and the messages themselves.
@Suite struct HandshakeVectorTests {
    @Test("every member of every handshake is known", arguments: try HandshakeVector.all())
    func members(vector: HandshakeVector) throws {
        let json = vector.json
        #expect(
            try json.keys == [
                "name", "psk", "initiator", "responder", "timestamp", "initiation", "response", "trace_initiation", "trace_response",
                "transport_keys", "packets", "cookie", "must_reject",
            ])
        for side in ["initiator", "responder"] {
            #expect(
                try json[side].keys == [
                    "static_private", "static_public", "static_private_base64", "static_public_base64", "ephemeral_private",
                    "ephemeral_public", "index", "mac1_key_for_messages_to_it", "cookie_key",
                ])
        }
        #expect(try json["timestamp"].keys == ["unix_seconds", "nanoseconds", "tai64n"])
        #expect(try json["transport_keys"].keys == ["initiator_to_responder", "responder_to_initiator"])
    }

    @Test("keys, their base64 and what derives from them", arguments: try HandshakeVector.all())
    func keys(vector: HandshakeVector) throws {
        for side in [vector.json["initiator"], vector.json["responder"]] {
            let key = try PrivateKey.make(side["static_private"].hex)
            #expect(try [UInt8](key.publicKey) == side["static_public"].hex)
            #expect(try key.base64ForFile() == side["static_private_base64"].string)
            #expect(try key.publicKey.base64 == side["static_public_base64"].string)
            guard let fromBase64 = PrivateKey(base64: try side["static_private_base64"].string) else { throw NotAKey() }
            #expect(fromBase64.isEqual(to: key) == true)
            #expect(try PublicKey(base64: side["static_public_base64"].string) == key.publicKey)
            let ephemeral = PrivateKey.generate(using: .giving(try side["ephemeral_private"].hex))
            #expect(ephemeral.isEqual(to: try PrivateKey.make(side["ephemeral_private"].hex)) == true)
            #expect(try [UInt8](ephemeral.publicKey) == side["ephemeral_public"].hex)
            let macKeys = MACKeys(publicKey: key.publicKey)
            #expect(try [UInt8](macKeys.mac1Key) == side["mac1_key_for_messages_to_it"].hex)
            #expect(try [UInt8](macKeys.cookieKey) == side["cookie_key"].hex)
        }
    }

    @Test("the timestamp", arguments: try HandshakeVector.all())
    func timestamp(vector: HandshakeVector) throws {
        let json = vector.json["timestamp"]
        let time = WallTime(seconds: try json["unix_seconds"].integer, nanoseconds: try json["nanoseconds"].uint32)
        #expect(try [UInt8](TAI64N(exactly: time)) == json["tai64n"].hex)
        #expect(try TAI64N(json["tai64n"].hex).wallTime == time)
    }

    @Test("chaining key, hash and cipher key after every step of the initiation", arguments: try HandshakeVector.all())
    func traceOfInitiation(vector: HandshakeVector) throws {
        _ = try vector.afterInitiation()
    }

    @Test("chaining key, hash and cipher key after every step of the response", arguments: try HandshakeVector.all())
    func traceOfResponse(vector: HandshakeVector) throws {
        let trace = try vector.json["trace_response"].array
        #expect(
            try trace.map { try $0["step"].string } == [
                "e: MixHash, MixKey", "ee: MixKey", "se: MixKey", "psk: MixKeyAndHash", "empty: EncryptAndHash", "split",
            ])
        var state = try vector.afterInitiation()
        let ephemeral = try vector.ephemeral("responder")
        // e
        state.mixHash(ephemeral.publicKey)
        state.mixKey(ephemeral.publicKey)
        try expect(state, trace[0])
        // ee, se
        for (step, remote) in [(trace[1], "ephemeral_public"), (trace[2], "static_public")] {
            let secret = try ephemeral.staticStatic(with: PublicKey(vector.json["initiator"][remote].hex))
            #expect(try [UInt8](secret) == step["shared_secret"].hex)
            state.mixKey(secret)
            try expect(state, step)
        }
        // psk
        state.mixKeyAndHash(SecretBytes(try vector.presharedKeyBytes()))
        try expect(state, trace[3])
        let tau = try trace[3]["tau"].hex
        try #expect(vector.tau() == tau)
        // empty
        try expectEncryption(&state, trace[4])
        // split
        try expect(state, trace[5])
        let keys = TransportKeys(state.split(), isInitiator: true)
        #expect(try keys.withKeys { sending, _ in [UInt8](sending) } == trace[5]["initiator_to_responder"].hex)
        #expect(try keys.withKeys { _, receiving in [UInt8](receiving) } == trace[5]["responder_to_initiator"].hex)
        #expect(trace[5]["initiator_to_responder"] == vector.json["transport_keys"]["initiator_to_responder"])
        #expect(trace[5]["responder_to_initiator"] == vector.json["transport_keys"]["responder_to_initiator"])
    }

    @Test("both sides write the messages byte for byte and end with the same keys", arguments: try HandshakeVector.all())
    func messages(vector: HandshakeVector) throws {
        let keys = try vector.run()
        let expected = vector.json["transport_keys"]
        #expect(try keys.initiator.withKeys { sending, _ in [UInt8](sending) } == expected["initiator_to_responder"].hex)
        #expect(try keys.initiator.withKeys { _, receiving in [UInt8](receiving) } == expected["responder_to_initiator"].hex)
        #expect(try keys.responder.withKeys { sending, _ in [UInt8](sending) } == expected["responder_to_initiator"].hex)
        #expect(try keys.responder.withKeys { _, receiving in [UInt8](receiving) } == expected["initiator_to_responder"].hex)
    }

    @Test("data packets seal byte for byte and open on the other side only", arguments: try HandshakeVector.all())
    func packets(vector: HandshakeVector) throws {
        let keys = try vector.run()
        for packet in try vector.json["packets"].array {
            #expect(
                try packet.keys == ["sender", "note", "counter", "receiver_index", "key", "mtu", "packet", "plaintext", "datagram"])
            let fromInitiator = try packet["sender"].string == "initiator"
            let receiver = vector.json[fromInitiator ? "responder" : "initiator"]
            #expect(try packet["receiver_index"].uint32 == receiver["index"].uint32)
            let counter = try packet["counter"].integer
            let datagram = try packet["datagram"].hex
            let text = try packet["plaintext"].hex
            #expect(try text.starts(with: packet["packet"].hex))
            #expect(datagram.span.bytes.littleEndian32(at: 0) == 4)
            #expect(try datagram.span.bytes.littleEndian32(at: 4) == packet["receiver_index"].uint32)
            #expect(datagram.span.bytes.littleEndian64(at: 8) == counter)
            func check(_ sender: borrowing TransportKeys, _ receiver: borrowing TransportKeys) throws {
                #expect(try sender.withKeys { sending, _ in [UInt8](sending) } == packet["key"].hex)
                var buffer = Array(datagram.prefix(16)) + text + [UInt8](repeating: 0, count: 16)
                do {
                    var span = buffer.mutableSpan
                    var bytes = span.mutableBytes
                    sender.seal(&bytes, plaintext: 16..<16 + text.count, counter: counter)
                }
                #expect(buffer == datagram)
                var again = datagram
                #expect(open(&again, sender, counter) == false)
                again = datagram
                #expect(open(&again, receiver, counter &+ 1) == false)
                again = datagram
                #expect(open(&again, receiver, counter) == true)
                #expect(Array(again[16..<16 + text.count]) == text)
            }
            if fromInitiator { try check(keys.initiator, keys.responder) } else { try check(keys.responder, keys.initiator) }
        }
    }

    @Test("cookies, their replies, and the initiation that uses one", arguments: try HandshakeVector.all())
    func cookies(vector: HandshakeVector) throws {
        let json = vector.json["cookie"]
        #expect(
            try json.keys == [
                "secret", "source_ip", "source_port", "cookie_mac_input", "cookie", "nonce", "reply_to_initiation", "retry",
                "reply_to_response",
            ])
        let source = try json["source_ip"].string.split(separator: ".").compactMap { UInt8($0) }
        let port = try json["source_port"].uint32
        let input = source + [UInt8(port >> 8), UInt8(port & 0xFF)]
        #expect(try input == json["cookie_mac_input"].hex)
        let cookie = Cookie(source: input.span.bytes, secret: SecretBytes(try json["secret"].hex))
        #expect(try [UInt8](cookie.value) == json["cookie"].hex)
        try expectReply(cookie, json["reply_to_initiation"], to: vector.json["initiation"], from: "responder", to: "initiator", vector)
        // The file does not name the responder's address: it is this one, under the same secret.
        let responder: [UInt8] = [192, 0, 2, 20, 0xCA, 0x6C]
        let other = Cookie(source: responder.span.bytes, secret: SecretBytes(try json["secret"].hex))
        try expectReply(other, json["reply_to_response"], to: vector.json["response"], from: "initiator", to: "responder", vector)

        let retry = json["retry"]
        #expect(try retry.keys == ["ephemeral_private", "index", "tai64n", "initiation_with_mac2"])
        var (message, _) = try vector.initiate(
            ephemeral: retry["ephemeral_private"].hex, index: retry["index"].uint32, tai64n: retry["tai64n"].hex)
        #expect(cookie.isValidMAC2(message: message.span.bytes) == false)
        do {
            let count = message.count
            var span = message.mutableSpan
            var bytes = span.mutableBytes
            cookie.writeMAC2(into: &bytes, byteCount: count)
        }
        #expect(try message == retry["initiation_with_mac2"].hex)
        #expect(cookie.isValidMAC2(message: message.span.bytes) == true)
        #expect(cookie.isValidMAC2(message: message.flipping(bit: 3, at: 140).span.bytes) == false)
        let elsewhere = Cookie(source: [192, 0, 2, 10, 0xCA, 0x6E].span.bytes, secret: SecretBytes(try json["secret"].hex))
        #expect(elsewhere.isValidMAC2(message: message.span.bytes) == false)
    }

    @Test("messages that must be rejected are", arguments: try HandshakeVector.all())
    func mustReject(vector: HandshakeVector) throws {
        for json in try vector.json["must_reject"].array {
            #expect(try json.keys == ["to", "why", "message"])
            let (message, why) = (try json["message"].hex, try json["why"].string)
            let receiver = try json["to"].string
            let hasValidMAC1 = MACKeys(publicKey: try vector.publicKey(receiver)).isValidMAC1(message: message.span.bytes)
            let verdict = receiver == "responder" ? try vector.judgeInitiation(message) : try vector.judgeResponse(message)
            switch why {
            case "mac1 is wrong", "sender index is not authenticated by the AEAD, only by mac1":
                #expect(!hasValidMAC1 && verdict == nil)
            case "a reserved byte is not zero (mac1 valid)":
                #expect(hasValidMAC1 && verdict == .malformed)
            case "one byte short", "one byte long":
                #expect(verdict == .malformed)
            case "encrypted static tampered with (mac1 valid)", "encrypted timestamp tampered with (mac1 valid)",
                "encrypted empty tampered with (mac1 valid)":
                #expect(hasValidMAC1 && verdict == .authenticationFailed)
            case "ephemeral is a low-order point (mac1 valid)":
                #expect(hasValidMAC1 && verdict == .lowOrderPoint)
            case "receiver index is unknown (mac1 valid)":
                #expect(hasValidMAC1 && verdict == .wrongReceiverIndex)
            case "authentic, but from an unknown static key":
                // Whether it is known is for the owner of the peers to say, by this key.
                let handshake = try vector.receive(message)
                #expect(hasValidMAC1 == true)
                #expect(handshake.remoteStatic != (try vector.publicKey("initiator")))
            default:
                Issue.record("an unknown reason: \(why)")
            }
        }
    }

    private func open(_ datagram: inout [UInt8], _ keys: borrowing TransportKeys, _ counter: UInt64) -> Bool {
        let count = datagram.count
        var span = datagram.mutableSpan
        var bytes = span.mutableBytes
        return keys.open(&bytes, ciphertext: 16..<count, counter: counter)
    }

    private func expectReply(
        _ cookie: Cookie, _ reply: JSONValue, to message: JSONValue, from sender: String, to receiver: String, _ vector: HandshakeVector
    ) throws {
        let message = try message.hex
        let field = MAC(message.span.bytes, at: message.count - MACKeys.trailerByteCount)
        let mac1 = try #require(field)
        let keys = MACKeys(publicKey: try vector.publicKey(sender))
        var written = [UInt8](repeating: 0, count: HandshakeMessage.cookieReplyByteCount)
        do {
            var span = written.mutableSpan
            var bytes = span.mutableBytes
            cookie.writeReply(
                into: &bytes, receiverIndex: try vector.json[receiver]["index"].uint32, mac1: mac1, keys: keys,
                random: .giving(try vector.json["cookie"]["nonce"].hex))
        }
        #expect(try written == reply.hex)
        let opened = Cookie(reply: written.span.bytes, mac1: mac1, keys: keys)
        #expect(opened.map { [UInt8]($0.value) } == [UInt8](cookie.value))
        // The receiver index, bytes 4 to 7, is not authenticated.
        for offset in written.indices where !(4..<8).contains(offset) {
            #expect(Cookie(reply: written.flipping(bit: offset % 8, at: offset).span.bytes, mac1: mac1, keys: keys) == nil)
        }
        for count in 0..<written.count {
            #expect(Cookie(reply: written.span.bytes.extracting(0..<count), mac1: mac1, keys: keys) == nil)
        }
        #expect(Cookie(reply: (written + [0]).span.bytes, mac1: mac1, keys: keys) == nil)
        #expect(Cookie(reply: written.span.bytes, mac1: mac1, keys: MACKeys(publicKey: try vector.publicKey(receiver))) == nil)
    }
}
