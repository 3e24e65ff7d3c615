import AsyncHTTPClient
import FoundationEssentials
import Inet
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOSSL
import NIOWireGuard

/// Requests to the interface of a DNS provider: https (plain http only to this machine, as `ACMEURL` has it), no redirects, bounded.
///
/// Each request has its own connection: a challenge needs a handful in months.
package struct APIClient: Sendable {
    package struct Request: Sendable {
        package var method: HTTPMethod
        package var url: ACMEURL
        package var fields: [(name: String, value: String)]
        package var body: [UInt8]

        package init(_ method: HTTPMethod, _ url: ACMEURL, fields: [(name: String, value: String)] = [], body: [UInt8] = []) {
            self.method = method
            self.url = url
            self.fields = fields
            self.body = body
        }
    }

    package struct Response: Sendable {
        package var status: Int
        package var fields: HTTPHeaders
        package var body: [UInt8]

        package var isSuccess: Bool { (200..<300).contains(status) }
        /// `Retry-After` in seconds, if it is given so.
        package var retryAfter: Int? { fields.first(name: "Retry-After").flatMap { Int($0) } }
    }

    private let group: any EventLoopGroup
    private let secrets: [Secret]
    private let limit: TimeAmount

    /// - Parameters:
    ///   - secrets: what must not be in any error.
    ///   - limit: of one request with its whole answer.
    package init(group: any EventLoopGroup, secrets: [Secret], limit: TimeAmount = Self.limit) {
        self.group = group
        self.secrets = secrets
        self.limit = limit
    }

    /// One answer, whatever its status.
    package func send(_ request: Request) async throws(DNSFault) -> Response {
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow, timeout: .init(connect: Self.connectLimit, read: limit))
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        configuration.tlsConfiguration = tls
        let http = HTTPClient(eventLoopGroupProvider: .shared(group), configuration: configuration)
        // The client's own limit ends with the head of the answer.
        let isOver = NIOLockedValueBox(false)
        let task = Task { await exchange(request, http) }
        let timer = group.any().scheduleTask(in: limit) {
            isOver.withLockedValue { $0 = true }
            task.cancel()
        }
        var result = await withTaskCancellationHandler {
            await task.value
        } onCancel: {
            task.cancel()
        }
        timer.cancel()
        if case .failure = result, isOver.withLockedValue({ $0 }) {
            result = .failure(DNSFault("\(Self.place(request)): no whole answer within \(Duration.nanoseconds(limit.nanoseconds))"))
        }
        // Nothing is under way any more.
        try? await http.shutdown()
        return try result.get()
    }

    /// The request, and again while the answer is one that `retries` names, at the pace that it wants: three times at most.
    package func send(
        _ request: () throws(DNSFault) -> Request, retries: (Response) -> Bool
    ) async throws(DNSFault) -> Response {
        var attempt = 0
        while true {
            let response = try await send(try request())
            attempt += 1
            let pause = response.retryAfter ?? 1 << attempt
            guard retries(response), attempt < Self.maximumAttempts, pause <= Self.longestPause else { return response }
            try await DNSTimer.wait(.seconds(Int64(pause)), on: group)
        }
    }

    /// `text` without the secrets.
    package func redact(_ text: String) -> String { secrets.reduce(text) { $1.redact($0) } }

    /// The beginning of a body that is not what it should be.
    package func quote(_ body: [UInt8]) -> String {
        // The whole of it: a cut through a secret would leave its beginning.
        let text = KeyFiles.trimmed(redact(String(decoding: body, as: UTF8.self)))
        return text.isEmpty ? "(empty)" : LogText.escape(text, limit: 200)
    }

    private func exchange(_ request: Request, _ http: HTTPClient) async -> Result<Response, DNSFault> {
        var message = HTTPClientRequest(url: request.url.text)
        message.method = request.method
        for field in request.fields { message.headers.add(name: field.name, value: field.value) }
        if !request.body.isEmpty { message.body = .bytes(ByteBuffer(bytes: request.body)) }
        do {
            let response = try await http.execute(message, timeout: limit)
            let body = try await response.body.collect(upTo: Self.maximumBody)
            return .success(
                Response(status: Int(response.status.code), fields: response.headers, body: Array(body.readableBytesView)))
        } catch is NIOTooManyBytesError {
            return .failure(DNSFault("\(Self.place(request)): the answer is longer than \(Self.maximumBody) bytes"))
        } catch {
            return .failure(DNSFault("\(Self.place(request)): \(request.url.hidingPath(in: redact("\(error)")))"))
        }
    }

    /// Scheme and host alone: a path may hold a secret.
    static func place(_ request: Request) -> String { "\(request.method.rawValue) \(request.url.origin)" }

    static let connectLimit = TimeAmount.seconds(10)
    /// One request with its whole answer.
    package static let limit = TimeAmount.seconds(30)
    static let maximumBody = 256 * 1_024
    static let maximumAttempts = 4
    /// Seconds. Who is told to wait longer says so instead.
    static let longestPause = 20
}

extension ACMEURL {
    /// `https://host:port`.
    var origin: Substring { text.prefix(text.count - pathAndQuery.count) }

    /// With its first `/` or `?`; empty if there is none.
    var pathAndQuery: String {
        guard let colon = text.firstIndex(of: ":") else { return "" }
        return String(text[colon...].dropFirst(3).drop { $0 != "/" && $0 != "?" })
    }

    var path: String { String(pathAndQuery.prefix { $0 != "?" }) }

    /// `description` of an error, or less if the path is in it.
    func hidingPath(in description: String) -> String {
        let path = pathAndQuery.dropFirst()
        return path.isEmpty || !description.contains(path) ? description : "the request failed"
    }
}

/// Pauses on an event loop.
enum DNSTimer {
    static func wait(_ duration: Duration, on group: any EventLoopGroup) async throws(DNSFault) {
        let timer = group.any().scheduleTask(in: .nanoseconds(duration.inNanoseconds)) {}
        await withTaskCancellationHandler {
            try? await timer.futureResult.get()
        } onCancel: {
            timer.cancel()
        }
        if Task.isCancelled { throw DNSFault("it was cancelled") }
    }
}
