import FoundationEssentials
import Inet

/// One HTTP request to a CA, as data.
package struct ACMERequest: Equatable, Sendable {
    package enum Method: String, Sendable {
        case get = "GET"
        case head = "HEAD"
        case post = "POST"
    }
    package var method: Method
    package var url: ACMEURL
    /// The `Accept` field.
    package var accept: String
    /// Sent as `application/jose+json` (RFC 8555 §6.2); empty unless it is a POST.
    package var body: [UInt8]

    package init(method: Method, url: ACMEURL, accept: String = "application/json", body: [UInt8] = []) {
        self.method = method
        self.url = url
        self.accept = accept
        self.body = body
    }

    package static let contentType = "application/jose+json"
    package static let chainType = "application/pem-certificate-chain"
}

/// What came back. Whoever reads it follows no redirect and refuses bodies over `maximumBody`.
package struct ACMEResponse: Equatable, Sendable {
    package var status: Int
    package var fields: [Field]
    package var body: [UInt8]

    package struct Field: Equatable, Sendable {
        package var name: String
        package var value: String
        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    package init(status: Int, fields: [Field] = [], body: [UInt8] = []) {
        self.status = status
        self.fields = fields
        self.body = body
    }

    package var isSuccess: Bool { (200..<300).contains(status) }

    /// The first field of this name.
    package func field(_ name: String) -> String? { fields.first { $0.name.lowercased() == name.lowercased() }?.value }

    /// Targets of links with this relation, as written: `<...>;rel="alternate"` (RFC 8288 §3, as much of it as CAs use).
    package func links(_ relation: String) -> [String] {
        var targets: [String] = []
        for field in fields where field.name.lowercased() == "link" {
            var rest = field.value[...]
            while let open = rest.firstIndex(of: "<"), let close = rest[open...].firstIndex(of: ">") {
                let after = rest[close...].dropFirst()
                // The parameters end where the next link begins; no URL and no relation has a `<`.
                let parameters = after.prefix { $0 != "<" }
                let isWanted = parameters.split(whereSeparator: { $0 == ";" || $0 == "," }).contains {
                    let pair = $0.split(separator: "=", maxSplits: 1).map {
                        $0.filter { $0 != " " && $0 != "\t" && $0 != "\"" }.lowercased()
                    }
                    return pair.count == 2 && pair[0] == "rel" && pair[1] == relation
                }
                if isWanted { targets.append(String(rest[open..<close].dropFirst())) }
                rest = after.dropFirst(parameters.count)
            }
        }
        return targets
    }

    package static let maximumBody = ACMEJSON.maximumBody
}

/// One reading of both clocks: deadlines are kept on the one that never jumps, dates of a CA are compared with the other.
package struct ACMEMoment: Equatable, Sendable {
    package var instant: Instant
    package var date: Date

    package init(instant: Instant, date: Date) {
        self.instant = instant
        self.date = date
    }

    /// When to ask again: what `Retry-After` says if it is there, between a second and a minute from now.
    ///
    /// Source: RFC 8555 §7.5.1, with bounds of our own.
    func pollTime(_ response: ACMEResponse, attempt: Int) -> Instant {
        let asked = ACMEDates.retryAfter(response.field("Retry-After"), now: date).map { $0.timeIntervalSince(date) }
        let seconds = asked ?? Double(min(1 << min(attempt, 4), 15))
        return instant + .milliseconds(Int64(min(max(seconds, 1), 60) * 1_000))
    }
}
