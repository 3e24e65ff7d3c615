import Inet
import Noise
import WGUserspace

/// Writes vector files. The same seed gives the same bytes on every machine: nothing is read from a clock or the system's generator.
package enum WireGuardGenerator {
    /// 1 to 1,500: handshakes of one file. Each takes at most 44,000 bytes and 250 values, so that every file of them can be
    /// run again (``VectorRunner/maximumFileSize``, ``JSONReader/maximumValues``).
    package static let counts = 1...1_500

    package static let warning = "TEST ONLY: every key in this file derives from a published seed. Never configure any of them."

    /// - Parameters:
    ///   - seed: gives all keys, times and packets.
    ///   - count: of handshakes, within ``counts``; every second one has a pre-shared key.
    package static func document(seed: UInt64, count: Int) throws(Mismatch) -> JSON {
        precondition(counts.contains(count), "a file has \(counts) handshakes")
        let draw = Draw(random: .seeded(seed))
        let primitives = try primitives(draw)
        let windows = try replayWindows(draw)
        var handshakes: [JSON] = []
        for index in 0..<count {
            handshakes.append(try handshake(draw, name: "TEST ONLY seed \(seed) handshake \(index)", hasPSK: index % 2 == 1))
        }
        return .object([
            JSON.Member("generator", .string("kakuremichi vectors generate")),
            JSON.Member("warning", .string(warning)),
            JSON.Member("seed", .string(String(seed))),
            JSON.Member("protocol", .string(NoiseProtocol.wireGuard.name)),
            JSON.Member("identifier", .string(HandshakeState.identifier)),
            JSON.Member("primitives", primitives),
            JSON.Member("replay_window", windows),
            JSON.Member("handshakes", .array(handshakes)),
        ])
    }

    private static func handshake(_ draw: Draw, name: String, hasPSK: Bool) throws(Mismatch) -> JSON {
        let time = WallTime(seconds: 1_600_000_000 + draw.random.next(below: 1 << 28), nanoseconds: draw.nanoseconds())
        let handshake = WireGuardHandshake(
            name: name, presharedKey: hasPSK ? draw.bytes(32) : nil, initiator: party(draw), responder: party(draw), time: time,
            packets: packets(draw),
            cookie: WireGuardHandshake.CookieExchange(
                secret: draw.bytes(32),
                source: SocketEndpoint(
                    IPAddress(v4: 192, 0, 2, draw.bytes(1)[0]), port: UInt16(truncatingIfNeeded: draw.random.nextUInt32())),
                nonce: draw.bytes(24), retryEphemeral: draw.privateKey(), retryIndex: draw.random.nextUInt32(),
                retryLabel: [UInt8](TAI64N(exactly: WallTime(seconds: time.seconds + 5, nanoseconds: time.nanoseconds)))))
        let writer = try WireGuardWriter(handshake)
        return .object(try writer.object() + [JSON.Member("must_reject", .array(try mustReject(draw, writer)))])
    }

    private static func party(_ draw: Draw) -> WireGuardHandshake.Party {
        WireGuardHandshake.Party(staticPrivate: draw.privateKey(), ephemeralPrivate: draw.privateKey(), index: draw.random.nextUInt32())
    }

    private static func packets(_ draw: Draw) -> [WireGuardHandshake.Packet] {
        [
            .init(isFromInitiator: true, note: "keepalive confirming the session", counter: 0, mtu: 0, packet: []),
            .init(isFromInitiator: true, note: "IPv4, padded to 16", counter: 1, mtu: 0, packet: draw.ipv4(byteCount: 41)),
            .init(isFromInitiator: false, note: "IPv4, a multiple of 16", counter: 0, mtu: 0, packet: draw.ipv4(byteCount: 64)),
            .init(isFromInitiator: false, note: "IPv6, padded", counter: 1, mtu: 0, packet: draw.ipv6(byteCount: 61)),
            .init(isFromInitiator: true, note: "padding clamped to the MTU", counter: 2, mtu: 1420, packet: draw.ipv4(byteCount: 1419)),
            .init(isFromInitiator: true, note: "a full MTU", counter: 1 << 40, mtu: 1420, packet: draw.ipv6(byteCount: 1420)),
            .init(
                isFromInitiator: false, note: "the last counter", counter: Constants.rejectAfterMessages - 1, mtu: 1420,
                packet: draw.ipv4(byteCount: 20 + Int(draw.random.next(below: 1400)))),
        ]
    }

    /// Messages that a receiver has to refuse, each for the reason that stands beside it.
    private static func mustReject(_ draw: Draw, _ writer: WireGuardWriter) throws(Mismatch) -> [JSON] {
        let (initiation, response) = (writer.initiation, writer.response)
        let toResponder = MACKeys(publicKey: writer.keys.responder.publicKey)
        let toInitiator = MACKeys(publicKey: writer.keys.initiator.publicKey)
        func flipped(_ message: [UInt8], at offset: Int, _ keys: MACKeys?) -> [UInt8] {
            var message = message
            message[offset] ^= 1
            guard let keys else { return message }
            let count = message.count
            message.withMutableBytes { keys.writeMAC1(into: &$0, byteCount: count) }
            return message
        }
        var lowOrder = initiation
        lowOrder.withMutableBytes {
            $0.zero(8..<40)
            toResponder.writeMAC1(into: &$0, byteCount: initiation.count)
        }
        var stranger = writer.handshake
        stranger.initiator.staticPrivate = draw.privateKey()
        let unknown = try stranger.initiate(
            stranger.keys(), ephemeral: draw.privateKey(), index: stranger.initiator.index, label: stranger.label
        ).message
        let list: [(to: String, why: String, message: [UInt8])] = [
            ("responder", "mac1 is wrong", flipped(initiation, at: 116, nil)),
            ("responder", "a reserved byte is not zero (mac1 valid)", flipped(initiation, at: 1, toResponder)),
            ("responder", "one byte short", Array(initiation.dropLast())),
            ("responder", "one byte long", initiation + [0]),
            ("responder", "encrypted static tampered with (mac1 valid)", flipped(initiation, at: 40, toResponder)),
            ("responder", "encrypted timestamp tampered with (mac1 valid)", flipped(initiation, at: 88, toResponder)),
            ("responder", "sender index is not authenticated by the AEAD, only by mac1", flipped(initiation, at: 4, nil)),
            ("responder", "ephemeral is a low-order point (mac1 valid)", lowOrder),
            ("responder", "authentic, but from an unknown static key", unknown),
            ("initiator", "mac1 is wrong", flipped(response, at: 60, nil)),
            ("initiator", "encrypted empty tampered with (mac1 valid)", flipped(response, at: 44, toInitiator)),
            ("initiator", "receiver index is unknown (mac1 valid)", flipped(response, at: 8, toInitiator)),
        ]
        return list.map {
            .object([JSON.Member("to", .string($0.to)), JSON.Member("why", .string($0.why)), JSON.Member("message", .hex($0.message))])
        }
    }

    private static func primitives(_ draw: Draw) throws(Mismatch) -> JSON {
        func entry(_ fields: KeyValuePairs<String, Int>, note: String? = nil) -> JSON {
            let note = note.map { [JSON.Member("note", .string($0))] } ?? []
            return .object(note + fields.map { JSON.Member($0.key, .hex(draw.bytes($0.value))) })
        }
        let inputs: [String: [JSON]] = [
            "hmac_blake2s": [entry(["key": 0, "data": 0]), entry(["key": 32, "data": 75]), entry(["key": 100, "data": 64])],
            "kdf": [entry(["key": 0, "input": 0], note: "empty"), entry(["key": 32, "input": 32], note: "32/32")],
            "mac_blake2s_128": [entry(["key": 32, "data": 0]), entry(["key": 16, "data": 132])],
            "hchacha20": [entry(["key": 32, "nonce": 16])],
            "xchacha20poly1305": [entry(["key": 32, "nonce": 24, "ad": 16, "plaintext": 16])],
            "tai64n": [0, 1, 1_700_000_000, 4_102_444_800].map { seconds in
                .object([
                    JSON.Member("unix_seconds", .integer(seconds as UInt64)), JSON.Member("nanoseconds", .integer(draw.nanoseconds())),
                ])
            },
        ]
        var members = WireGuardPrimitives.initial()
        for (name, complete) in WireGuardPrimitives.lists {
            var entries: [JSON] = []
            for input in inputs[name] ?? [] { entries.append(try complete(input)) }
            members.append(JSON.Member(name, .array(entries)))
        }
        var rows: [JSON] = []
        for (length, mtu) in [(0, 0), (1, 0), (16, 0), (17, 0), (1408, 1420), (1409, 1420), (1419, 1420), (1420, 1420), (1500, 1420)] {
            rows.append(try WireGuardPrimitives.padding(.array([.integer(length), .integer(mtu), .null])))
        }
        members.append(
            JSON.Member(
                "padding", .object([JSON.Member("columns", WireGuardPrimitives.paddingColumns), JSON.Member("rows", .array(rows))])))
        return .object(members)
    }

    private static func replayWindows(_ draw: Draw) throws(Mismatch) -> JSON {
        var counter: UInt64 = 8192
        let walk = (0..<200).map { _ -> UInt64 in
            counter += draw.random.next(below: 300)
            return counter - draw.random.next(below: 8192)
        }
        let limit = Constants.rejectAfterMessages
        let sequences: [(String, [UInt64])] = [
            ("in order, then every one again", Array(0...7) + Array(0...7)), ("edge of the window", [8228, 100, 99, 101, 100]),
            ("the limit itself is refused", [limit - 1, limit, limit - 2, limit - 1, .max]), ("a random walk", walk),
        ]
        var entries: [JSON] = []
        for (note, counters) in sequences {
            let steps = counters.map { JSON.array([.string(String($0)), .null]) }
            entries.append(
                try WireGuardPrimitives.replayWindow(
                    .object([JSON.Member("note", .string(note)), JSON.Member("sequence", .array(steps))])))
        }
        return .array(entries)
    }

    /// What is drawn from the seed.
    private struct Draw {
        let random: RandomSource

        func bytes(_ count: Int) -> [UInt8] { [UInt8](count: count) { random.fill(&$0) } }

        /// Clamped, like those of `wg genkey`.
        func privateKey() -> [UInt8] {
            var key = bytes(PrivateKey.byteCount)
            key[0] &= 0xF8
            key[31] = key[31] & 0x7F | 0x40
            return key
        }

        func nanoseconds() -> UInt32 { UInt32(truncatingIfNeeded: random.next(below: 1_000_000_000)) }

        /// 10.9.0.2 to 10.9.0.1, with random contents.
        func ipv4(byteCount: Int) -> [UInt8] {
            var packet = bytes(byteCount)
            packet.withMutableBytes {
                $0.copy(([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1] as [UInt8]).span.bytes, at: 0)
                $0.storeBigEndian(UInt16(truncatingIfNeeded: byteCount), at: 2)
                $0.storeBigEndian(InternetChecksum.of($0.bytes.extracting(0..<20)), at: 10)
            }
            return packet
        }

        /// fd09::2 to fd09::1, with random contents.
        func ipv6(byteCount: Int) -> [UInt8] {
            var packet = bytes(byteCount)
            packet.withMutableBytes {
                $0.zero(0..<40)
                $0.store(0x60, at: 0)
                $0.storeBigEndian(UInt16(truncatingIfNeeded: byteCount - 40), at: 4)
                $0.storeBigEndian(0x1140 as UInt16, at: 6)
                IPAddress(v6High: 0xFD09_0000_0000_0000, low: 2).write(into: &$0, at: 8)
                IPAddress(v6High: 0xFD09_0000_0000_0000, low: 1).write(into: &$0, at: 24)
            }
            return packet
        }
    }
}
