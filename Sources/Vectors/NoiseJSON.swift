/// The JSON form that Noise implementations share, `{"vectors": [...]}`, and its older variants.
enum NoiseJSON {
    static func read(_ vector: JSON, index: Int) -> NoiseCase.Parsed {
        var name = "vectors[\(index)]"
        guard let members = vector.members else { return .bad(name: name, Mismatch("case", "not an object")) }
        let title = vector["protocol_name"]?.string ?? protocolName(ofParts: vector) ?? vector["name"]?.string
        guard let title else { return .bad(name: name, Mismatch("protocol_name", "missing")) }
        name += " \(Shown.cut(title))"
        if let reason = skipReason(vector) ?? NoiseCase.skipReason(title) { return .skipped(name: name, reason: reason) }
        var result = NoiseCase(name: name, protocolName: title)
        do {
            for member in members where member.value != .null { try take(member, into: &result) }
        } catch {
            return .bad(name: name, error)
        }
        guard !result.messages.isEmpty else { return .bad(name: name, Mismatch("messages", "there are none")) }
        return .good(result)
    }

    /// What the protocol's name does not say, or only in some files.
    private static func skipReason(_ vector: JSON) -> String? {
        for side in ["init", "resp"] {
            if let key = vector["\(side)_ssk"], key != .null { return NoiseCase.secondaryKey }
        }
        if vector["name"]?.string?.hasSuffix(":SSK") == true { return NoiseCase.secondaryKey }
        if vector["fallback"] == .bool(true) || vector["fallback_pattern"]?.string != nil { return NoiseCase.fallback }
        switch vector["hybrid"] {
        case nil, .null, .bool(false), .string(""): return nil
        case .string(let name): return "hybrid DH \(Shown.cut(name)) is not supported"
        case .bool, .number, .array, .object: return "hybrid DH is not supported"
        }
    }

    /// Old files spell the protocol's name in parts.
    private static func protocolName(ofParts vector: JSON) -> String? {
        guard let pattern = vector["pattern"]?.string, let dh = vector["dh"]?.string, let cipher = vector["cipher"]?.string,
            let hash = vector["hash"]?.string
        else { return nil }
        return "\(vector["init_psk"]?.string == nil ? "Noise" : "NoisePSK")_\(pattern)_\(dh)_\(cipher)_\(hash)"
    }

    private static func take(_ member: JSON.Member, into vector: inout NoiseCase) throws(Mismatch) {
        let (name, value) = (member.name, member.value)
        switch name {
        // Read above, or only said to people.
        case "protocol_name", "name", "pattern", "dh", "cipher", "hash", "hybrid", "fallback", "fallback_pattern", "comment", "note",
            "source":
            break
        case "fail":
            guard case .bool(let mustFail) = value else { throw Mismatch(name, "neither true nor false") }
            vector.mustFail = mustFail
        case "handshake_hash": vector.handshakeHash = try NoiseCase.Field.bytes(try text(value, name), name)
        case "messages": vector.messages = try messages(value)
        case _ where name.hasPrefix("init_"): try take(String(name.dropFirst(5)), value, name, into: &vector.initiator)
        case _ where name.hasPrefix("resp_"): try take(String(name.dropFirst(5)), value, name, into: &vector.responder)
        default: throw Mismatch(Shown.cut(name), "unknown field")
        }
    }

    private static func take(_ field: String, _ value: JSON, _ name: String, into party: inout NoiseCase.Party) throws(Mismatch) {
        switch field {
        case "prologue": party.prologue = try NoiseCase.Field.bytes(try text(value, name), name)
        case "static": party.staticKey = try NoiseCase.Field.key(try text(value, name), name)
        case "ephemeral": party.ephemeral = try NoiseCase.Field.key(try text(value, name), name)
        case "remote_static": party.remoteStatic = try NoiseCase.Field.key(try text(value, name), name)
        case "psk": party.presharedKeys = [try NoiseCase.Field.key(try text(value, name), name)]
        case "psks":
            guard let keys = value.array, keys.count <= NoiseCase.maximumPresharedKeys else {
                throw Mismatch(name, "not an array of at most \(NoiseCase.maximumPresharedKeys) keys")
            }
            party.presharedKeys = []
            for key in keys { party.presharedKeys.append(try NoiseCase.Field.key(try text(key, name), name)) }
        default: throw Mismatch(Shown.cut(name), "unknown field")
        }
    }

    private static func messages(_ value: JSON) throws(Mismatch) -> [NoiseCase.Message] {
        guard let elements = value.array, elements.count <= NoiseCase.maximumMessages else {
            throw Mismatch("messages", "not an array of at most \(NoiseCase.maximumMessages) messages")
        }
        var messages: [NoiseCase.Message] = []
        for (index, element) in elements.enumerated() {
            let name = "messages[\(index)]"
            guard let members = element.members, let payload = element["payload"], let ciphertext = element["ciphertext"],
                members.count == 2
            else { throw Mismatch(name, "not a payload and a ciphertext") }
            messages.append(
                NoiseCase.Message(
                    payload: try NoiseCase.Field.bytes(try text(payload, name), "\(name).payload"),
                    ciphertext: try NoiseCase.Field.bytes(try text(ciphertext, name), "\(name).ciphertext")))
        }
        return messages
    }

    private static func text(_ value: JSON, _ name: String) throws(Mismatch) -> String {
        guard let text = value.string else { throw Mismatch(name, "not a string") }
        return text
    }
}
