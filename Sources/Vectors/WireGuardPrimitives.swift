import Inet
import Noise
import WGUserspace

/// The `primitives` of a WireGuard vector file: each kind computes the outputs of an entry from its inputs.
enum WireGuardPrimitives {
    /// Every kind that is a list of entries.
    static let lists: [(name: String, complete: @Sendable (JSON) throws(Mismatch) -> JSON)] = [
        ("hmac_blake2s", hmac), ("kdf", kdf), ("mac_blake2s_128", mac), ("hchacha20", hChaCha20), ("xchacha20poly1305", xChaChaPoly),
        ("tai64n", tai64n),
    ]

    /// Where every handshake starts.
    static func initial() -> [JSON.Member] {
        let state = SymmetricState.wireGuard()
        return [
            JSON.Member("initial_chaining_key", .hex(state.withChainingKey { [UInt8]($0) })),
            JSON.Member("initial_hash", .hex([UInt8](state.hash))),
        ]
    }

    /// T1 to T`count`.
    static func kdf(_ count: Int, key: [UInt8], input: [UInt8]) -> [UInt8] {
        var derivation = KeyDerivation()
        var output = SecretBytes(count: 32 * count)
        derivation.extract(key: key.span.bytes, input: input.span.bytes)
        derivation.expand(count, into: &output)
        return [UInt8](output)
    }

    private static func hmac(_ entry: JSON) throws(Mismatch) -> JSON {
        let (key, data) = (try entry.bytes("key"), try entry.bytes("data"))
        var derivation = KeyDerivation()
        var output = [UInt8](repeating: 0, count: 32)
        var span = output.mutableSpan
        var bytes = span.mutableBytes
        derivation.hmac(key: key.span.bytes, data: data.span.bytes, into: &bytes, at: 0)
        return .object([JSON.Member("key", .hex(key)), JSON.Member("data", .hex(data)), JSON.Member("hmac", .hex(output))])
    }

    private static func kdf(_ entry: JSON) throws(Mismatch) -> JSON {
        let (key, input) = (try entry.bytes("key"), try entry.bytes("input"))
        let all = kdf(3, key: key, input: input)
        for count in 1...2 where kdf(count, key: key, input: input) != Array(all.prefix(32 * count)) {
            throw Mismatch("t\(count)", "KDF\(count) and KDF3 differ")
        }
        return .object([
            JSON.Member("note", .string(entry["note"]?.string ?? "")), JSON.Member("key", .hex(key)), JSON.Member("input", .hex(input)),
            JSON.Member("t1", .hex(Array(all[0..<32]))), JSON.Member("t2", .hex(Array(all[32..<64]))),
            JSON.Member("t3", .hex(Array(all[64..<96]))),
        ])
    }

    private static func mac(_ entry: JSON) throws(Mismatch) -> JSON {
        let (key, data) = (try entry.bytes("key", count: 1...32), try entry.bytes("data"))
        let mac = [UInt8](KeyedMAC(key: key.span.bytes).mac(over: data.span.bytes))
        return .object([JSON.Member("key", .hex(key)), JSON.Member("data", .hex(data)), JSON.Member("mac", .hex(mac))])
    }

    private static func hChaCha20(_ entry: JSON) throws(Mismatch) -> JSON {
        let (key, nonce) = (try entry.bytes("key", count: 32...32), try entry.bytes("nonce", count: 16...16))
        let subkey = [UInt8](XChaChaPoly.hChaCha20(key: key.span.bytes, nonce: nonce.span.bytes))
        return .object([JSON.Member("key", .hex(key)), JSON.Member("nonce", .hex(nonce)), JSON.Member("subkey", .hex(subkey))])
    }

    private static func xChaChaPoly(_ entry: JSON) throws(Mismatch) -> JSON {
        let (key, nonce) = (try entry.bytes("key", count: 32...32), try entry.bytes("nonce", count: 24...24))
        let (additionalData, text) = (try entry.bytes("ad"), try entry.bytes("plaintext"))
        var buffer = text + [UInt8](repeating: 0, count: XChaChaPoly.tagByteCount)
        buffer.withMutableBytes {
            XChaChaPoly.seal(
                &$0, plaintext: 0..<text.count, nonce: nonce.span.bytes, key: key.span.bytes, additionalData: additionalData.span.bytes)
        }
        var opened = buffer
        let isOpen = opened.withMutableBytes {
            XChaChaPoly.open(
                &$0, ciphertext: 0..<buffer.count, nonce: nonce.span.bytes, key: key.span.bytes, additionalData: additionalData.span.bytes)
        }
        guard isOpen, Array(opened.prefix(text.count)) == text else { throw Mismatch("ciphertext", "it does not open again") }
        return .object([
            JSON.Member("key", .hex(key)), JSON.Member("nonce", .hex(nonce)), JSON.Member("ad", .hex(additionalData)),
            JSON.Member("plaintext", .hex(text)), JSON.Member("ciphertext", .hex(buffer)),
        ])
    }

    private static func tai64n(_ entry: JSON) throws(Mismatch) -> JSON {
        let time = try entry.wallTime()
        return .object([
            JSON.Member("unix_seconds", .integer(time.seconds)), JSON.Member("nanoseconds", .integer(time.nanoseconds)),
            JSON.Member("label", .hex([UInt8](TAI64N(exactly: time)))),
        ])
    }

    static let paddingColumns: JSON = .array([.string("length"), .string("mtu (0: none)"), .string("padded length")])

    /// A row of `padding.rows`: length, MTU, padded length.
    static func padding(_ row: JSON) throws(Mismatch) -> JSON {
        guard let cells = row.array, cells.count == 3, let length = cells[0].unsigned, let mtu = cells[1].unsigned, length <= 65_535,
            mtu <= 65_535
        else { throw Mismatch("row", "not three numbers, at most 65535") }
        return .array([cells[0], cells[1], .integer(DataMessage.paddedLength(Int(length), mtu: Int(mtu)))])
    }

    /// A sequence of `replay_window`: counters in the order in which they come, and whether each is accepted.
    static func replayWindow(_ entry: JSON) throws(Mismatch) -> JSON {
        guard let steps = entry["sequence"]?.array, steps.count <= 1_000_000 else { throw Mismatch("sequence", "missing") }
        var window = ReplayWindow()
        var sequence: [JSON] = []
        for (index, step) in steps.enumerated() {
            guard let pair = step.array, pair.count == 2, let counter = pair[0].unsigned else {
                throw Mismatch("sequence[\(index)]", "not a counter and a verdict")
            }
            let isAccepted = counter < Constants.rejectAfterMessages && window.accept(counter)
            sequence.append(.array([.string(String(counter)), .bool(isAccepted)]))
        }
        return .object([JSON.Member("note", .string(entry["note"]?.string ?? "")), JSON.Member("sequence", .array(sequence))])
    }
}

/// Inputs of a vector, checked before anything is computed from them.
extension JSON {
    func bytes(_ name: String, count: ClosedRange<Int> = 0...65_535) throws(Mismatch) -> [UInt8] {
        guard let text = self[name]?.string else { throw Mismatch(name, "missing, or not a string") }
        guard let bytes = Hex.decode(text) else { throw Mismatch(name, "not hexadecimal") }
        guard count.contains(bytes.count) else {
            let wanted = count.lowerBound == count.upperBound ? "\(count.lowerBound)" : "\(count.lowerBound) to \(count.upperBound)"
            throw Mismatch(name, "\(bytes.count) bytes instead of \(wanted)")
        }
        return bytes
    }

    func integer(_ name: String, _ range: ClosedRange<UInt64> = 0...UInt64.max) throws(Mismatch) -> UInt64 {
        guard let value = self[name]?.unsigned, range.contains(value) else {
            throw Mismatch(name, "missing, or not an integer of \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func wallTime() throws(Mismatch) -> WallTime {
        let nanoseconds = try integer("nanoseconds", 0...999_999_999)
        return WallTime(seconds: try integer("unix_seconds"), nanoseconds: UInt32(truncatingIfNeeded: nanoseconds))
    }
}
