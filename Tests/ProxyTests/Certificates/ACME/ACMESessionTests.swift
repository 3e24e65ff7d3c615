import Crypto
import FoundationEssentials
import Inet
import Proxy
import Testing

@Suite struct ACMESessionTests {
    private let now = ACMEMoment(instant: Instant(nanoseconds: 0), date: testNow)

    /// Follows one request to its end; nothing is waited for.
    private func run(_ session: inout ACMESession, _ intent: ACMESession.Intent, _ stage: ACMEStage, _ ca: inout FakeCA) throws
        -> ACMESession.Progress
    {
        var progress = session.begin(intent, stage: stage, now: now)
        while case .send(let request) = progress {
            let response = try #require(try ca.answer(request, now: testNow))
            progress = session.receive(response, now: now)
        }
        #expect(ca.faults == [])
        return progress
    }

    @Test("a key change is signed by both keys, and the new one is used from then on")
    func keyChange() throws {
        var (session, ca) = (ACMESession(directory: try FakeCA.directoryURL(), key: ACMEKey()), FakeCA())
        ca.nonceRejection = 0.5
        let new = ACMEKey()
        guard case .answered = try run(&session, .keyChange(new), .keyChange, &ca) else { throw FixtureError(text: "key change") }
        #expect(session.key.thumbprint == new.thumbprint)
        guard case .answered = try run(&session, .account(), .account, &ca) else { throw FixtureError(text: "account") }
        #expect(ca.lastPayload == "")
    }

    @Test("a certificate is revoked by its account, or by its own key, which needs none")
    func revocation() throws {
        var (session, ca) = (ACMESession(directory: try FakeCA.directoryURL(), key: ACMEKey()), FakeCA())
        guard case .answered = try run(&session, .revoke(certificate: [1, 2, 3], reason: 4, key: ACMEKey()), .revocation, &ca) else {
            throw FixtureError(text: "by key")
        }
        #expect(ca.lastPayload == #"{"certificate":"AQID","reason":4}"# && ca.accounts.isEmpty)
        guard case .answered = try run(&session, .revoke(certificate: [1, 2, 3], reason: nil, key: nil), .revocation, &ca) else {
            throw FixtureError(text: "by account")
        }
        #expect(ca.lastPayload == #"{"certificate":"AQID"}"# && ca.accounts.count == 1)
    }

    @Test("a CA without revokeCert and keyChange, and a deactivated account, are failures with a reason")
    func missing() throws {
        let directory = #"{"newNonce":"https://ca.test/nonce","newAccount":"https://ca.test/account","newOrder":"https://ca.test/o"}"#
        for intent in [ACMESession.Intent.keyChange(ACMEKey()), .revoke(certificate: [1], reason: nil, key: nil)] {
            var (session, ca) = (ACMESession(directory: try FakeCA.directoryURL(), key: ACMEKey()), FakeCA())
            ca.interventions = [("dir", ACMEResponse(status: 200, body: Array(directory.utf8)))]
            guard case .failed(let failure) = try run(&session, intent, .revocation, &ca) else { throw FixtureError(text: "no failure") }
            #expect(failure.reason.hasPrefix("this CA has no "))
        }
        var (session, ca) = (ACMESession(directory: try FakeCA.directoryURL(), key: ACMEKey()), FakeCA())
        ca.interventions = [("account", ACMEResponse(status: 200, body: Array(#"{"status":"deactivated"}"#.utf8)))]
        guard case .failed(let failure) = try run(&session, .account(), .account, &ca) else { throw FixtureError(text: "no failure") }
        #expect(failure == ACMEFailure(.account, .refused, "the account is deactivated"))
    }

    @Test("nonces that no header can carry are ignored")
    func nonces() throws {
        for bad in ["", "a b", "a\"b", "a=", String(repeating: "a", count: 513)] {
            var (session, ca) = (ACMESession(directory: try FakeCA.directoryURL(), key: ACMEKey()), FakeCA())
            ca.interventions = [("nonce", ACMEResponse(status: 200, fields: [.init("Replay-Nonce", bad)]))]
            guard case .failed(let failure) = try run(&session, .account(), .account, &ca) else { throw FixtureError(text: "no failure") }
            #expect(failure == ACMEFailure(.nonce, .refused, "newNonce gave no usable Replay-Nonce"))
        }
    }
}
