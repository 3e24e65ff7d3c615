/// The text form of flynn/noise: `key=value` lines, a `handshake=` line begins a case, `#` begins a comment.
package enum NoiseText {
    package struct Fault: Error, Equatable, CustomStringConvertible {
        package var line: Int
        package var reason: String
        package var description: String { "line \(line): \(reason)" }
    }

    /// Whether the first line that says something is one of this form.
    package static func isRecognised(_ bytes: [UInt8]) -> Bool {
        for line in Lines(bytes.prefix(65_536)) {
            let line = trim(line)
            guard let first = line.first, first != UInt8(ascii: "#") else { continue }
            return line.starts(with: "handshake=".utf8)
        }
        return false
    }

    package static func read(_ bytes: [UInt8]) throws(Fault) -> [NoiseCase.Parsed] {
        guard isRecognised(bytes) else { throw Fault(line: 1, reason: "a text of no known form: no \"handshake=\" line comes first") }
        var cases: [NoiseCase.Parsed] = []
        var builder: Builder?
        var number = 0
        for line in Lines(bytes[...]) {
            number += 1
            let line = trim(line)
            guard let first = line.first, first != UInt8(ascii: "#") else { continue }
            guard let equals = line.firstIndex(of: UInt8(ascii: "=")), let key = String(validating: line[..<equals], as: UTF8.self),
                let value = String(validating: line[line.index(after: equals)...], as: UTF8.self)
            else { throw Fault(line: number, reason: "not KEY=VALUE") }
            if key == "handshake" {
                if let builder { cases.append(builder.finish()) }
                guard cases.count < VectorRunner.maximumCases else {
                    throw Fault(line: number, reason: "more than \(VectorRunner.maximumCases) cases")
                }
                builder = Builder(name: "case \(cases.count + 1), line \(number), \(Shown.cut(value))", protocolName: value)
            } else {
                builder?.add(key, value)
            }
        }
        if let builder { cases.append(builder.finish()) }
        return cases
    }

    /// One line after the other: all of them at once would take dozens of bytes for each empty one.
    private struct Lines: Sequence, IteratorProtocol {
        private var rest: ArraySlice<UInt8>?

        /// - Parameter bytes: with or without the byte order mark that some editors put in front.
        init(_ bytes: ArraySlice<UInt8>) { rest = VectorRunner.withoutByteOrderMark(bytes) }

        mutating func next() -> ArraySlice<UInt8>? {
            guard let text = rest else { return nil }
            guard let end = text.firstIndex(of: UInt8(ascii: "\n")) else {
                rest = nil
                return text
            }
            rest = text[(end + 1)...]
            return text[..<end]
        }
    }

    private static func trim(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var line = line
        while let last = line.last, last == 0x0D || last == 0x20 || last == 0x09 { line.removeLast() }
        return line
    }

    private struct Builder {
        var vector: NoiseCase
        var fault: Mismatch?
        var payload: [UInt8]?

        init(name: String, protocolName: String) {
            vector = NoiseCase(name: name, protocolName: protocolName)
            vector.transportOrder = .initiatorFirst
        }

        mutating func add(_ key: String, _ value: String) {
            guard fault == nil else { return }
            do { try take(key, value) } catch { fault = error }
        }

        private mutating func take(_ key: String, _ value: String) throws(Mismatch) {
            switch key {
            case "prologue":
                vector.initiator.prologue = try NoiseCase.Field.bytes(value, key)
                vector.responder.prologue = vector.initiator.prologue
            case "init_static": vector.initiator.staticKey = try NoiseCase.Field.key(value, key)
            case "resp_static": vector.responder.staticKey = try NoiseCase.Field.key(value, key)
            case "gen_init_ephemeral": vector.initiator.ephemeral = try NoiseCase.Field.key(value, key)
            case "gen_resp_ephemeral": vector.responder.ephemeral = try NoiseCase.Field.key(value, key)
            case "preshared_key":
                vector.initiator.presharedKeys = [try NoiseCase.Field.key(value, key)]
                vector.responder.presharedKeys = vector.initiator.presharedKeys
            case "handshake_hash": vector.handshakeHash = try NoiseCase.Field.bytes(value, key)
            case "msg_\(vector.messages.count)_payload":
                guard payload == nil else { throw Mismatch(Shown.cut(key), "it comes twice") }
                payload = try NoiseCase.Field.bytes(value, key)
            case "msg_\(vector.messages.count)_ciphertext":
                guard let text = payload else { throw Mismatch(Shown.cut(key), "its payload is missing") }
                payload = nil
                guard vector.messages.count < NoiseCase.maximumMessages else {
                    throw Mismatch(Shown.cut(key), "more than \(NoiseCase.maximumMessages) messages")
                }
                vector.messages.append(NoiseCase.Message(payload: text, ciphertext: try NoiseCase.Field.bytes(value, key)))
            default: throw Mismatch(Shown.cut(key), "unknown field, or not the next message")
            }
        }

        func finish() -> NoiseCase.Parsed {
            if let reason = NoiseCase.skipReason(vector.protocolName) { return .skipped(name: vector.name, reason: reason) }
            if let fault { return .bad(name: vector.name, fault) }
            guard payload == nil else { return .bad(name: vector.name, Mismatch("messages", "a payload without its ciphertext")) }
            guard !vector.messages.isEmpty else { return .bad(name: vector.name, Mismatch("messages", "there are none")) }
            return .good(vector)
        }
    }
}

/// Text of a file, as it may be shown: its controls are escaped by whoever prints it, here it is only cut.
enum Shown {
    /// Scalars, not characters: one character may have any number of accents.
    static func cut(_ text: some StringProtocol) -> String {
        let head = text.unicodeScalars.prefix(80)
        return head.endIndex == text.endIndex ? String(text) : String(String.UnicodeScalarView(head)) + "..."
    }
}
