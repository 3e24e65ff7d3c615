import Testing
import Vectors

/// `vectors/wireguard.json` was written by an independent implementation; it is the proof that neither `run` nor
/// `generate` agrees only with itself.
@Suite struct WireGuardVectorsTests {
    let bytes: [UInt8]
    let root: JSON

    init() throws {
        bytes = try Fixture.wireGuard()
        root = try JSONReader.read(bytes)
    }

    private func run(_ root: JSON) -> VectorReport { VectorRunner.run(Array(root.document.utf8)) }

    @Test("the independent file passes, section by section")
    func passes() {
        let report = VectorRunner.run(bytes)
        #expect(report.failures == [])
        #expect(report.fault == nil)
        #expect(report.format == .wireGuard)
        #expect(report.skippedCount == 0)
        // Six handshakes of ten sections, a cookie, six packets and twelve messages to refuse; eight windows; 29 others.
        #expect(report.passed == 6 * (10 + 1 + 6 + 12) + 8 + 29)
    }

    @Test("what generate's machinery writes for the file's inputs is the file, byte for byte", arguments: 0..<6)
    func generatorAgreesWithTheFile(index: Int) throws {
        let file = try #require(root["handshakes"]?.array?[index])
        var handshake = try WireGuardHandshake(reading: file)
        handshake.packets = try (file["packets"]?.array ?? []).map { try WireGuardHandshake.Packet(reading: $0) }
        let members = try #require(file.members).filter { $0.name != "must_reject" }
        let written = try handshake.document()
        #expect(JSON.object(written).document == JSON.object(members).document)
    }

    @Test("every field of a handshake counts: turning one over is found, under its own name", arguments: [0, 1])
    func everyFieldCounts(index: Int) throws {
        let handshake = try #require(root["handshakes"]?.array?[index])
        var tried = 0
        for path in handshake.leaves() where path.names.first != "must_reject" {
            // What only people read, and cannot be wrong.
            guard path.names.last != "note", path.names != ["name"] else { continue }
            // A packet that needs no padding needs none below any other MTU either.
            guard path.names.last != "mtu" else { continue }
            let damaged = handshake.damaging(path.steps)
            let report = run(.object([JSON.Member("handshakes", .array([damaged]))]))
            #expect(!report.isGood, "\(path.names) is not checked")
            tried += 1
        }
        #expect(tried > 100)
    }

    @Test("every field of the primitives and windows counts")
    func everyPrimitiveCounts() throws {
        for section in ["primitives", "replay_window"] {
            let value = try #require(root[section])
            for path in value.leaves() where path.names.last != "note" {
                // Other inputs may well have the same output: of rows and sequences the last cell is the output.
                if case .element(let cell) = path.steps.last, path.names.last != "columns" {
                    guard cell == (path.names.last == "rows" ? 2 : 1) else { continue }
                }
                let report = run(.object([JSON.Member(section, value.damaging(path.steps))]))
                #expect(!report.isGood, "\(section) \(path.names) is not checked")
            }
        }
    }

    @Test("a message to refuse that is good is a failure, and so is one that is refused for another reason")
    func mustReject() throws {
        let handshake = try #require(root["handshakes"]?.array?[0])
        let good = try #require(handshake["initiation"])
        func report(_ why: String, _ message: JSON) -> VectorReport {
            let entry = JSON.object([
                JSON.Member("to", .string("responder")), JSON.Member("why", .string(why)), JSON.Member("message", message),
            ])
            return run(.object([JSON.Member("handshakes", .array([handshake.replacing("must_reject", .array([entry]))]))]))
        }
        #expect(report("anything", good).failures.map(\.mismatch) == [Mismatch("message", "accepted, although: anything")])
        let refused = report("one byte long", .string("0100000000"))
        #expect(refused.isGood)
        let other = report("mac1 is wrong", .string("0100000000"))
        #expect(other.failures.first?.mismatch.detail == .value(expected: "refused for its mac1", actual: "refused for its length"))
    }

    @Test("the first step that differs is named, with the byte")
    func firstStep() throws {
        let handshake = try #require(root["handshakes"]?.array?[0])
        let trace = try #require(handshake["trace_initiation"]?.array)
        let step = try #require(trace[3]["ck"]?.string)
        var damaged = trace
        damaged[3] = trace[3].replacing("ck", .string(String(step.dropLast(2)) + (step.hasSuffix("00") ? "01" : "00")))
        let report = run(.object([JSON.Member("handshakes", .array([handshake.replacing("trace_initiation", .array(damaged))]))]))
        let failure = try #require(report.failures.first)
        #expect(failure.name == "handshakes[0] alpha trace_initiation")
        #expect(failure.mismatch.step == "trace_initiation[3] (es: MixKey).ck")
        guard case .bytes(offset: 31, _, actual: String(step.suffix(2))) = failure.mismatch.detail else {
            Issue.record("\(failure.mismatch)")
            return
        }
    }

    @Test("members that nobody knows are failures, wherever they are")
    func unknownMembers() throws {
        let extra = JSON.Member("surprise", .bool(true))
        let handshake = try #require(root["handshakes"]?.array?[0])
        #expect(!run(.object(try #require(root.members) + [extra])).isGood)
        let inHandshake = JSON.object(try #require(handshake.members) + [extra])
        #expect(!run(.object([JSON.Member("handshakes", .array([inHandshake]))])).isGood)
        let inParty = handshake.replacing("initiator", .object(try #require(handshake["initiator"]?.members) + [extra]))
        #expect(!run(.object([JSON.Member("handshakes", .array([inParty]))])).isGood)
    }
}
