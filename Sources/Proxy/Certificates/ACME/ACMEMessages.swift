import FoundationEssentials

/// What a CA offers and where.
///
/// Source: RFC 8555 §7.1.1, RFC 9773 §4.1.
package struct ACMEDirectory: Decodable, Equatable, Sendable {
    package var newNonce: ACMEURL
    package var newAccount: ACMEURL
    package var newOrder: ACMEURL
    package var revokeCert: ACMEURL?
    package var keyChange: ACMEURL?
    package var renewalInfo: ACMEURL?
    package var meta: Meta?

    package struct Meta: Decodable, Equatable, Sendable {
        package var termsOfService: String?
        package var externalAccountRequired: Bool?
        package var caaIdentities: [String]?
        /// Name and description of each kind of certificate that may be ordered.
        package var profiles: [String: String]?
    }

    package static func read(_ body: [UInt8]) throws(ACMEFault) -> ACMEDirectory {
        let directory: ACMEDirectory = try ACMEJSON.read(body)
        guard directory.meta?.profiles?.count ?? 0 <= ACMEJSON.maximumItems,
            directory.meta?.caaIdentities?.count ?? 0 <= ACMEJSON.maximumItems
        else { throw ACMEJSON.tooMany("profiles or caaIdentities") }
        return directory
    }
}

/// Source: RFC 8555 §7.1.2.
package struct ACMEAccount: Decodable, Equatable, Sendable {
    package enum Status: String, Decodable, Sendable { case valid, deactivated, revoked }
    package var status: Status
    package var contact: [String]?

    package static func read(_ body: [UInt8]) throws(ACMEFault) -> ACMEAccount { try ACMEJSON.read(body) }
}

/// A name as a CA writes it. Only `dns` is ordered here.
///
/// Source: RFC 8555 §9.7.7.
package struct ACMEIdentifier: Codable, Hashable, Sendable {
    package var type: String
    package var value: String
}

/// Source: RFC 8555 §7.1.3.
package struct ACMEOrderObject: Decodable, Equatable, Sendable {
    package enum Status: String, Decodable, Sendable { case pending, ready, processing, valid, invalid }
    package var status: Status
    package var identifiers: [ACMEIdentifier]
    package var authorizations: [ACMEURL]
    package var finalize: ACMEURL
    package var certificate: ACMEURL?
    package var error: ACMEProblem?

    package static func read(_ body: [UInt8]) throws(ACMEFault) -> ACMEOrderObject {
        let order: ACMEOrderObject = try ACMEJSON.read(body)
        guard order.identifiers.count <= ACMEJSON.maximumItems, order.authorizations.count <= ACMEJSON.maximumItems else {
            throw ACMEJSON.tooMany("identifiers or authorizations")
        }
        return order
    }
}

/// Source: RFC 8555 §7.1.4.
package struct ACMEAuthorization: Decodable, Equatable, Sendable {
    package enum Status: String, Decodable, Sendable { case pending, valid, invalid, deactivated, expired, revoked }
    package var identifier: ACMEIdentifier
    package var status: Status
    package var challenges: [ACMEChallengeObject]
    package var wildcard: Bool?

    /// The name as it was ordered.
    package var name: String { wildcard == true ? "*." + identifier.value : identifier.value }

    package static func read(_ body: [UInt8]) throws(ACMEFault) -> ACMEAuthorization {
        let authorization: ACMEAuthorization = try ACMEJSON.read(body)
        guard authorization.challenges.count <= ACMEJSON.maximumItems else { throw ACMEJSON.tooMany("challenges") }
        return authorization
    }
}

/// Source: RFC 8555 §7.1.5 and §8. Other types than ours may lack a token and are skipped.
package struct ACMEChallengeObject: Decodable, Equatable, Sendable {
    package enum Status: String, Decodable, Sendable { case pending, processing, valid, invalid }
    package var type: String
    package var url: ACMEURL
    package var status: Status
    package var token: String?
    package var error: ACMEProblem?
    /// Of dns-persist-01 (draft-ietf-acme-dns-persist): the names by which the CA may be called in the record.
    package var issuerDomainNames: [String]?
    /// Of dns-persist-01, in some drafts: the account that is to be in the record.
    package var accountURI: String?

    private enum CodingKeys: String, CodingKey {
        case type, url, status, token, error
        case issuerDomainNames = "issuer-domain-names"
        case accountURI = "accounturi"
    }

    package static func read(_ body: [UInt8]) throws(ACMEFault) -> ACMEChallengeObject { try ACMEJSON.read(body) }

    /// The names in their one form if all of them are such; the draft has 1 to 10 of them.
    var usableIssuers: [String]? {
        guard let names = issuerDomainNames, (1...10).contains(names.count) else { return nil }
        let hosts = names.compactMap { DomainPattern.normalizedHost($0) }
        return hosts.count == names.count ? hosts : nil
    }

    /// The token if it is one: it becomes a file name and part of a path. RFC 8555 §8.3: base64url, 128 bits of entropy at least.
    package var usableToken: String? {
        token.flatMap { (22...128).contains($0.utf8.count) && Base64URL.isAlphabetic($0) ? $0 : nil }
    }
}

/// When the CA wants a certificate renewed.
///
/// Source: RFC 9773 §4.2.
package struct ACMERenewalInfo: Equatable, Sendable {
    package var start: Date
    package var end: Date
    /// For the operator: why.
    package var explanation: String?

    package init(start: Date, end: Date, explanation: String? = nil) {
        self.start = start
        self.end = end
        self.explanation = explanation
    }

    private struct Body: Decodable {
        struct Window: Decodable {
            var start: String
            var end: String
        }
        var suggestedWindow: Window
        var explanationURL: String?
    }

    /// A window that ends before it starts is refused, as the section asks.
    package static func read(_ body: [UInt8]) throws(ACMEFault) -> ACMERenewalInfo {
        let read: Body = try ACMEJSON.read(body)
        guard let start = ACMEDates.parseTimestamp(read.suggestedWindow.start), let end = ACMEDates.parseTimestamp(read.suggestedWindow.end)
        else { throw ACMEFault("suggestedWindow has no timestamps") }
        guard start < end else { throw ACMEFault("suggestedWindow ends before it starts") }
        return ACMERenewalInfo(start: start, end: end, explanation: read.explanationURL.map { LogText.escape($0, limit: ACMEFault.limit) })
    }
}

/// Reads one message. Members that are not known are ignored (RFC 8555 §7.1).
enum ACMEJSON {
    static func read<Message: Decodable>(_ body: [UInt8]) throws(ACMEFault) -> Message {
        guard body.count <= maximumBody else { throw ACMEFault("longer than \(maximumBody) bytes") }
        do {
            return try JSONDecoder().decode(Message.self, from: Data(body))
        } catch let fault as ACMEFault {
            throw fault
        } catch let error as DecodingError {
            throw ACMEFault(reason(error))
        } catch {
            throw ACMEFault("not JSON: \(error)")
        }
    }

    static func tooMany(_ what: String) -> ACMEFault { ACMEFault("more than \(maximumItems) \(what)") }

    private static func reason(_ error: DecodingError) -> String {
        func path(_ context: DecodingError.Context, _ key: (any CodingKey)? = nil) -> String {
            let path = (context.codingPath + (key.map { [$0] } ?? [])).map(\.stringValue).joined(separator: ".")
            return path.isEmpty ? "the document" : path
        }
        switch error {
        case .keyNotFound(let key, let context): return "\(path(context, key)) is missing"
        case .typeMismatch(_, let context): return "\(path(context)) has another type"
        case .valueNotFound(_, let context): return "\(path(context)) is null"
        case .dataCorrupted(let context):
            return context.codingPath.isEmpty ? "not JSON" : "\(path(context)): \(context.debugDescription)"
        @unknown default: return "not understood"
        }
    }

    /// 256 KiB: no answer of a CA is longer, a chain included. The one who reads from the network stops there.
    static let maximumBody = 256 * 1_024
    /// Names of an order, its authorizations, challenges, profiles: CAs allow 100 names at most.
    static let maximumItems = 128
}
