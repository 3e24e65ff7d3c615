import NIOCore

/// Tells a server of the operator's what to change: `POST {"action":"present"|"cleanup","name":"_acme-challenge.example.com.",
/// "value":"..."}`. Any 2xx says that it is done; both actions may come more than once.
package struct WebhookProvider: DNSProvider {
    package let label = "webhook"
    private let url: ACMEURL
    private let token: Secret?
    private let client: APIClient

    /// - Parameter token: sent as a bearer token.
    package init(url: ACMEURL, token: Secret?, group: any EventLoopGroup) {
        self.url = url
        self.token = token
        // Servers repeat in their errors where the request went.
        client = APIClient(group: group, secrets: [Secret(url.pathAndQuery), Secret(url.path)] + (token.map { [$0] } ?? []))
    }

    package func add(_ record: TXTRecord) async throws { try await tell("present", record) }
    package func remove(_ record: TXTRecord) async throws { try await tell("cleanup", record) }

    private func tell(_ action: String, _ record: TXTRecord) async throws(DNSFault) {
        let body = #"{"action":"\#(action)","name":\#(JWS.quoted(record.name + ".")),"value":\#(JWS.quoted(record.value))}"#
        var fields = [(name: "Content-Type", value: "application/json")]
        if let token { fields.append((name: "Authorization", value: "Bearer " + token.reveal())) }
        let request = APIClient.Request(.POST, url, fields: fields, body: Array(body.utf8))
        let response: APIClient.Response
        do throws(DNSFault) {
            response = try await client.send({ () throws(DNSFault) in request }, retries: { $0.status == 429 || $0.status == 503 })
        } catch {
            throw DNSFault("webhook: \(error.reason)")
        }
        guard response.isSuccess else {
            let hint = (300..<400).contains(response.status) ? "; redirects are not followed: give the final URL" : ""
            throw DNSFault("webhook: \(APIClient.place(request)): \(response.status): \(client.quote(response.body))\(hint)")
        }
    }
}
