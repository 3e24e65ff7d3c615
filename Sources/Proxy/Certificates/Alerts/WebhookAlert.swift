import AsyncHTTPClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import NIOSSL

/// Sends an alert as one POST: the JSON of ``AlertNotice``, or what Slack's incoming webhooks take. No redirect is followed, and the
/// body of the answer is not read.
///
/// Source: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, docs.slack.dev/messaging/formatting-message-text.
package struct WebhookAlert: AlertChannel {
    private let settings: AlertSettings.Webhook
    private let http: HTTPClient
    private let userAgent: String
    private let limit: TimeAmount

    package init(
        _ settings: AlertSettings.Webhook, userAgent: String = "kakuremichi", group: any EventLoopGroup, limit: TimeAmount = Self.limit
    ) {
        self.settings = settings
        self.userAgent = userAgent
        self.limit = limit
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        var configuration = HTTPClient.Configuration(
            tlsConfiguration: tls, redirectConfiguration: .disallow, timeout: .init(connect: limit, read: limit))
        configuration.connectionPool.idleTimeout = .seconds(5)
        http = HTTPClient(eventLoopGroupProvider: .shared(group), configuration: configuration)
    }

    package var kind: AlertChannelKind { .webhook }

    package func shutdown() async { try? await http.shutdown() }

    package func send(_ notice: AlertNotice) async -> Result<AlertReceipt, AlertFault> {
        let request: HTTPClientRequest
        do throws(AlertFault) { request = try self.request(notice) } catch { return .failure(error) }
        let status: UInt
        do {
            status = try await http.execute(request, timeout: limit).status.code
        } catch {
            return .failure(AlertFault("\(settings.url.host): \(settings.url.hidingPath(in: "\(error)"))"))
        }
        if (200...299).contains(status) { return .success(AlertReceipt()) }
        let advice = (300...399).contains(status) ? ", and redirects are not followed" : ""
        return .failure(AlertFault("\(settings.url.host) answered with status \(status)\(advice)"))
    }

    private func request(_ notice: AlertNotice) throws(AlertFault) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: settings.url.secretText)
        request.method = .POST
        request.headers.add(name: "User-Agent", value: userAgent)
        request.headers.add(name: "Content-Type", value: "application/json")
        if let file = settings.tokenFile {
            let token = try AlertSecret.read(file)
            guard token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else { throw AlertFault("\(file) holds no bearer token") }
            request.headers.add(name: "Authorization", value: "Bearer \(token)")
        }
        request.body = .bytes(ByteBuffer(bytes: body(notice)))
        return request
    }

    package func body(_ notice: AlertNotice) -> [UInt8] {
        switch settings.format {
        case .json: return notice.json
        case .slack:
            let encoder = JSONEncoder()
            encoder.outputFormatting = .withoutEscapingSlashes
            // A string: there is nothing in it that cannot be encoded.
            return (try? encoder.encode(["text": Self.slackText(notice)])).map { Array($0) } ?? []
        }
    }

    /// Slack's three control characters are escaped, so that a name is no link and calls nobody.
    package static func slackText(_ notice: AlertNotice) -> String {
        let alert = notice.alert
        var text = "[\(notice.host)] \(alert.message)"
        if let failure = alert.lastFailure { text += "\nLast failure: \(failure)" }
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }

    package static let limit = TimeAmount.seconds(15)
}
