import AsyncHTTPClient
import Crypto
import FoundationEssentials
import Inet
import Proxy
import X509

/// An order whose CA answers with the input. Answers are separated by bytes 0xFF; each is a byte for the status, a line with
/// `Location`, `Retry-After` and `Link` in one, and the body. What is left over when the order is done is not read.
struct ACMEScript {
    private let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func run() {
        parse()
        guard let directory = try? ACMEURL("https://ca.test/dir"), let name = DomainPattern("app.example.com") else { return }
        var plan = ACMEPlan(names: [name], key: .init(P256.Signing.PrivateKey()), challenges: ACMEChallengeType.allCases)
        plan.preferredIssuer = "Root"
        plan.replaces = "AQ.IQ"
        var order = ACMEOrder(plan, session: ACMESession(directory: directory, key: ACMEKey()))
        var now = ACMEMoment(instant: Instant(nanoseconds: 0), date: Date(timeIntervalSince1970: 1_800_000_000))
        var answers = bytes.split(separator: 0xFF, maxSplits: Self.maximumAnswers, omittingEmptySubsequences: false)[...]
        var action = order.start(now: now)
        var steps = 0
        while true {
            steps += 1
            precondition(steps < 5_000, "an order goes round in circles")
            switch action {
            case .send(let request):
                precondition(request.url.text.hasPrefix("http"), "a URL of nothing")
                if let answer = answers.popFirst() {
                    action = order.receive(Self.response(Array(answer), number: answers.count), now: now)
                } else {
                    action = order.receiveFailure("the end", now: now)
                }
            case .wait(let until):
                precondition(until > now.instant, "it waits for the past")
                now.date += Double((until - now.instant).inNanoseconds) / 1e9
                now.instant = until
                action = order.handleTimeout(now: now)
            case .present(let challenge):
                precondition(challenge.name == name, "a challenge for another name")
                action =
                    challenge.token.utf8.count % 2 == 0 ? order.challengeReady(now: now) : order.challengeUnavailable("no", now: now)
            case .done, .failed: return
            }
        }
    }

    /// Each parser by itself, on all of it.
    private func parse() {
        _ = try? ACMEDirectory.read(bytes)
        _ = try? ACMEAuthorization.read(bytes)
        _ = try? ACMERenewalInfo.read(bytes)
        let problem = ACMEProblem(ACMEResponse(status: 400, body: bytes))
        precondition(problem.description.unicodeScalars.allSatisfy { $0.value >= 0x20 }, "a problem that is not fit for a log")
        let text = String(decoding: bytes, as: UTF8.self)
        if let url = try? ACMEURL(text) {
            precondition(url.text.utf8.count <= ACMEURL.maximumLength)
            // The client has preconditions of its own.
            _ = try? HTTPClient.Request(url: url.text)
        }
        _ = ACMEDates.parseTimestamp(text)
        _ = ACMEDates.parseHTTP(text)
        if let decoded = Base64URL.decode(text) { precondition(Base64URL.encode(decoded) == text, "base64url that is not what it was") }
    }

    private static func response(_ bytes: [UInt8], number: Int) -> ACMEResponse {
        let line = bytes.dropFirst().prefix { $0 != 0x0A }
        let value = String(decoding: line, as: UTF8.self)
        return ACMEResponse(
            status: [200, 201, 400, 403, 429, 503, 302, 404][Int(bytes.first ?? 0) % 8],
            fields: [.init("Replay-Nonce", "n\(number)"), .init("Location", value), .init("Retry-After", value), .init("Link", value)],
            body: Array(bytes.dropFirst(line.count + 2)))
    }

    private static let maximumAnswers = 200
}
