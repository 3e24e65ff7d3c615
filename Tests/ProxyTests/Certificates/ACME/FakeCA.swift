import Crypto
import FoundationEssentials
import Inet
import Proxy
import SwiftASN1
import X509

/// A certificate authority that looks at every request as a strict one does, and misbehaves as it is told to.
struct FakeCA {
    // What it does.
    var nonceRejection = 0.0
    var offered = ["http-01", "tls-alpn-01", "dns-01"]
    /// What a challenge of dns-persist-01 has beside its type.
    var persistMembers = #""issuer-domain-names":["CA.test","ca2.test."]"#
    var failingTypes: Set<String> = []
    var validNames: Set<String> = []
    /// Answers "pending" or "processing" so often before there is a decision.
    var pendingPolls = 0
    var processingPolls = 0
    var retryAfter: String?
    var isReadyAtOnce = false
    var omitsLocation = false
    var externalKeyID: String?
    var renewalInfo = true
    var alreadyReplaced: Set<String> = []
    var profiles: [String]?
    /// Answers these instead, each once, in order: the path's first component and the answer.
    var interventions: [(String, ACMEResponse?)] = []
    var issuesFor: P256.Signing.PublicKey?
    var namesIssued: [String]?
    var validity: (TimeInterval, TimeInterval) = (-3_600, 90 * 86_400)

    // What it saw.
    private(set) var log: [String] = []
    private(set) var faults: [String] = []
    private(set) var orderPayloads: [String] = []
    private(set) var answered: [String: Int] = [:]
    private(set) var accounts: [String: String] = [:]
    private(set) var lastPayload = ""
    var presented: [ACMEChallenge] = []

    private var nonces: Set<String> = []
    private var counter = 0
    private var random = TestRandom(state: 7)
    private var orders: [Order] = []
    private var roots: [(name: String, key: P256.Signing.PrivateKey)] = []

    private struct Order {
        var names: [String]
        var status: String
        var authorizations: [Authorization]
        var processingLeft: Int
        var chains: [String] = []
    }
    private struct Authorization {
        var name: String
        var status: String
        var pollsLeft: Int
        var challenge: (type: String, error: String)?
    }

    static let base = "https://ca.test"
    static func directoryURL() throws -> ACMEURL { try ACMEURL(base + "/dir") }

    init() { roots = ["Root X", "Root Y", "Root Z"].map { ($0, P256.Signing.PrivateKey()) } }

    mutating func forgetAccounts() { accounts = [:] }

    /// Nil: the connection is lost.
    mutating func answer(_ request: ACMERequest, now: Date) throws -> ACMEResponse? {
        let path = String(request.url.text.dropFirst(Self.base.count + 1))
        let parts = path.split(separator: "/").map(String.init)
        log.append(path)
        if let index = interventions.firstIndex(where: { $0.0 == parts[0] }) { return interventions.remove(at: index).1 }
        switch (request.method, parts[0]) {
        case (.get, "dir"): return ACMEResponse(status: 200, body: Array(directory.utf8))
        case (.head, "nonce"): return reply(200, "")
        case (.post, _): return try post(request, parts, now: now)
        default: return problem("malformed", 405)
        }
    }

    private var directory: String {
        var text = #"{"newNonce":"\#(Self.base)/nonce","newAccount":"\#(Self.base)/account","newOrder":"\#(Self.base)/new-order","#
        text += #""revokeCert":"\#(Self.base)/revoke","keyChange":"\#(Self.base)/key-change","#
        if renewalInfo { text += #""renewalInfo":"\#(Self.base)/ari","# }
        let profiles = profiles.map { #","profiles":{"# + $0.map { #""\#($0)":"x""# }.joined(separator: ",") + "}" } ?? ""
        return text + #""meta":{"externalAccountRequired":\#(externalKeyID != nil)\#(profiles)}}"#
    }

    private struct Header: Decodable {
        struct Key: Codable { var crv, kty, x, y: String }
        var alg: String
        var url: String
        var nonce: String?
        var kid: String?
        var jwk: Key?
    }

    private mutating func post(_ request: ACMERequest, _ parts: [String], now: Date) throws -> ACMEResponse {
        let jws = try FlattenedJWS(request.body)
        let header = try JSONDecoder().decode(Header.self, from: Data(jws.header.utf8))
        if header.alg != "ES256" || header.url != request.url.text { faults.append("alg or url: \(jws.header)") }
        guard let nonce = header.nonce, nonces.remove(nonce) != nil else {
            faults.append("an unknown nonce")
            return problem("badNonce", 400)
        }
        if Double.random(in: 0..<1, using: &random) < nonceRejection { return problem("badNonce", 400) }
        lastPayload = jws.content
        let jwk: String
        if parts[0] == "account" && parts.count == 1 || header.jwk != nil {
            guard let key = header.jwk, header.kid == nil else { return fault("no jwk") }
            jwk = #"{"crv":"\#(key.crv)","kty":"\#(key.kty)","x":"\#(key.x)","y":"\#(key.y)"}"#
        } else {
            guard let known = header.kid.flatMap({ accounts[$0] }) else { return problem("accountDoesNotExist", 400) }
            jwk = known
        }
        guard try Self.verifies(jws, by: jwk) else { return fault("signature") }

        switch parts[0] {
        case "account": return try account(jws, jwk, header)
        case "new-order": return newOrder(jws.content)
        case "authz": return authorization(Int(parts[1])!, Int(parts[2])!)
        case "chall": return challenge(Int(parts[1])!, Int(parts[2])!, parts[3], payload: jws.content)
        case "finalize": return try finalize(Int(parts[1])!, jws.content, now: now)
        case "order":
            let index = Int(parts[1])!
            if orders[index].status == "processing" {
                orders[index].processingLeft -= 1
                if orders[index].processingLeft < 0 { orders[index].status = "valid" }
            }
            return reply(200, orderText(index))
        case "cert":
            let links = orders[Int(parts[1])!].chains.indices.map {
                ACMEResponse.Field("Link", #"<\#(Self.base)/cert/\#(parts[1])/\#($0)>;rel="alternate""#)
            }
            if request.accept != "application/pem-certificate-chain" { return fault("accept") }
            if !jws.payload.isEmpty { return fault("POST-as-GET") }
            return reply(200, orders[Int(parts[1])!].chains[Int(parts[2])!], links)
        case "key-change":
            let inner = try FlattenedJWS(Array(jws.content.utf8))
            let innerHeader = try JSONDecoder().decode(Header.self, from: Data(inner.header.utf8))
            guard innerHeader.nonce == nil, innerHeader.url == header.url, let key = innerHeader.jwk, let kid = header.kid else {
                return fault("inner")
            }
            let new = #"{"crv":"\#(key.crv)","kty":"\#(key.kty)","x":"\#(key.x)","y":"\#(key.y)"}"#
            guard try Self.verifies(inner, by: new), inner.content == #"{"account":"\#(kid)","oldKey":\#(jwk)}"# else {
                return fault("inner")
            }
            accounts[kid] = new
            return reply(200, #"{"status":"valid"}"#)
        case "revoke": return reply(200, "")
        default: return problem("malformed", 404)
        }
    }

    private static func verifies(_ jws: FlattenedJWS, by jwk: String) throws -> Bool {
        let key = try JSONDecoder().decode(Header.Key.self, from: Data(jwk.utf8))
        let point = (Base64URL.decode(key.x) ?? []) + (Base64URL.decode(key.y) ?? [])
        let signature = try P256.Signing.ECDSASignature(rawRepresentation: Data(jws.signatureBytes))
        return try P256.Signing.PublicKey(rawRepresentation: Data(point)).isValidSignature(signature, for: Data(jws.signingInput))
    }

    private mutating func account(_ jws: FlattenedJWS, _ jwk: String, _ header: Header) throws -> ACMEResponse {
        if header.jwk == nil { return reply(200, #"{"status":"valid"}"#) }
        if let externalKeyID, !jws.content.contains("externalAccountBinding") {
            return problem("externalAccountRequired", 403, externalKeyID)
        }
        if let known = accounts.first(where: { $0.value == jwk }) {
            return reply(200, #"{"status":"valid"}"#, [.init("Location", known.key)])
        }
        let url = Self.base + "/account/\(counter)"
        accounts[url] = jwk
        return reply(201, #"{"status":"valid"}"#, [.init("Location", url)])
    }

    private mutating func newOrder(_ payload: String) -> ACMEResponse {
        orderPayloads.append(payload)
        if let replaced = alreadyReplaced.first(where: { payload.contains($0) }) { return problem("alreadyReplaced", 409, replaced) }
        let names = payload.split(separator: "\"").map(String.init).enumerated().filter { $0.element == "value" }
            .map { index, _ in payload.split(separator: "\"").map(String.init)[index + 2] }
        let authorizations = names.map {
            Authorization(name: $0, status: isReadyAtOnce || validNames.contains($0) ? "valid" : "pending", pollsLeft: pendingPolls)
        }
        let isReady = authorizations.allSatisfy { $0.status == "valid" }
        orders.append(
            Order(names: names, status: isReady ? "ready" : "pending", authorizations: authorizations, processingLeft: processingPolls))
        let index = orders.count - 1
        return reply(201, orderText(index), omitsLocation ? [] : [.init("Location", Self.base + "/order/\(index)")])
    }

    private func orderText(_ index: Int) -> String {
        let order = orders[index]
        let identifiers = order.names.map { #"{"type":"dns","value":"\#($0)"}"# }.joined(separator: ",")
        let authorizations = order.authorizations.indices.map { #""\#(Self.base)/authz/\#(index)/\#($0)""# }.joined(separator: ",")
        let certificate = order.status == "valid" ? #","certificate":"\#(Self.base)/cert/\#(index)/0""# : ""
        return #"{"status":"\#(order.status)","identifiers":[\#(identifiers)],"authorizations":[\#(authorizations)],"#
            + #""finalize":"\#(Self.base)/finalize/\#(index)"\#(certificate)}"#
    }

    private mutating func authorization(_ order: Int, _ index: Int) -> ACMEResponse {
        var item = orders[order].authorizations[index]
        if item.status == "pending", let challenge = item.challenge {
            item.pollsLeft -= 1
            if item.pollsLeft < 0 {
                let isThere = presented.contains { $0.name.name == item.name && $0.type.rawValue == challenge.type }
                item.status = isThere && !failingTypes.contains(challenge.type) ? "valid" : "invalid"
            }
            orders[order].authorizations[index] = item
            if item.status == "invalid" { orders[order].status = "invalid" }
            if orders[order].authorizations.allSatisfy({ $0.status == "valid" }) { orders[order].status = "ready" }
        }
        let challenges = offered.map { type in
            let isChosen = item.challenge?.type == type
            let error =
                isChosen && item.status == "invalid" ? #","error":{"type":"urn:ietf:params:acme:error:connection","detail":"refused"}"# : ""
            return
                #"{"type":"\#(type)","url":"\#(Self.base)/chall/\#(order)/\#(index)/\#(type)","status":"\#(isChosen ? item.status : "pending")","#
                + (type == "dns-persist-01" ? persistMembers : #""token":"token-of-\#(order)-\#(index)-\#(type)-abcdefgh""#) + "\(error)}"
        }
        let isWildcard = item.name.hasPrefix("*.")
        return reply(
            200,
            #"{"status":"\#(item.status)","identifier":{"type":"dns","value":"\#(isWildcard ? String(item.name.dropFirst(2)) : item.name)"},"#
                + (isWildcard ? #""wildcard":true,"# : "") + #""challenges":[\#(challenges.joined(separator: ","))]}"#)
    }

    private mutating func challenge(_ order: Int, _ index: Int, _ type: String, payload: String) -> ACMEResponse {
        answered["\(order)/\(index)/\(type)", default: 0] += 1
        if payload != "{}" { return fault("a challenge is answered with {}") }
        orders[order].authorizations[index].challenge = (type, "")
        return reply(
            200, #"{"type":"\#(type)","url":"\#(Self.base)/chall/\#(order)/\#(index)/\#(type)","status":"processing","token":"x"}"#)
    }

    private mutating func finalize(_ index: Int, _ payload: String, now: Date) throws -> ACMEResponse {
        guard orders[index].status == "ready" else { return problem("orderNotReady", 403) }
        guard let text = payload.split(separator: "\"").map(String.init).last(where: { $0.count > 8 }), let der = Base64URL.decode(text)
        else {
            return fault("csr")
        }
        let request = try CertificateSigningRequest(derEncoded: der)
        guard request.publicKey.isValidSignature(request.signature, for: request), request.subject.isEmpty else { return fault("csr") }
        let wanted = try request.attributes.extensionRequest?.extensions.subjectAlternativeNames ?? SubjectAlternativeNames()
        if wanted.map({ "\($0)" }).sorted() != orders[index].names.map({ "\(GeneralName.dnsName($0))" }).sorted() {
            return fault("names of the csr")
        }
        orders[index].chains = try roots.map { root in
            try issue(namesIssued ?? orders[index].names, key: issuesFor.map { .init($0) } ?? request.publicKey, root: root, now: now)
        }
        orders[index].status = "processing"
        if processingPolls == 0 { orders[index].status = "valid" }
        return reply(200, orderText(index))
    }

    private func issue(
        _ names: [String], key: Certificate.PublicKey, root: (name: String, key: P256.Signing.PrivateKey), now: Date
    ) throws -> String {
        let middle = P256.Signing.PrivateKey()
        let middleName = try DistinguishedName { CommonName("Intermediate") }
        let rootName = try DistinguishedName { CommonName(root.name) }
        func make(
            _ key: Certificate.PublicKey, _ subject: DistinguishedName, _ issuer: DistinguishedName, _ by: P256.Signing.PrivateKey,
            _ extensions: Certificate.Extensions
        ) throws -> String {
            try Certificate(
                version: .v3, serialNumber: .init(), publicKey: key, notValidBefore: now + validity.0, notValidAfter: now + validity.1,
                issuer: issuer, subject: subject, extensions: extensions, issuerPrivateKey: .init(by)
            ).serializeAsPEM().pemString + "\n"
        }
        return try make(
            key, DistinguishedName(), middleName, middle,
            .init {
                Critical(SubjectAlternativeNames(names.map { .dnsName($0) }))
                AuthorityKeyIdentifier(keyIdentifier: SubjectKeyIdentifier(hash: .init(middle.publicKey)).keyIdentifier)
            })
            + make(
                .init(middle.publicKey), middleName, rootName, root.key,
                .init { Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0)) })
    }

    private mutating func reply(_ status: Int, _ body: String, _ fields: [ACMEResponse.Field] = []) -> ACMEResponse {
        counter += 1
        nonces.insert("nonce-\(counter)")
        var fields = fields + [.init("replay-nonce", "nonce-\(counter)")]
        if let retryAfter { fields.append(.init("Retry-After", retryAfter)) }
        return ACMEResponse(status: status, fields: fields, body: Array(body.utf8))
    }

    private mutating func problem(_ type: String, _ status: Int, _ detail: String = "") -> ACMEResponse {
        reply(status, #"{"type":"urn:ietf:params:acme:error:\#(type)","detail":"\#(detail)"}"#)
    }

    private mutating func fault(_ text: String) -> ACMEResponse {
        faults.append(text)
        return problem("malformed", 400, text)
    }
}
