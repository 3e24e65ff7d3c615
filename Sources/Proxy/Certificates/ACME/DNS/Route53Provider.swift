import FoundationEssentials
import NIOCore
import NIOHTTP1

/// Records of a zone at Amazon Route 53. Permissions: route53:ListHostedZonesByName, route53:ListResourceRecordSets,
/// route53:ChangeResourceRecordSets, route53:GetChange.
///
/// Values at one name are one record set there: it is read, changed and written back as a whole. Of two writers of the same name
/// at the same time one would lose its value: within this program the name is locked, and what was added is looked for once it is
/// everywhere, and added again.
///
/// Source: Amazon Route 53 API 2013-04-01.
package struct Route53Provider: DNSProvider {
    package let label = "route53"
    private let signer: SigV4
    private let hostedZone: String?
    private let endpoint: ACMEURL
    private let group: any EventLoopGroup
    private let client: APIClient

    /// - Parameter hostedZone: its identifier; without one the zone is looked up by name.
    package init(signer: SigV4, hostedZone: String?, endpoint: ACMEURL, group: any EventLoopGroup) {
        self.signer = signer
        self.hostedZone = hostedZone
        self.endpoint = endpoint
        self.group = group
        client = APIClient(group: group, secrets: [signer.secretAccessKey] + (signer.sessionToken.map { [$0] } ?? []))
    }

    package func add(_ record: TXTRecord) async throws {
        try await change(record) { set in
            if set.values.contains(record.quoted) { return nil }
            return ("UPSERT", RecordSet(timeToLive: set.timeToLive, values: set.values + [record.quoted]))
        }
    }

    package func remove(_ record: TXTRecord) async throws {
        try await change(record, waits: false) { set in
            let rest = set.values.filter { $0 != record.quoted }
            if rest.count == set.values.count { return nil }
            // A deletion names the set exactly as it is.
            return rest.isEmpty ? ("DELETE", set) : ("UPSERT", RecordSet(timeToLive: set.timeToLive, values: rest))
        }
    }

    /// Reads the record set, writes what `body` makes of it (nil: it is as it should be), and waits until all of Route 53's servers
    /// have it; then looks at it again, since another gateway may have written meanwhile. Nobody has to wait for a removal.
    private func change(
        _ record: TXTRecord, waits: Bool = true, _ body: (RecordSet) -> (action: String, set: RecordSet)?
    ) async throws(DNSFault) {
        let zone: String
        if let hostedZone { zone = hostedZone } else { zone = try await findZone(record) }
        for attempt in 1...Self.maximumAttempts {
            guard let (action, set) = body(try await recordSet(record, zone)) else { return }
            let values = set.values.map { "<ResourceRecord><Value>\(XMLElement.escape($0))</Value></ResourceRecord>" }.joined()
            let document =
                #"<?xml version="1.0" encoding="UTF-8"?><ChangeResourceRecordSetsRequest xmlns="https://route53.amazonaws.com/doc/2013-04-01/">"#
                + "<ChangeBatch><Changes><Change><Action>\(action)</Action><ResourceRecordSet><Name>\(XMLElement.escape(record.name)).</Name>"
                + "<Type>TXT</Type><TTL>\(set.timeToLive)</TTL><ResourceRecords>\(values)</ResourceRecords></ResourceRecordSet></Change>"
                + "</Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
            do throws(Refusal) {
                let answer = try await call(.POST, "hostedzone/\(zone)/rrset/", body: Array(document.utf8))
                guard waits else { return }
                try await waitUntilInSync(answer)
            } catch {
                // Somebody has changed the set meanwhile: read it again.
                guard error.code == "InvalidChangeBatch", attempt < Self.maximumAttempts else { throw error.fault }
            }
        }
        guard body(try await recordSet(record, zone)) != nil else { return }
        throw DNSFault("route53: \(record.name): others write to this record set all the time, and take away what was added")
    }

    /// The public zone with the longest name that is the record's or above it.
    private func findZone(_ record: TXTRecord) async throws(DNSFault) -> String {
        var isPrivateThere = false
        for name in record.candidateZones {
            let list = try await plain { () async throws(Refusal) in
                try await call(.GET, "hostedzonesbyname", [("dnsname", name + "."), ("maxitems", "20")])
            }
            for zone in list.first("HostedZones")?.all("HostedZone") ?? [] where zone.first("Name")?.text.lowercased() == name + "." {
                if zone.first("Config")?.first("PrivateZone")?.text == "true" {
                    isPrivateThere = true
                } else if let id = zone.first("Id")?.text.split(separator: "/").last, Self.isIdentifier(id) {
                    return String(id)
                }
            }
        }
        throw DNSFault(
            "route53: no public hosted zone for \(record.name)\(isPrivateThere ? ", only a private one" : ""): create one, or give hosted-zone-id"
        )
    }

    private func recordSet(_ record: TXTRecord, _ zone: String) async throws(DNSFault) -> RecordSet {
        let list = try await plain { () async throws(Refusal) in
            try await call(.GET, "hostedzone/\(zone)/rrset", [("name", record.name + "."), ("type", "TXT"), ("maxitems", "1")])
        }
        for set in list.first("ResourceRecordSets")?.all("ResourceRecordSet") ?? []
        where set.first("Type")?.text == "TXT" && Self.plainName(set.first("Name")?.text ?? "") == record.name {
            return RecordSet(
                timeToLive: UInt32(set.first("TTL")?.text ?? "") ?? TXTRecord.timeToLive,
                values: set.first("ResourceRecords")?.all("ResourceRecord").compactMap { $0.first("Value")?.text } ?? [])
        }
        return RecordSet(timeToLive: TXTRecord.timeToLive, values: [])
    }

    private func waitUntilInSync(_ answer: XMLElement) async throws(Refusal) {
        var info = answer.first("ChangeInfo")
        for _ in 0..<Self.maximumPolls {
            if info?.first("Status")?.text == "INSYNC" { return }
            guard let id = info?.first("Id")?.text.split(separator: "/").last, Self.isIdentifier(id) else {
                throw Refusal(fault: DNSFault("route53: the answer to a change has no identifier"))
            }
            do { try await DNSTimer.wait(Self.pollInterval, on: group) } catch { throw Refusal(fault: error) }
            info = try await call(.GET, "change/\(id)").first("ChangeInfo")
        }
        throw Refusal(fault: DNSFault("route53: the change is not INSYNC after \(Self.pollInterval * Self.maximumPolls)"))
    }

    private func plain(_ body: () async throws(Refusal) -> XMLElement) async throws(DNSFault) -> XMLElement {
        do { return try await body() } catch { throw error.fault }
    }

    private func call(
        _ method: HTTPMethod, _ path: String, _ query: [(name: String, value: String)] = [], body: [UInt8] = []
    ) async throws(Refusal) -> XMLElement {
        let response: APIClient.Response
        let place = "route53: \(method.rawValue) \(path)"
        do throws(DNSFault) {
            response = try await client.send(
                { () throws(DNSFault) in try request(method, path, query, body) }, retries: { Self.isTemporary($0) })
        } catch {
            throw Refusal(fault: DNSFault("route53: \(error.reason)"))
        }
        let document = XMLElement.read(response.body)
        guard response.isSuccess else {
            guard let error = document?.name == "Error" ? document : document?.descendant("Error") ?? document,
                let code = error.first("Code")?.text ?? (error.name == "InvalidChangeBatch" ? error.name : nil)
            else { throw Refusal(fault: DNSFault("\(place): \(response.status): \(client.quote(response.body))")) }
            let message = error.first("Message")?.text ?? error.descendant("Message")?.text ?? ""
            let text = client.redact("\(code): \(message)")
            throw Refusal(fault: DNSFault("\(place): \(response.status) \(text)\(Self.hint(code))"), code: code)
        }
        guard let document else {
            throw Refusal(fault: DNSFault("\(place): not an answer of Route 53: \(client.quote(response.body))"))
        }
        return document
    }

    /// Signed anew at each attempt: a signature is good for minutes only.
    private func request(
        _ method: HTTPMethod, _ path: String, _ query: [(name: String, value: String)], _ body: [UInt8]
    ) throws(DNSFault) -> APIClient.Request {
        let text = query.map { "\(SigV4.encode($0.name))=\(SigV4.encode($0.value))" }.joined(separator: "&")
        let url = try CloudflareProvider.url(endpoint, "2013-04-01/\(path)\(text.isEmpty ? "" : "?" + text)")
        let authority = url.text.split(separator: "/", omittingEmptySubsequences: false).dropFirst(2).first.map(String.init) ?? ""
        let whole = url.text.split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false).last ?? ""
        let unsigned = SigV4.Request(
            method: method.rawValue, path: "/" + whole.prefix { $0 != "?" }, query: query, fields: [(name: "Host", value: authority)],
            body: body)
        var fields = signer.sign(unsigned, at: Date())
        if !body.isEmpty { fields.append((name: "Content-Type", value: "application/xml")) }
        return APIClient.Request(method, url, fields: fields, body: body)
    }

    private static func isTemporary(_ response: APIClient.Response) -> Bool {
        guard !response.isSuccess else { return false }
        let code = XMLElement.read(response.body).flatMap { ($0.name == "Error" ? $0 : $0.descendant("Error") ?? $0).first("Code")?.text }
        return response.status == 429 || response.status >= 500 || temporaryErrors.contains(code ?? "")
    }

    private static func hint(_ code: String) -> String {
        switch code {
        case "AccessDenied", "AccessDeniedException": "; the key lacks a permission of route53"
        case "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "ExpiredToken", "InvalidSignatureException":
            "; check access-key-id and the secret key (a temporary one needs its session token), and the clock"
        case "NoSuchHostedZone": "; check hosted-zone-id"
        default: ""
        }
    }

    /// Route 53 writes odd characters as `\052`; none of them is in the names that are written here.
    private static func plainName(_ name: String) -> String {
        (name.hasSuffix(".") ? String(name.dropLast()) : name).lowercased()
    }

    private static func isIdentifier(_ text: some StringProtocol) -> Bool {
        (1...64).contains(text.utf8.count) && Base64URL.isAlphabetic(text)
    }

    private struct RecordSet {
        var timeToLive: UInt32
        /// As they are written: in quotes.
        var values: [String]
    }

    private struct Refusal: Error {
        var fault: DNSFault
        var code = ""
    }

    package static let defaultEndpoint = "https://route53.amazonaws.com"
    private static let temporaryErrors: Set<String> = [
        "Throttling", "ThrottlingException", "PriorRequestNotComplete", "ServiceUnavailable",
    ]
    private static let maximumAttempts = 4
    private static let pollInterval = Duration.seconds(4)
    /// Usually a change takes a minute.
    private static let maximumPolls = 45
}

extension TXTRecord {
    fileprivate var quoted: String { "\"\(value)\"" }
}
