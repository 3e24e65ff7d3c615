import Inet
import Noise
import WGUserspace

/// Runs a file of the form of `vectors/wireguard.json`. Each section of a handshake is a case of its own; a section may be
/// missing, but what is there must be complete, and nothing may be there that this does not know.
enum WireGuardVectors {
    static func isRecognised(_ root: JSON) -> Bool {
        root["handshakes"] != nil || root["primitives"] != nil || root["replay_window"] != nil
    }

    static func run(_ root: JSON, _ report: inout VectorReport, _ progress: (Int, Int) -> Void) {
        let handshakes = root["handshakes"]?.array ?? []
        let windows = root["replay_window"]?.array ?? []
        let total = handshakes.count + windows.count + 1
        runDocument(root, &report)
        runPrimitives(root["primitives"], &report)
        progress(1, total)
        for (index, entry) in windows.enumerated() {
            guard report.fault == nil else { return }
            let name = "replay_window[\(index)]"
            report.add(
                name,
                outcome { () throws(Mismatch) in
                    try JSONComparison.compare(name, file: entry, computed: WireGuardPrimitives.replayWindow(entry))
                })
            progress(1 + index + 1, total)
        }
        for (index, entry) in handshakes.enumerated() {
            guard report.fault == nil else { return }
            runHandshake(entry, "handshakes[\(index)] \(Shown.cut(entry["name"]?.string ?? ""))", &report)
            progress(1 + windows.count + index + 1, total)
        }
    }

    /// The members of the document itself.
    private static func runDocument(_ root: JSON, _ report: inout VectorReport) {
        for member in root.members ?? [] {
            guard report.fault == nil else { return }
            switch member.name {
            case "generator", "note", "warning", "source", "seed": break
            case "protocol", "identifier":
                let computed = member.name == "protocol" ? NoiseProtocol.wireGuard.name : HandshakeState.identifier
                report.add(
                    member.name,
                    outcome { () throws(Mismatch) in
                        try JSONComparison.compare(member.name, file: member.value, computed: .string(computed))
                    })
            case "primitives":
                if member.value.members == nil { report.add(member.name, .failed(Mismatch(member.name, "not an object"))) }
            case "replay_window", "handshakes":
                if member.value.array == nil { report.add(member.name, .failed(Mismatch(member.name, "not an array"))) }
            case _: report.add("document", .failed(Mismatch(Shown.cut(member.name), "unknown field")))
            }
        }
    }

    private static func runPrimitives(_ primitives: JSON?, _ report: inout VectorReport) {
        guard let primitives, let members = primitives.members else { return }
        let initial = WireGuardPrimitives.initial()
        for member in members {
            guard report.fault == nil else { return }
            let path = "primitives.\(Shown.cut(member.name))"
            if let computed = initial.first(where: { $0.name == member.name }) {
                report.add(
                    path,
                    outcome { () throws(Mismatch) in
                        try JSONComparison.compare(path, file: member.value, computed: computed.value)
                    })
            } else if let kind = WireGuardPrimitives.lists.first(where: { $0.name == member.name }) {
                runEntries(member.value, path, &report, kind.complete)
            } else if member.name == "padding" {
                report.add(
                    path,
                    outcome { () throws(Mismatch) in
                        let known = JSON.object([
                            JSON.Member("columns", WireGuardPrimitives.paddingColumns), JSON.Member("rows", .array([])),
                        ])
                        guard let rows = member.value["rows"], rows.array != nil else { throw Mismatch("\(path).rows", "not an array") }
                        try JSONComparison.compare(
                            path,
                            file: .object((member.value.members ?? []).map { $0.name == "rows" ? JSON.Member("rows", .array([])) : $0 }),
                            computed: known)
                    })
                runEntries(member.value["rows"] ?? .null, "\(path).rows", &report, WireGuardPrimitives.padding)
            } else {
                report.add(path, .failed(Mismatch(path, "unknown field")))
            }
        }
    }

    private static func runEntries(
        _ list: JSON, _ path: String, _ report: inout VectorReport, _ complete: (JSON) throws(Mismatch) -> JSON
    ) {
        guard let entries = list.array else { return report.add(path, .failed(Mismatch(path, "not an array"))) }
        for (index, entry) in entries.enumerated() {
            guard report.fault == nil else { return }
            let name = "\(path)[\(index)]"
            report.add(name, outcome { () throws(Mismatch) in try JSONComparison.compare(name, file: entry, computed: complete(entry)) })
        }
    }

    private static func runHandshake(_ json: JSON, _ name: String, _ report: inout VectorReport) {
        do {
            let handshake = try WireGuardHandshake(reading: json)
            let writer = try WireGuardWriter(handshake)
            let trace = try WireGuardTrace(handshake, writer.keys)
            let sections: [(String, JSON)] = [
                ("name", .string(handshake.name)), ("psk", handshake.presharedKey.map { .hex($0) } ?? .null),
                ("initiator", try writer.party(isInitiator: true)), ("responder", try writer.party(isInitiator: false)),
                ("timestamp", writer.timestamp()), ("trace_initiation", .array(trace.initiation)), ("initiation", .hex(writer.initiation)),
                ("trace_response", .array(trace.response)), ("response", .hex(writer.response)),
                ("transport_keys", writer.transportKeys()),
            ]
            for (section, computed) in sections {
                guard let file = json[section] else { continue }
                report.add(
                    "\(name) \(section)",
                    outcome { () throws(Mismatch) in
                        try JSONComparison.compare(section, file: file, computed: computed)
                    })
            }
            if let file = json["cookie"] {
                report.add(
                    "\(name) cookie",
                    outcome { () throws(Mismatch) in
                        try JSONComparison.compare("cookie", file: file, computed: writer.cookie())
                    })
            }
            runElements(json["packets"], "\(name) packets", &report) { packet throws(Mismatch) in
                try JSONComparison.compare("packet", file: packet, computed: writer.packet(WireGuardHandshake.Packet(reading: packet)))
            }
            runElements(json["must_reject"], "\(name) must_reject", &report) { message throws(Mismatch) in
                try expectRejected(message, handshake, writer.keys)
            }
            for member in json.members ?? []
            where !sections.contains(where: { $0.0 == member.name }) && !["cookie", "packets", "must_reject"].contains(member.name) {
                guard report.fault == nil else { return }
                report.add(name, .failed(Mismatch(Shown.cut(member.name), "unknown field")))
            }
        } catch {
            report.add(name, .failed(error))
        }
    }

    private static func runElements(
        _ list: JSON?, _ path: String, _ report: inout VectorReport, _ body: (JSON) throws(Mismatch) -> Void
    ) {
        guard let list else { return }
        guard let elements = list.array else { return report.add(path, .failed(Mismatch(path, "not an array"))) }
        for (index, element) in elements.enumerated() {
            guard report.fault == nil else { return }
            report.add("\(path)[\(index)]", outcome { () throws(Mismatch) in try body(element) })
        }
    }

    private static func expectRejected(
        _ entry: JSON, _ handshake: WireGuardHandshake, _ keys: WireGuardHandshake.Keys
    ) throws(Mismatch) {
        let message = try entry.bytes("message")
        guard let why = entry["why"]?.string else { throw Mismatch("why", "missing") }
        let verdict: WireGuardRejection?
        switch entry["to"]?.string {
        case "responder": verdict = WireGuardRejection.judgeInitiation(message, handshake, keys)
        case "initiator": verdict = try WireGuardRejection.judgeResponse(message, handshake, keys)
        case _: throw Mismatch("to", "neither initiator nor responder")
        }
        for member in entry.members ?? [] where !["to", "why", "message"].contains(member.name) {
            throw Mismatch(Shown.cut(member.name), "unknown field")
        }
        guard let verdict else { throw Mismatch("message", "accepted, although: \(Shown.cut(why))") }
        if let wanted = WireGuardRejection(why: why), wanted != verdict {
            throw Mismatch("message", .value(expected: "refused for \(wanted.rawValue)", actual: "refused for \(verdict.rawValue)"))
        }
    }

    private static func outcome(_ body: () throws(Mismatch) -> Void) -> Outcome {
        do {
            try body()
            return .passed
        } catch {
            return .failed(error)
        }
    }
}
