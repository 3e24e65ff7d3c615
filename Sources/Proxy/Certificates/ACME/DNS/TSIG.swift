import Crypto
import FoundationEssentials

/// Signs requests to a DNS server with a key that both have, and checks its answers.
///
/// MACs are sent and taken in full length only.
///
/// Source: RFC 8945.
package struct TSIGKey: Sendable, Equatable {
    package enum Algorithm: String, CaseIterable, Sendable {
        case sha256 = "hmac-sha256"
        case sha384 = "hmac-sha384"
        case sha512 = "hmac-sha512"
    }

    package let name: DNSName
    package let algorithm: Algorithm
    private let secret: Secret

    /// - Parameter secret: base64, as `tsig-keygen` and `keymgr` print it. Nil if it is none, or the name is none.
    package init?(name: String, algorithm: Algorithm, secret: Secret) {
        guard let name = DNSName(name), !name.labels.isEmpty, let bytes = FoundationEssentials.Data(base64Encoded: secret.reveal()),
            !bytes.isEmpty
        else { return nil }
        self.name = name
        self.algorithm = algorithm
        self.secret = secret
    }

    /// The message with its TSIG, and the MAC that the answer's covers.
    ///
    /// Source: RFC 8945 §4.3.1 to §4.3.3, §5.1.
    /// - Parameter time: seconds since 1970.
    package func sign(_ message: DNSMessage, at time: UInt64) -> (bytes: [UInt8], mac: [UInt8]) {
        let unsigned = message.encode()
        let variables = TSIGData(algorithm: algorithmName, time: time, fudge: Self.fudge, originalID: message.id)
        let mac = mac(of: unsigned + variables.variables(key: name))
        var signed = message
        var data = variables
        data.mac = mac
        signed.additionals.append(.init(name, DNSType.tsig, class: DNSClass.any, data: .other(data.encoded)))
        return (signed.encode(), mac)
    }

    /// Whether an answer is the server's. Throws what is wrong, for the operator.
    ///
    /// Source: RFC 8945 §5.3, in its order: key, MAC, time.
    package func verify(_ response: DNSMessage, _ bytes: [UInt8], requestMAC: [UInt8], at time: UInt64) throws(DNSFault) {
        guard let record = response.additionals.last, record.type == DNSType.tsig, let start = response.lastRecord,
            case .other(let data) = record.data, let tsig = TSIGData(data)
        else { throw DNSFault("the answer is not signed: \(response.responseCode); does the server know the key \(name)?") }
        guard record.class == DNSClass.any, record.timeToLive == 0, record.name == name, tsig.algorithm == algorithmName else {
            throw DNSFault("the answer is signed with another key or algorithm")
        }
        // RFC 8945 §5.3.2: these two come without a MAC, and so does nothing else.
        switch tsig.error {
        case 16: throw DNSFault("\(response.responseCode) (BADSIG): the server has another secret for the key \(name)")
        case 17:
            throw DNSFault(
                "\(response.responseCode) (BADKEY): the server does not know the key \(name) with \(algorithm.rawValue), or allows it nothing here"
            )
        default: break
        }
        // The message as it was before its TSIG was added.
        var message = Array(bytes[..<start])
        let count = UInt16(response.additionals.count - 1)
        message.replaceSubrange(0..<2, with: [UInt8(tsig.originalID >> 8), UInt8(truncatingIfNeeded: tsig.originalID)])
        message.replaceSubrange(10..<12, with: [UInt8(count >> 8), UInt8(truncatingIfNeeded: count)])
        var writer = DNSWriter()
        writer.write(UInt16(requestMAC.count))
        let input = writer.bytes + requestMAC + message + tsig.variables(key: name)
        guard isValid(tsig.mac, for: input) else { throw DNSFault("the answer's signature is wrong") }
        if tsig.error == 18 {
            throw DNSFault(
                "\(response.responseCode) (BADTIME): the clocks differ\(tsig.serverTime.map { " by \(Self.distance($0, time)) s" } ?? "")")
        }
        guard Self.distance(tsig.time, time) <= UInt64(tsig.fudge) else {
            throw DNSFault("the answer is \(Self.distance(tsig.time, time)) s away from our clock")
        }
        guard tsig.error == 0 else { throw DNSFault("\(response.responseCode), TSIG error \(tsig.error)") }
    }

    private var algorithmName: DNSName { DNSName(labels: [Array(algorithm.rawValue.utf8)]) ?? .root }

    private func mac(of input: [UInt8]) -> [UInt8] {
        let input = FoundationEssentials.Data(input)
        switch algorithm {
        case .sha256: return Array(HMAC<SHA256>.authenticationCode(for: input, using: key))
        case .sha384: return Array(HMAC<SHA384>.authenticationCode(for: input, using: key))
        case .sha512: return Array(HMAC<SHA512>.authenticationCode(for: input, using: key))
        }
    }

    /// In constant time.
    private func isValid(_ mac: [UInt8], for input: [UInt8]) -> Bool {
        let (mac, input) = (FoundationEssentials.Data(mac), FoundationEssentials.Data(input))
        switch algorithm {
        case .sha256: return HMAC<SHA256>.isValidAuthenticationCode(mac, authenticating: input, using: key)
        case .sha384: return HMAC<SHA384>.isValidAuthenticationCode(mac, authenticating: input, using: key)
        case .sha512: return HMAC<SHA512>.isValidAuthenticationCode(mac, authenticating: input, using: key)
        }
    }

    private var key: SymmetricKey { SymmetricKey(data: FoundationEssentials.Data(base64Encoded: secret.reveal()) ?? .init()) }

    private static func distance(_ a: UInt64, _ b: UInt64) -> UInt64 { a > b ? a - b : b - a }

    /// Seconds; the value of RFC 8945 §10.
    private static let fudge: UInt16 = 300
}

/// RFC 8945 §4.2.
private struct TSIGData {
    var algorithm: DNSName
    /// 48 bits.
    var time: UInt64
    var fudge: UInt16
    var mac: [UInt8] = []
    var originalID: UInt16
    var error: UInt16 = 0
    var other: [UInt8] = []

    init(algorithm: DNSName, time: UInt64, fudge: UInt16, originalID: UInt16) {
        self.algorithm = algorithm
        self.time = time
        self.fudge = fudge
        self.originalID = originalID
    }

    init?(_ bytes: [UInt8]) {
        var reader = DNSReader(bytes)
        guard let algorithm = reader.name(), let time = reader.uint48(), let fudge = reader.uint16(), let count = reader.uint16(),
            let mac = reader.bytes(Int(count)), let originalID = reader.uint16(), let error = reader.uint16(),
            let length = reader.uint16(), let other = reader.bytes(Int(length)), reader.isAtEnd
        else { return nil }
        self.init(algorithm: algorithm, time: time, fudge: fudge, originalID: originalID)
        self.mac = mac
        self.error = error
        self.other = other
    }

    var encoded: [UInt8] {
        var writer = DNSWriter(bytes: algorithm.encoded)
        writer.write48(time)
        writer.write(fudge)
        writer.write(UInt16(mac.count))
        writer.bytes += mac
        writer.write(originalID)
        writer.write(error)
        writer.write(UInt16(other.count))
        writer.bytes += other
        return writer.bytes
    }

    /// RFC 8945 §4.3.3.
    func variables(key: DNSName) -> [UInt8] {
        var writer = DNSWriter(bytes: key.encoded)
        writer.write(DNSClass.any)
        writer.write(UInt32(0))
        writer.bytes += algorithm.encoded
        writer.write48(time)
        writer.write(fudge)
        writer.write(error)
        writer.write(UInt16(other.count))
        writer.bytes += other
        return writer.bytes
    }

    /// RFC 8945 §5.2.3: with BADTIME.
    var serverTime: UInt64? {
        var reader = DNSReader(other)
        return reader.uint48()
    }
}
