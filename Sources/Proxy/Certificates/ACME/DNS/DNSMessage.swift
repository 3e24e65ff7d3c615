import Inet

/// A message of the DNS, as far as a client that asks and updates needs it.
///
///     +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
///     |                      ID                       |
///     |QR|   Opcode  |AA|TC|RD|RA|   Z    |   RCODE   |
///     |                    QDCOUNT                    |
///     |                    ANCOUNT                    |
///     |                    NSCOUNT                    |
///     |                    ARCOUNT                    |
///     +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
///
/// Names are written without compression and read with it. What is behind the last record is an error.
///
/// Source: RFC 1035 §4.1; the four sections of an update are RFC 2136 §2.
package struct DNSMessage: Equatable, Sendable {
    package var id: UInt16
    /// The second row of the header.
    package var flags: UInt16
    package var questions: [Question] = []
    package var answers: [Record] = []
    package var authorities: [Record] = []
    package var additionals: [Record] = []
    /// Where the last record begins in the message that was read; a TSIG stands there.
    package private(set) var lastRecord: Int?

    package struct Question: Equatable, Sendable {
        package var name: DNSName
        package var type: UInt16
        package var `class`: UInt16

        package init(_ name: DNSName, _ type: UInt16, class: UInt16 = DNSClass.internet) {
            self.name = name
            self.type = type
            self.class = `class`
        }
    }

    package struct Record: Equatable, Sendable {
        package var name: DNSName
        package var type: UInt16
        package var `class`: UInt16
        /// Seconds.
        package var timeToLive: UInt32
        package var data: Data

        package init(_ name: DNSName, _ type: UInt16, class: UInt16 = DNSClass.internet, timeToLive: UInt32 = 0, data: Data = .other([])) {
            self.name = name
            self.type = type
            self.class = `class`
            self.timeToLive = timeToLive
            self.data = data
        }
    }

    package enum Data: Equatable, Sendable {
        case address(IPAddress)
        /// Of CNAME and NS.
        case name(DNSName)
        case text([[UInt8]])
        /// Of any other type: the bytes, with names as they were.
        case other([UInt8])
    }

    package init(id: UInt16, flags: UInt16, questions: [Question] = [], authorities: [Record] = []) {
        self.id = id
        self.flags = flags
        self.questions = questions
        self.authorities = authorities
    }

    package var isResponse: Bool { flags & DNSFlags.response != 0 }
    package var isAuthoritative: Bool { flags & DNSFlags.authoritative != 0 }
    package var isTruncated: Bool { flags & DNSFlags.truncated != 0 }
    package var responseCode: DNSResponseCode { DNSResponseCode(rawValue: UInt8(flags & 0xF)) }

    /// Whether this answers `query`: its number, its question, the same operation.
    package func answers(_ query: DNSMessage) -> Bool {
        isResponse && id == query.id && flags & DNSFlags.operation == query.flags & DNSFlags.operation
            && (questions == query.questions || questions.isEmpty && !responseCode.isAnswer)
    }

    package func encode() -> [UInt8] {
        var writer = DNSWriter()
        for number in [
            id, flags, UInt16(questions.count), UInt16(answers.count), UInt16(authorities.count), UInt16(additionals.count),
        ] { writer.write(number) }
        for question in questions {
            writer.bytes += question.name.encoded
            writer.write(question.type)
            writer.write(question.class)
        }
        for record in answers + authorities + additionals {
            writer.bytes += record.name.encoded
            writer.write(record.type)
            writer.write(record.class)
            writer.write(record.timeToLive)
            let data = record.data.encoded
            writer.write(UInt16(data.count))
            writer.bytes += data
        }
        return writer.bytes
    }

    /// Nil for what is none.
    package init?(_ bytes: [UInt8]) {
        var reader = DNSReader(bytes)
        guard bytes.count <= Self.maximumLength, let id = reader.uint16(), let flags = reader.uint16() else { return nil }
        var counts: [Int] = []
        for _ in 0..<4 {
            guard let count = reader.uint16() else { return nil }
            counts.append(Int(count))
        }
        guard counts.reduce(0, +) <= Self.maximumRecords else { return nil }
        self.id = id
        self.flags = flags
        for _ in 0..<counts[0] {
            guard let name = reader.name(), let type = reader.uint16(), let `class` = reader.uint16() else { return nil }
            questions.append(Question(name, type, class: `class`))
        }
        for section in [\Self.answers, \Self.authorities, \Self.additionals].enumerated() {
            for _ in 0..<counts[section.offset + 1] {
                lastRecord = reader.offset
                guard let record = Self.record(&reader) else { return nil }
                self[keyPath: section.element].append(record)
            }
        }
        guard reader.isAtEnd else { return nil }
    }

    /// Number and flags alone, of a message that may be cut off.
    init?(header bytes: [UInt8]) {
        var reader = DNSReader(bytes)
        guard bytes.count >= 12, let id = reader.uint16(), let flags = reader.uint16() else { return nil }
        self.init(id: id, flags: flags)
    }

    private static func record(_ reader: inout DNSReader) -> Record? {
        guard let name = reader.name(), let type = reader.uint16(), let `class` = reader.uint16(), let timeToLive = reader.uint32(),
            let length = reader.uint16(), let end = reader.end(of: Int(length))
        else { return nil }
        var data: Data?
        // Updates have records without data.
        switch type {
        case _ where length == 0: data = .other([])
        case DNSType.a where length == 4, DNSType.aaaa where length == 16:
            data = reader.bytes(Int(length)).map { .address(IPAddress(length == 4 ? .v4 : .v6, in: $0.span.bytes, at: 0)) }
        case DNSType.cname, DNSType.ns: data = reader.name().map { .name($0) }
        case DNSType.txt:
            var strings: [[UInt8]] = []
            while reader.offset < end {
                guard let count = reader.uint8(), let string = reader.bytes(Int(count)) else { return nil }
                strings.append(string)
            }
            data = .text(strings)
        default: data = reader.bytes(Int(length)).map { .other($0) }
        }
        guard let data, reader.offset == end else { return nil }
        return Record(name, type, class: `class`, timeToLive: timeToLive, data: data)
    }

    package static let maximumLength = 65_535
    /// Of all sections, with the questions.
    package static let maximumRecords = 512
}

extension DNSMessage.Data {
    package var encoded: [UInt8] {
        switch self {
        case .address(let address):
            var bytes = [UInt8](repeating: 0, count: address.byteCount)
            var span = bytes.mutableSpan
            var raw = span.mutableBytes
            address.write(into: &raw, at: 0)
            return bytes
        case .name(let name): return name.encoded
        case .text(let strings): return strings.flatMap { [UInt8(truncatingIfNeeded: $0.prefix(255).count)] + $0.prefix(255) }
        case .other(let bytes): return bytes
        }
    }

    /// The strings of a TXT record in one: RFC 8555 §8.4 has one string, but long ones are split.
    package var joinedText: String? {
        guard case .text(let strings) = self else { return nil }
        return String(decoding: strings.joined(), as: UTF8.self)
    }
}

/// Source: RFC 1035 §3.2.2, RFC 3596 §2.1, RFC 8945 §4.2.
package enum DNSType {
    package static let a: UInt16 = 1
    package static let ns: UInt16 = 2
    package static let cname: UInt16 = 5
    package static let soa: UInt16 = 6
    package static let txt: UInt16 = 16
    package static let aaaa: UInt16 = 28
    package static let tsig: UInt16 = 250
}

/// Source: RFC 1035 §3.2.4, RFC 2136 §1.3.
package enum DNSClass {
    package static let internet: UInt16 = 1
    package static let none: UInt16 = 254
    package static let any: UInt16 = 255
}

package enum DNSFlags {
    package static let response: UInt16 = 0x8000
    package static let operation: UInt16 = 0x7800
    /// RFC 2136 §2.2: operation 5.
    package static let update: UInt16 = 0x2800
    package static let authoritative: UInt16 = 0x0400
    package static let truncated: UInt16 = 0x0200
    package static let recursionDesired: UInt16 = 0x0100
}

/// Source: RFC 1035 §4.1.1, RFC 2136 §2.2.
package struct DNSResponseCode: Hashable, Sendable, CustomStringConvertible {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Both say something about the name.
    package var isAnswer: Bool { rawValue == 0 || rawValue == 3 }

    package var description: String {
        let names = [
            "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
        ]
        return Int(rawValue) < names.count ? names[Int(rawValue)] : "response code \(rawValue)"
    }
}
