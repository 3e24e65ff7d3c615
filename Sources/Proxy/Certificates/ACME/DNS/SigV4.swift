import Crypto
import FoundationEssentials

/// Signs requests to AWS.
///
/// Source: AWS Signature Version 4, "Create a signed AWS API request".
package struct SigV4: Sendable, Equatable {
    package var accessKeyID: String
    package var secretAccessKey: Secret
    /// Of temporary credentials.
    package var sessionToken: Secret?
    package var region: String
    package var service: String

    package init(accessKeyID: String, secretAccessKey: Secret, sessionToken: Secret?, region: String, service: String) {
        self.accessKeyID = accessKeyID
        self.secretAccessKey = secretAccessKey
        self.sessionToken = sessionToken
        self.region = region
        self.service = service
    }

    /// What is signed of a request.
    package struct Request: Sendable {
        package var method: String
        /// Encoded, from the root.
        package var path: String
        /// Not encoded.
        package var query: [(name: String, value: String)]
        /// `Host` and whatever else is to be signed.
        package var fields: [(name: String, value: String)]
        package var body: [UInt8]

        package init(
            method: String, path: String, query: [(name: String, value: String)] = [], fields: [(name: String, value: String)],
            body: [UInt8] = []
        ) {
            self.method = method
            self.path = path
            self.query = query
            self.fields = fields
            self.body = body
        }
    }

    /// The fields to be added: `X-Amz-Date`, `X-Amz-Security-Token` if there is one, `Authorization`.
    package func sign(_ request: Request, at date: Date) -> [(name: String, value: String)] {
        let stamp = Self.timestamp(date)
        var added = [(name: "X-Amz-Date", value: stamp)]
        if let sessionToken { added.append((name: "X-Amz-Security-Token", value: sessionToken.reveal())) }
        let fields = (request.fields + added).map { (name: $0.name.lowercased(), value: Self.collapsed($0.value)) }
            .sorted { $0.name < $1.name }
        let signed = fields.map(\.name).joined(separator: ";")
        let query = request.query.map { (name: Self.encode($0.name), value: Self.encode($0.value)) }
            .sorted { ($0.name, $0.value) < ($1.name, $1.value) }.map { "\($0.name)=\($0.value)" }.joined(separator: "&")
        let canonical = [
            request.method, request.path, query, fields.map { "\($0.name):\($0.value)\n" }.joined(), signed, Self.hash(request.body),
        ].joined(separator: "\n")

        let day = String(stamp.prefix(8))
        let scope = "\(day)/\(region)/\(service)/aws4_request"
        let text = "AWS4-HMAC-SHA256\n\(stamp)\n\(scope)\n\(Self.hash(Array(canonical.utf8)))"
        var key = SymmetricKey(data: Data(("AWS4" + secretAccessKey.reveal()).utf8))
        for part in [day, region, service, "aws4_request"] {
            key = SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Data(part.utf8), using: key))
        }
        let signature = Self.hex(HMAC<SHA256>.authenticationCode(for: Data(text.utf8), using: key))
        added.append(
            (
                name: "Authorization",
                value: "AWS4-HMAC-SHA256 Credential=\(accessKeyID)/\(scope), SignedHeaders=\(signed), Signature=\(signature)"
            ))
        return added
    }

    /// All but unreserved characters as %XX (RFC 3986 §2.3).
    package static func encode(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "~"):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default: result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return result
    }

    /// `20150830T123600Z`
    static func timestamp(_ date: Date) -> String {
        let text = date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: false, timeZone: .gmt))
        return text.filter { $0 != "-" && $0 != ":" }
    }

    /// Without blanks around it, with single ones inside.
    private static func collapsed(_ value: String) -> String {
        value.split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
    }

    private static func hash(_ bytes: [UInt8]) -> String { hex(SHA256.hash(data: Data(bytes))) }

    private static func hex(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
