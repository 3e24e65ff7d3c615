import Testing
import Vectors

/// What the two Noise forms are read as.
@Suite struct NoiseFormatTests {
    private func good(_ parsed: NoiseCase.Parsed?) throws -> NoiseCase {
        guard case .good(let vector) = parsed else { throw Unexpected(parsed: parsed) }
        return vector
    }

    struct Unexpected: Error { var parsed: NoiseCase.Parsed? }

    private func mismatch(_ parsed: NoiseCase.Parsed?) -> Mismatch? {
        if case .bad(_, let mismatch) = parsed { mismatch } else { nil }
    }

    @Test("a text is read case by case")
    func text() throws {
        let cases = try NoiseText.read(try Fixture.noiseText())
        #expect(cases.count == 8)
        let first = try good(cases.first)
        #expect(first.protocolName == "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        #expect(first.name == "case 1, line 31, Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        #expect(first.messages.count == 4)
        #expect(first.initiator.presharedKeys.count == 1)
        #expect(first.initiator.prologue == first.responder.prologue)
        #expect(first.transportOrder == .initiatorFirst)
    }

    @Test(
        "a damaged field is named",
        arguments: [
            ("init_static=00", "init_static"), ("preshared_key=zz", "preshared_key"), ("msg_1_payload=", "msg_1_payload"),
            ("msg_0_ciphertext=00", "msg_0_ciphertext"), ("colour=red", "colour"), ("prologue=0", "prologue"),
        ])
    func damagedText(line: String, step: String) throws {
        let cases = try NoiseText.read(Array("handshake=Noise_NN_25519_AESGCM_SHA256\n\(line)\n".utf8))
        #expect(mismatch(cases.first)?.step == step)
    }

    @Test("lines that are no field are a fault of the file")
    func brokenText() {
        #expect(throws: NoiseText.Fault.self) { try NoiseText.read(Array("handshake=Noise_NN_25519_AESGCM_SHA256\nwhat\n".utf8)) }
        #expect(throws: NoiseText.Fault.self) { try NoiseText.read(Array("hello\n".utf8)) }
    }

    private func json(_ members: String) -> VectorReport { VectorRunner.run(Array("{\"vectors\": [{\(members)}]}".utf8)) }

    @Test(
        "what asks for something that is not there is skipped, never passed",
        arguments: [
            (#""protocol_name": "Noise_XX_448_AESGCM_SHA256""#, "DH not supported"),
            (#""name": "Noise_NN_448_ChaChaPoly_SHA512""#, "DH not supported"),
            (#""pattern": "NN", "dh": "448", "cipher": "AESGCM", "hash": "SHA256", "name": "x""#, "DH not supported"),
            (#""protocol_name": "Noise_NNhfs_25519+448_ChaChaPoly_SHA512""#, "DH not supported"),
            (#""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512", "hybrid": "NewHope""#, "DH not supported"),
            (#""protocol_name": "Noise_XXfallback_25519_ChaChaPoly_SHA512""#, "fallback not supported"),
            (#""protocol_name": "Noise_IK_25519_ChaChaPoly_SHA512", "fallback": true"#, "fallback not supported"),
            (#""name": "NoisePSK_NN_25519_ChaChaPoly_SHA512""#, "protocol name of another form"),
        ])
    func skipped(members: String, reason: String) {
        let report = json(members)
        #expect(report.skipped == [reason: 1])
        #expect(report.passed == 0)
        #expect(report.failures == [])
    }

    @Test("a byte order mark may stand at the very beginning of either form, and nowhere else")
    func byteOrderMark() throws {
        let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
        for bytes in [try Fixture.noiseText(), try Fixture.noiseJSON()] {
            #expect(VectorRunner.run(mark + bytes) == VectorRunner.run(bytes))
            for begin in [mark + mark, [0x0A] + mark, Array(mark.prefix(2)), mark.reversed()] {
                #expect(VectorRunner.run(begin + bytes).fault != nil, "\(begin)")
            }
        }
        let text = "handshake=Noise_NN_25519_AESGCM_SHA256\nmsg_0_payload=\nmsg_0_ciphertext=00\n"
        #expect(try NoiseText.read(mark + Array(text.utf8)) == NoiseText.read(Array(text.utf8)))
    }

    @Test("lines may end with CR LF, the last one with nothing, and may be empty")
    func lines() throws {
        let text = "# x\nhandshake=Noise_NN_25519_AESGCM_SHA256\nmsg_0_payload=aa\nmsg_0_ciphertext=bb"
        let cases = try NoiseText.read(Array(text.utf8))
        #expect(try good(cases.first).messages == [NoiseCase.Message(payload: [0xAA], ciphertext: [0xBB])])
        #expect(try NoiseText.read(Array(text.replacing("\n", with: "\r\n").utf8)) == cases)
        #expect(try NoiseText.read(Array((text + String(repeating: "\n", count: 1 << 20)).utf8)) == cases)
        let late = text + String(repeating: "\n", count: 1000) + "what"
        #expect(VectorRunner.run(Array(late.utf8)).fault == "line 1004: not KEY=VALUE")
    }

    @Test(
        "a damaged case of a JSON file is a failure that names the field",
        arguments: [
            (#""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512""#, "messages"),
            (#""protocol_name": 7"#, "protocol_name"),
            (#""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512", "init_static": "00", "messages": []"#, "init_static"),
            (#""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512", "init_psks": "00", "messages": []"#, "init_psks"),
            (#""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512", "messages": [{"payload": ""}]"#, "messages[0]"),
            (
                #""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512", "messages": [{"payload": "", "ciphertext": "g0"}]"#,
                "messages[0].ciphertext"
            ),
            (#""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512", "init_colour": "00", "messages": []"#, "init_colour"),
            (#""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512", "fail": 1, "messages": []"#, "fail"),
        ])
    func damagedJSON(members: String, step: String) {
        #expect(json(members).failures.map(\.mismatch.step) == [step])
    }

    @Test(
        "files of no known form, and files without a case, are errors",
        arguments: ["", " \n", "{}", "[]", "{\"a\": 1}", "x=y", "{\"vectors\": []}", "\u{0}\u{1}"])
    func unknown(text: String) {
        let report = VectorRunner.run(Array(text.utf8))
        #expect(report.fault != nil)
        #expect(!report.isGood)
        #expect(report.passed == 0)
    }
}
