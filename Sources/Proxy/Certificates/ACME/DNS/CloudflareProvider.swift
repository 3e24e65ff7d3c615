import FoundationEssentials
import NIOCore
import NIOHTTP1

/// Records of a zone at Cloudflare. The token needs Zone:Read and DNS:Edit for the zone.
///
/// Source: Cloudflare API v4, `zones` and `dns_records`.
package struct CloudflareProvider: DNSProvider {
    package let label = "cloudflare"
    private let token: Secret
    private let endpoint: ACMEURL
    private let client: APIClient

    package init(token: Secret, endpoint: ACMEURL, group: any EventLoopGroup) {
        self.token = token
        self.endpoint = endpoint
        client = APIClient(group: group, secrets: [token])
    }

    package func add(_ record: TXTRecord) async throws {
        let zone = try await zone(of: record)
        guard try await find(record, in: zone) == nil else { return }
        let body =
            #"{"type":"TXT","name":\#(JWS.quoted(record.name)),"content":\#(JWS.quoted("\"" + record.value + "\"")),"#
            + #""ttl":\#(TXTRecord.timeToLive)}"#
        do throws(Refusal) {
            let _: Envelope<Item> = try await call(.POST, "zones/\(zone)/dns_records", body: Array(body.utf8))
        } catch {
            // Somebody added the same between the question and now.
            if !error.codes.contains(Self.identicalRecord) { throw error.fault }
        }
    }

    package func remove(_ record: TXTRecord) async throws {
        let zone = try await zone(of: record)
        guard let id = try await find(record, in: zone) else { return }
        do throws(Refusal) {
            let _: Envelope<Item> = try await call(.DELETE, "zones/\(zone)/dns_records/\(id)")
        } catch {
            if !error.codes.contains(Self.noSuchRecord) { throw error.fault }
        }
    }

    /// The zone with the longest name that is the record's or above it.
    private func zone(of record: TXTRecord) async throws(DNSFault) -> String {
        for name in record.candidateZones {
            do throws(Refusal) {
                let zones: Envelope<[Item]> = try await call(.GET, "zones?name=\(SigV4.encode(name))")
                if let zone = zones.result?.first(where: { $0.name?.lowercased() == name }), Self.isIdentifier(zone.id) { return zone.id }
            } catch {
                throw error.fault
            }
        }
        throw DNSFault(
            "cloudflare: the token sees no zone for \(record.name): check the name, and that the token has Zone:Read and DNS:Edit for its zone",
            isZoneMissing: true)
    }

    private func find(_ record: TXTRecord, in zone: String) async throws(DNSFault) -> String? {
        do throws(Refusal) {
            let found: Envelope<[Item]> = try await call(
                .GET, "zones/\(zone)/dns_records?type=TXT&name=\(SigV4.encode(record.name))&per_page=100")
            return found.result?.first {
                $0.name?.lowercased() == record.name && ($0.content == record.value || $0.content == "\"\(record.value)\"")
                    && Self.isIdentifier($0.id)
            }?.id
        } catch {
            throw error.fault
        }
    }

    private func call<Value: Decodable>(
        _ method: HTTPMethod, _ path: String, body: [UInt8] = []
    ) async throws(Refusal) -> Envelope<Value> {
        let request: APIClient.Request
        let response: APIClient.Response
        do throws(DNSFault) {
            var fields = [(name: "Authorization", value: "Bearer " + token.reveal()), (name: "Accept", value: "application/json")]
            if !body.isEmpty { fields.append((name: "Content-Type", value: "application/json")) }
            request = APIClient.Request(method, try Self.url(endpoint, path), fields: fields, body: body)
            response = try await client.send({ () throws(DNSFault) in request }, retries: { $0.status == 429 || $0.status == 503 })
        } catch {
            throw Refusal(fault: DNSFault("cloudflare: \(error.reason)"))
        }
        let place = "cloudflare: \(method.rawValue) \(path.prefix { $0 != "?" }): \(response.status)"
        guard let read = try? JSONDecoder().decode(Envelope<Value>.self, from: Data(response.body)) else {
            throw Refusal(fault: DNSFault("\(place), not an answer of Cloudflare: \(client.quote(response.body))"))
        }
        guard response.isSuccess, read.success else {
            let errors = read.errors?.prefix(8) ?? []
            let codes = errors.flatMap { [$0.code] + ($0.error_chain?.map(\.code) ?? []) }
            var text = errors.map(\.text).joined(separator: "; ")
            if text.isEmpty { text = "no reason is given" }
            if response.status == 429 {
                text += "; the rate limit is used up\(response.retryAfter.map { ", again in \($0) s" } ?? "")"
            } else if !Self.tokenErrors.isDisjoint(with: codes) || response.status == 401 || response.status == 403 {
                text += "; check the token: it needs Zone:Read and DNS:Edit for the zone"
            }
            throw Refusal(fault: DNSFault("\(place): \(client.redact(text))"), codes: codes)
        }
        return read
    }

    static func url(_ endpoint: ACMEURL, _ path: String) throws(DNSFault) -> ACMEURL {
        let text = endpoint.text.hasSuffix("/") ? endpoint.text : endpoint.text + "/"
        do throws(ACMEFault) { return try ACMEURL(text + path) } catch { throw DNSFault(error.reason) }
    }

    /// Identifiers become part of a path.
    private static func isIdentifier(_ text: String) -> Bool { (1...64).contains(text.utf8.count) && Base64URL.isAlphabetic(text) }

    private struct Refusal: Error {
        var fault: DNSFault
        var codes: [Int] = []
    }

    private struct Envelope<Value: Decodable>: Decodable {
        var success: Bool
        var errors: [Problem]?
        var result: Value?
    }

    private struct Item: Decodable {
        var id: String
        var name: String?
        var content: String?
    }

    private struct Problem: Decodable {
        struct Cause: Decodable {
            @ExactInteger var code: Int
            var message: String?
        }
        @ExactInteger var code: Int
        var message: String?
        var error_chain: [Cause]?

        var text: String {
            let causes = (error_chain ?? []).prefix(4).map { "\($0.code) \($0.message ?? "")" }
            return "\(code) \(message ?? "")\(causes.isEmpty ? "" : " (\(causes.joined(separator: "; ")))")"
        }
    }

    package static let defaultEndpoint = "https://api.cloudflare.com/client/v4"
    private static let identicalRecord = 81_058
    private static let noSuchRecord = 81_044
    /// Invalid headers, invalid token, no permission, authentication error.
    private static let tokenErrors: Set<Int> = [6_003, 6_111, 9_106, 9_109, 10_000, 10_001]
}
