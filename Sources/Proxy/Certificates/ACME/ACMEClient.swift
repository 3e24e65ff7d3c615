import AsyncHTTPClient
import FoundationEssentials
import Inet
import NIOCore
import NIOHTTP1
import NIOSSL
import NIOWireGuard

/// Puts a challenge where the CA looks for it, and takes it away.
package protocol ACMEPresenter: Sendable {
    /// Returns when it stands, and was seen to where that can be looked at. The error's text is told to the operator.
    func present(_ challenge: ACMEChallenge) async throws
    /// Also called for what could not be presented.
    func withdraw(_ challenge: ACMEChallenge) async
}

/// Carries requests to a CA and answers back; what they mean is the session's and the order's business.
///
/// It follows no redirect, reads no more than `ACMEResponse.maximumBody`, and trusts the system's roots, or those of one file in
/// their place.
package struct ACMEClient: Sendable {
    private let http: HTTPClient
    private let loop: any EventLoop
    private let userAgent: String

    /// - Parameter trustFile: roots as PEM, for a CA of one's own.
    package init(trustFile: String? = nil, userAgent: String, group: any EventLoopGroup) throws(ACMEFault) {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        if let trustFile {
            do {
                tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(trustFile))
            } catch {
                throw ACMEFault("\(trustFile): no PEM certificates: \(error)")
            }
        }
        var configuration = HTTPClient.Configuration(
            tlsConfiguration: tls, redirectConfiguration: .disallow, timeout: .init(connect: Self.connectLimit, read: Self.readLimit))
        configuration.connectionPool.idleTimeout = .seconds(30)
        // The session tries again by itself.
        configuration.connectionPool.retryConnectionEstablishment = false
        http = HTTPClient(eventLoopGroupProvider: .shared(group), configuration: configuration)
        loop = group.next()
        self.userAgent = userAgent
    }

    /// Before the last reference goes.
    package func shutdown() async { try? await http.shutdown() }

    /// From the order's start to its end. What was presented is withdrawn whichever way it ends. `order.session` is what the
    /// next one begins with, `order.failedValidations` what counts against the names.
    package func issue(_ order: inout ACMEOrder, presenter: some ACMEPresenter) async -> Result<ACMECertificate, ACMEFailure> {
        var presented: [ACMEChallenge] = []
        let result = await follow(&order, presenter: presenter, presented: &presented)
        if case .failure = result, Task.isCancelled { order.abandon() }
        // Also of an order that was cancelled: nothing stays behind.
        let done = presented
        let withdrawal = Task { for challenge in done { await presenter.withdraw(challenge) } }
        // A slow provider of zones does not hold up the certificate: it goes on by itself.
        try? await TimeLimit.wait(for: withdrawal, atMost: Self.withdrawLimit, on: loop)
        return result
    }

    /// One request by itself: a key change, a revocation, the account, renewal information.
    package func perform(
        _ intent: ACMESession.Intent, stage: ACMEStage, session: inout ACMESession
    ) async -> Result<ACMEResponse, ACMEFailure> {
        var progress = session.begin(intent, stage: stage, now: Self.now)
        while true {
            switch progress {
            case .send where Task.isCancelled, .wait where Task.isCancelled:
                return .failure(ACMEFailure(stage, .unavailable, "it was cancelled"))
            case .send(let request):
                switch await Self.outcome({ try await send(request) }) {
                case .success(let response): progress = session.receive(response, now: Self.now)
                case .failure(let fault): progress = session.receiveFailure(fault.reason, now: Self.now)
                }
            case .wait(let until):
                await wait(until: until)
                progress = session.handleTimeout(now: Self.now)
            case .answered(let response): return .success(response)
            case .failed(let failure): return .failure(failure)
            }
        }
    }

    /// One request to one answer, whatever its status. Throws if there is none, or one that is too long.
    package func send(_ request: ACMERequest) async throws -> ACMEResponse {
        var message = HTTPClientRequest(url: request.url.text)
        message.method = HTTPMethod(rawValue: request.method.rawValue)
        message.headers.add(name: "User-Agent", value: userAgent)
        message.headers.add(name: "Accept", value: request.accept)
        if request.method == .post {
            message.headers.add(name: "Content-Type", value: ACMERequest.contentType)
            message.body = .bytes(ByteBuffer(bytes: request.body))
        }
        let (http, finished) = (http, message)
        return try await TimeLimit.run(Self.requestLimit, on: loop) {
            let response = try await http.execute(finished, timeout: Self.requestLimit)
            let body = try await response.body.collect(upTo: ACMEResponse.maximumBody)
            return ACMEResponse(
                status: Int(response.status.code), fields: response.headers.map { ACMEResponse.Field($0.name, $0.value) },
                body: Array(body.readableBytesView))
        }
    }

    private func follow(
        _ order: inout ACMEOrder, presenter: some ACMEPresenter, presented: inout [ACMEChallenge]
    ) async -> Result<ACMECertificate, ACMEFailure> {
        var action = order.start(now: Self.now)
        while true {
            switch action {
            case .send where Task.isCancelled, .wait where Task.isCancelled:
                return .failure(ACMEFailure(.order, .unavailable, "it was cancelled"))
            case .send(let request):
                switch await Self.outcome({ try await send(request) }) {
                case .success(let response): action = order.receive(response, now: Self.now)
                case .failure(let fault): action = order.receiveFailure(fault.reason, now: Self.now)
                }
            case .wait(let until):
                await wait(until: until)
                action = order.handleTimeout(now: Self.now)
            case .present(let challenge):
                if !presented.contains(challenge) { presented.append(challenge) }
                let left = max(order.deadline - SystemEdges.now, .zero)
                let presenting = { @Sendable in try await presenter.present(challenge) }
                switch await Self.outcome({ try await TimeLimit.run(.nanoseconds(left.inNanoseconds), on: loop, presenting) }) {
                case .success: action = order.challengeReady(now: Self.now)
                case .failure(let fault): action = order.challengeUnavailable(fault.reason, now: Self.now)
                }
            case .done(let certificate): return .success(certificate)
            case .failed(let failure): return .failure(failure)
            }
        }
    }

    private static func outcome<Success>(_ body: () async throws -> Success) async -> Result<Success, ACMEFault> {
        do { return .success(try await body()) } catch { return .failure(ACMEFault("\(error)")) }
    }

    private func wait(until: Instant) async {
        let delay = max(until - SystemEdges.now, .zero)
        let timer = loop.scheduleTask(in: .nanoseconds(delay.inNanoseconds)) {}
        await withTaskCancellationHandler {
            try? await timer.futureResult.get()
        } onCancel: {
            timer.cancel()
        }
    }

    private static var now: ACMEMoment { ACMEMoment(instant: SystemEdges.now, date: Date()) }

    static let connectLimit = TimeAmount.seconds(10)
    static let readLimit = TimeAmount.seconds(20)
    static let withdrawLimit = TimeAmount.seconds(10)
    /// One request with its whole answer.
    static let requestLimit = TimeAmount.seconds(60)
}
