/// Reads the server name of a TLS connection's first flight, before any certificate is chosen.
///
///      TLSPlaintext                       Handshake                     ClientHello (RFC 8446 §4.1.2)
///     +------+---------+--------+-----   +------+------------+------   legacy_version(2) random(32) session_id<0..32>
///     | type | version | length | ...    | type | length (3) | ...     cipher_suites<2..> compression_methods<1..> extensions<0..>
///     +------+---------+--------+-----   +------+------------+------
///
/// The message may be spread over any number of records and segments. Deliberately not checked: everything that the TLS library
/// checks again (versions, ciphers, key shares); an ECH extension is left alone, the outer name is what counts.
package struct ClientHelloParser {
    package enum Progress: Equatable, Sendable {
        case incomplete
        /// `serverName` is nil if there is no such extension; otherwise as sent, 1 to 255 bytes, no NUL. `isACME`: the one protocol
        /// that is offered by ALPN is `acme-tls/1` (RFC 8737 §3).
        case complete(serverName: [UInt8]?, isACME: Bool = false)
        case invalid(Fault)
    }

    package enum Fault: Equatable, Sendable {
        /// It is not TLS: the first byte is no handshake record.
        case notTLS(firstByte: UInt8)
        case malformed(TLSAlert)
        case tooLong
    }

    /// Bytes of the record layer and of the message so far.
    private var received = 0
    private var recordHeader: [UInt8] = []
    private var recordRemaining = 0
    private var message: [UInt8] = []
    private var messageLength: Int?

    package init() {}

    /// Takes the next bytes. Linear in their number, however they are cut; not to be called again after anything but `.incomplete`.
    package mutating func receive(_ bytes: some Collection<UInt8>) -> Progress {
        var rest = bytes[...]
        while !rest.isEmpty {
            if recordRemaining == 0 {
                guard let byte = rest.popFirst() else { break }
                received += 1
                recordHeader.append(byte)
                if let fault = faultInRecordHeader() { return .invalid(fault) }
            } else {
                let part = rest.prefix(min(recordRemaining, Self.maximumLength - received + 1))
                message.append(contentsOf: part)
                received += part.count
                recordRemaining -= part.count
                rest = rest.dropFirst(part.count)
                if let fault = faultInMessageHeader() { return .invalid(fault) }
                if let messageLength, message.count >= 4 + messageLength {
                    return Self.read(body: message[4..<(4 + messageLength)])
                }
            }
            if received > Self.maximumLength { return .invalid(.tooLong) }
        }
        return .incomplete
    }

    /// Checks what is there of the five bytes, so that something that is not TLS gets its answer at once.
    private mutating func faultInRecordHeader() -> Fault? {
        if recordHeader.count == 1, recordHeader[0] != Self.handshakeRecord { return .notTLS(firstByte: recordHeader[0]) }
        if recordHeader.count == 2, recordHeader[1] != 3 { return .malformed(.protocolVersion) }
        guard recordHeader.count == 5 else { return nil }
        recordRemaining = Int(recordHeader[3]) << 8 | Int(recordHeader[4])
        recordHeader.removeAll(keepingCapacity: true)
        // RFC 8446 §5.1: no empty handshake fragments, at most 2^14 bytes.
        if recordRemaining == 0 { return .malformed(.unexpectedMessage) }
        return recordRemaining > 16_384 ? .malformed(.recordOverflow) : nil
    }

    private mutating func faultInMessageHeader() -> Fault? {
        if let first = message.first, first != Self.clientHello { return .malformed(.unexpectedMessage) }
        guard messageLength == nil, message.count >= 4 else { return nil }
        let length = Int(message[1]) << 16 | Int(message[2]) << 8 | Int(message[3])
        messageLength = length
        return length > Self.maximumLength ? .tooLong : nil
    }

    private static func read(body: ArraySlice<UInt8>) -> Progress {
        var hello = ByteReader(body)
        guard
            hello.skip(2 + 32),
            let sessionID = hello.vector8(), sessionID.count <= 32,
            let ciphers = hello.vector16(), ciphers.count >= 2, ciphers.count % 2 == 0,
            let compression = hello.vector8(), !compression.isEmpty
        else { return .invalid(.malformed(.decodeError)) }
        if hello.isAtEnd { return .complete(serverName: nil) }
        guard let extensions = hello.vector16(), hello.isAtEnd else { return .invalid(.malformed(.decodeError)) }

        var name: [UInt8]?
        var isACME = false
        var list = ByteReader(extensions)
        while !list.isAtEnd {
            guard let type = list.integer16(), let content = list.vector16() else { return .invalid(.malformed(.decodeError)) }
            // Whatever else ALPN may have wrong is the TLS library's matter.
            if type == protocolsExtension { isACME = content.elementsEqual(acmeProtocols) }
            guard type == serverNameExtension else { continue }
            guard name == nil else { return .invalid(.malformed(.illegalParameter)) }
            // RFC 6066 §3: a list, which in fact has exactly one entry, a host_name.
            var reader = ByteReader(content)
            guard let entries = reader.vector16(), reader.isAtEnd else { return .invalid(.malformed(.decodeError)) }
            var entry = ByteReader(entries)
            guard let nameType = entry.integer8(), nameType == 0, let host = entry.vector16(), entry.isAtEnd,
                (1...255).contains(host.count), !host.contains(0)
            else { return .invalid(.malformed(.decodeError)) }
            name = Array(host)
        }
        return .complete(serverName: name, isACME: isACME)
    }

    private static let handshakeRecord: UInt8 = 22
    private static let clientHello: UInt8 = 1
    private static let serverNameExtension = 0
    /// RFC 7301 §3.1.
    private static let protocolsExtension = 16
    /// The content of the extension with `acme-tls/1` alone.
    private static let acmeProtocols: [UInt8] = [0, 11, 10] + Array("acme-tls/1".utf8)
    /// Record headers included. Post-quantum hellos have about 1,800 bytes.
    package static let maximumLength = 16_384
}

/// Alert descriptions, RFC 8446 §6.
package enum TLSAlert: UInt8, Sendable {
    case unexpectedMessage = 10
    case recordOverflow = 22
    case illegalParameter = 47
    case decodeError = 50
    case protocolVersion = 70
    case internalError = 80
    case missingExtension = 109
    case unrecognizedName = 112
    case noApplicationProtocol = 120

    /// A fatal alert in a record of its own, not encrypted: what may be sent before the handshake.
    package var record: [UInt8] { [21, 3, 3, 0, 2, 2, rawValue] }
}

/// A cursor whose every step checks what is left.
private struct ByteReader {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

    var isAtEnd: Bool { rest.isEmpty }

    mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
        guard count <= rest.count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }

    mutating func skip(_ count: Int) -> Bool { take(count) != nil }

    mutating func integer8() -> Int? { rest.popFirst().map { Int($0) } }

    mutating func integer16() -> Int? {
        guard let high = integer8(), let low = integer8() else { return nil }
        return high << 8 | low
    }

    mutating func vector8() -> ArraySlice<UInt8>? { integer8().flatMap { take($0) } }

    mutating func vector16() -> ArraySlice<UInt8>? { integer16().flatMap { take($0) } }
}
