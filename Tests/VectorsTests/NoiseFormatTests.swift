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
            (#""protocol_name": "Noise_XX_448_AESGCM_SHA256""#, "DH 448 is not supported"),
            (#""name": "Noise_NN_448_ChaChaPoly_SHA512""#, "DH 448 is not supported"),
            (#""pattern": "NN", "dh": "448", "cipher": "AESGCM", "hash": "SHA256", "name": "x""#, "DH 448 is not supported"),
            (#""protocol_name": "Noise_NN_25519+448_ChaChaPoly_SHA512""#, "DH 25519+448 is not supported"),
            (#""protocol_name": "Noise_NNhfs_25519+448_ChaChaPoly_SHA512""#, "modifier hfs is not supported"),
            (#""protocol_name": "Noise_NN_25519_ChaChaPoly_SHA512", "hybrid": "NewHope""#, "hybrid DH NewHope is not supported"),
            (#""protocol_name": "Noise_XXfallback_25519_ChaChaPoly_SHA512""#, "modifier fallback is not supported"),
            (#""protocol_name": "Noise_XXfallback+psk0_25519_ChaChaPoly_SHA512""#, "modifier fallback is not supported"),
            (#""protocol_name": "Noise_XXpsk0+fallback_25519_ChaChaPoly_SHA512""#, "modifier fallback is not supported"),
            (#""protocol_name": "Noise_IK_25519_ChaChaPoly_SHA512", "fallback": true"#, "modifier fallback is not supported"),
            (#""protocol_name": "Noise_PN_25519_ChaChaPoly_SHA512""#, "pattern PN is not known"),
            (#""protocol_name": "Noise_NNpsk3_25519_ChaChaPoly_SHA512""#, "modifier psk3 is not one of pattern NN"),
            (#""protocol_name": "Noise_NNpsk0+psk0_25519_ChaChaPoly_SHA512""#, "modifier psk0 is not one of pattern NN"),
            (#""protocol_name": "Noise_NN_25519_AESSIV_SHA512""#, "cipher AESSIV is not known"),
            (#""protocol_name": "Noise_NN_25519_AESGCM_SHA3/256""#, "hash SHA3/256 is not known"),
            (#""protocol_name": "Noise_NN_25519_AESGCM""#, "protocol name of 4 parts, not 5"),
            (#""name": "NoisePSK_NN_25519_ChaChaPoly_SHA512""#, "protocol name begins with NoisePSK, not with Noise"),
        ])
    func skipped(members: String, reason: String) {
        let report = json(members)
        #expect(report.skipped == [reason: 1])
        #expect(report.passed == 0)
        #expect(report.failures == [])
    }

    /// As noise-c-ssk.txt of noise-c has them.
    @Test(
        "noise-c's cases with a secondary symmetric key are skipped",
        arguments: [
            #""name": "Noise_N_25519_AESGCM_SHA256:SSK", "pattern": "N", "dh": "25519", "cipher": "AESGCM", "hash": "SHA256", "init_ssk": "e0""#,
            #""name": "Noise_N_25519_AESGCM_SHA256:SSK", "pattern": "N", "dh": "25519", "cipher": "AESGCM", "hash": "SHA256""#,
            #""protocol_name": "Noise_N_25519_AESGCM_SHA256", "resp_ssk": "e0""#,
            #""protocol_name": "Noise_N_25519_AESGCM_SHA256:SSK""#,
        ])
    func secondaryKeys(members: String) {
        #expect(json(members).skipped == ["SSK, an extension of noise-c, is not supported": 1])
    }

    @Test("a protocol is skipped with a reason exactly if it cannot be run")
    func reasons() {
        for name in ["Noise_XX_25519_AESGCM_SHA256", "Noise_Npsk0_25519_ChaChaPoly_BLAKE2s", "Noise_X1X1psk0+psk4_25519_AESGCM_BLAKE2b"] {
            #expect(NoiseCase.skipReason(name) == nil, "\(name)")
            #expect(NoiseCase(name: "", protocolName: name).run() != .skipped("protocol not supported"))
        }
        let long = "Noise_" + String(repeating: "_", count: 1 << 20)
        for name in ["", "_", "Noise", "Noise_", "Noise_____", "Noise_XXpsk_25519_AESGCM_SHA256", "Noise_XX+_25519_AESGCM_SHA256", long] {
            #expect(NoiseCase.skipReason(name) != nil)
            #expect(NoiseCase(name: "", protocolName: name).run() == NoiseCase.skipReason(name).map { .skipped($0) })
        }
    }

    @Test("text of a file is cut by scalars: one character may have any number of accents")
    func cut() throws {
        let dh = "Q" + String(repeating: "\u{301}", count: 100)
        #expect(dh.count == 1)
        let reason = try #require(NoiseCase.skipReason("Noise_NN_\(dh)_AESGCM_SHA256"))
        #expect(reason.hasSuffix("... is not supported"))
        #expect(reason.unicodeScalars.count < 110)
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
