import Testing
import Vectors

/// What a case of a JSON file asks for, shown on cases of an independent implementation that pass as they stand.
@Suite struct NoiseRunTests {
    private func run(_ vector: JSON) -> VectorReport {
        VectorRunner.run(Array(JSON.object([JSON.Member("vectors", .array([vector]))]).document.utf8))
    }

    /// The step at which the only case fails; `nil` if it passes.
    private func failure(_ vector: JSON) -> String? {
        let report = run(vector)
        #expect(report.caseCount == 1)
        #expect(report.skipped == [:])
        return report.failures.first?.mismatch.step
    }

    private func messages(_ vector: JSON, _ change: (inout [JSON]) -> Void) throws -> JSON {
        var messages = try #require(vector["messages"]?.array)
        change(&messages)
        return vector.replacing("messages", .array(messages))
    }

    // MARK: - Messages

    @Test("behind the handshake the sides go on in turns")
    func transportOrder() throws {
        // XX has three messages: the fourth is the responder's.
        let vector = try Fixture.noiseCase("XX")
        #expect(failure(vector) == nil)
        #expect(try failure(messages(vector) { $0.swapAt(3, 4) }) == "message 3 (transport)")
        // Both of the responder, so that the second has the nonce of the first.
        #expect(try failure(messages(vector) { $0.remove(at: 4) }) == "message 4 (transport)")
    }

    @Test("of a one-way pattern the initiator sends all", arguments: ["N", "K", "X", "Kpsk0+psk1"])
    func oneWay(pattern: String) throws {
        let vector = try Fixture.noiseCase(pattern)
        #expect(vector["resp_ephemeral"] == nil)
        #expect(vector["messages"]?.array?.count == 3)
        #expect(failure(vector) == nil)
        #expect(try failure(messages(vector) { $0.swapAt(1, 2) }) == "message 1 (transport)")
        #expect(try failure(messages(vector) { $0.removeLast(2) }) == nil)
    }

    @Test("messages that end before the handshake does are a failure, with a handshake hash or without")
    func endsEarly() throws {
        let vector = try Fixture.noiseCase("XX")
        for count in 1...2 {
            let cut = try messages(vector) { $0.removeLast($0.count - count) }
            #expect(failure(cut) == "messages")
            #expect(failure(cut.removing("handshake_hash")) == "messages")
        }
        #expect(try failure(messages(vector) { $0.removeLast($0.count - 3) }) == nil)
    }

    @Test("the same is true of a text")
    func textEndsEarly() throws {
        let text = """
            handshake=Noise_NN_25519_AESGCM_SHA256
            gen_init_ephemeral=893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a
            msg_0_payload=
            msg_0_ciphertext=ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944
            """
        let mismatch = Mismatch("messages", "they end before the handshake does")
        #expect(VectorRunner.run(Array(text.utf8)).failures.map(\.mismatch) == [mismatch])
    }

    // MARK: - Keys

    @Test("a remote static key is what its side believes; without one it derives from the other's private key", arguments: ["NK", "IK"])
    func remoteStatic(pattern: String) throws {
        let vector = try Fixture.noiseCase(pattern)
        #expect(vector["init_remote_static"]?.string != nil)
        #expect(failure(vector.removing("init_remote_static")) == nil)
        let ephemeral = try #require(vector["init_ephemeral"])
        #expect(failure(vector.replacing("init_remote_static", ephemeral)) == "message 0 (handshake)")
        #expect(failure(vector.removing("resp_static")) == "resp keys")
    }

    @Test("the responder's is its own")
    func responderRemoteStatic() throws {
        let vector = try Fixture.noiseCase("KN")
        let ephemeral = try #require(vector["init_ephemeral"])
        #expect(failure(vector) == nil)
        // The first message is in the clear and agrees with the vector, but neither side can read on.
        #expect(failure(vector.replacing("resp_remote_static", ephemeral)) == "message 1 (handshake)")
    }

    @Test("preshared keys are mixed in in the order of their list, and have to be as many as the pattern wants")
    func presharedKeys() throws {
        let vector = try Fixture.noiseCase("XKpsk1+psk2+psk3")
        let keys = try #require(vector["init_psks"]?.array)
        #expect(keys.count == 3)
        #expect(failure(vector) == nil)
        func failing(_ keys: [JSON]) -> String? {
            failure(vector.replacing("init_psks", .array(keys)).replacing("resp_psks", .array(keys)))
        }
        #expect(failing([keys[1], keys[0], keys[2]]) == "message 0 (handshake)")
        #expect(failing([keys[0], keys[2], keys[1]]) == "message 1 (handshake)")
        #expect(failing(Array(keys.prefix(2))) == "init keys")
        #expect(failing([]) == "init keys")
        // One key stands for all three, and these differ.
        #expect(failing([keys[0]]) == "message 1 (handshake)")
        #expect(failing(keys + [keys[0]]) == "init keys")
    }

    @Test("a single preshared key may have the name of older files; a pattern that wants none must have none")
    func singlePresharedKey() throws {
        let vector = try Fixture.noiseCase("NNpsk0")
        let key = try #require(vector["init_psks"]?.array?.first)
        let old = vector.removing("init_psks").removing("resp_psks").adding("init_psk", key).adding("resp_psk", key)
        #expect(failure(old) == nil)
        #expect(failure(vector.removing("resp_psks")) == "resp keys")
        #expect(try failure(Fixture.noiseCase("NN").adding("init_psks", .array([key]))) == "init keys")
    }

    @Test("both prologues count")
    func prologues() throws {
        // Not empty, so that both sides have to have it.
        let vector = try Fixture.noiseCase("IK")
        #expect(vector["init_prologue"] != .string(""))
        #expect(failure(vector.removing("init_prologue")) == "message 0 (handshake)")
        #expect(failure(vector.removing("resp_prologue")) == "message 0 (handshake)")
    }

    // MARK: - Results

    @Test("a wrong handshake hash is found, with its byte", arguments: ["N", "XX", "K1K1", "IKpsk2"])
    func handshakeHash(pattern: String) throws {
        let vector = try Fixture.noiseCase(pattern)
        let report = run(vector.damaging([.member("handshake_hash")]))
        let failure = try #require(report.failures.first)
        #expect(failure.mismatch.step == "handshake_hash")
        let last = try #require(vector["handshake_hash"]?.string).count / 2 - 1
        guard case .bytes(offset: last, _, _) = failure.mismatch.detail else {
            Issue.record("\(failure.mismatch)")
            return
        }
        // A file may leave it out.
        #expect(self.failure(vector.removing("handshake_hash")) == nil)
    }

    @Test("a last message that must be refused is a pass if it is, in the handshake and behind it", arguments: [2, 3, 4, 5])
    func mustFail(count: Int) throws {
        let vector = try messages(try Fixture.noiseCase("XX")) { $0.removeLast($0.count - count) }
        let forged = try messages(vector) { $0[count - 1] = $0[count - 1].damaging([.member("ciphertext")]) }
        #expect(failure(forged)?.hasPrefix("message \(count - 1)") == true)
        #expect(failure(forged.adding("fail", .bool(true))) == nil)
        #expect(failure(forged.adding("fail", .bool(false)))?.hasPrefix("message \(count - 1)") == true)
        let accepted = try #require(run(vector.adding("fail", .bool(true))).failures.first?.mismatch)
        #expect(accepted.step.hasPrefix("message \(count - 1)"))
        #expect(accepted.detail == .message("accepted, although it must fail"))
    }

    @Test("only the last message may be refused")
    func mustFailAtTheEnd() throws {
        let vector = try Fixture.noiseCase("XX").adding("fail", .bool(true))
        #expect(try failure(messages(vector) { $0[1] = $0[1].damaging([.member("ciphertext")]) }) == "message 1 (handshake)")
    }
}
