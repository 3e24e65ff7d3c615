import Inet
import Testing

@Suite struct IPHeaderTests {
    static func packet(_ source: String, _ destination: String, payload: Int) throws -> [UInt8] {
        let source = try #require(IPAddress(source))
        var bytes = [UInt8](repeating: 0xAB, count: (source.family == .v4 ? 20 : 40) + payload)
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        IPHeader.write(
            into: &raw, source: source, destination: try #require(IPAddress(destination)), upperProtocol: .tcp, payloadLength: payload,
            trafficClass: 0xB9)
        return bytes
    }

    // The expectation macros do not take spans.
    static func parse(_ bytes: [UInt8]) throws -> IPHeader { try IPHeader(parsing: bytes.span.bytes) }
    static func routing(of bytes: [UInt8]) -> (totalLength: Int, source: IPAddress, destination: IPAddress)? {
        IPHeader.routing(of: bytes.span.bytes)
    }

    @Test("a written header parses back", arguments: [("10.1.0.2", "10.1.0.254"), ("fd00::2", "fd00::fe")])
    func roundTrip(source: String, destination: String) throws {
        var bytes = try Self.packet(source, destination, payload: 33)
        bytes += [0, 0, 0]
        let header = try IPHeader(parsing: bytes.span.bytes)
        #expect(header.source.description == source && header.destination.description == destination)
        #expect(header.payload.count == 33 && header.upperProtocol == .tcp && header.trafficClass == 0xB9 && header.fragment == nil)
        let routing = try #require(Self.routing(of: bytes))
        #expect(routing.totalLength == bytes.count - 3 && routing.source == header.source)
    }

    @Test("every truncation is refused", arguments: [("10.1.0.2", "10.1.0.254"), ("fd00::2", "fd00::fe")])
    func truncated(source: String, destination: String) throws {
        let bytes = try Self.packet(source, destination, payload: 9)
        for count in 0..<bytes.count {
            #expect(throws: IPHeader.ParseError.truncated) { try Self.parse(Array(bytes[..<count])) }
            #expect(Self.routing(of: Array(bytes[..<count])) == nil)
        }
    }

    @Test("bad version, header length and checksum are told apart")
    func malformed() throws {
        var bytes = try Self.packet("10.1.0.2", "10.1.0.254", payload: 4)
        bytes[8] ^= 1
        #expect(throws: IPHeader.ParseError.badChecksum) { try Self.parse(bytes) }
        bytes[0] = 0x44
        #expect(throws: IPHeader.ParseError.badHeaderLength) { try Self.parse(bytes) }
        bytes[0] = 0x55
        #expect(throws: IPHeader.ParseError.unknownVersion) { try Self.parse(bytes) }
    }

    @Test("IPv6 extension headers are walked within a bound")
    func extensionHeaders() throws {
        var bytes = try Self.packet("fd00::2", "fd00::fe", payload: 24)
        bytes[6] = 0
        bytes[40] = 60
        bytes[41] = 0
        bytes[48] = 6
        bytes[49] = 0
        let header = try IPHeader(parsing: bytes.span.bytes)
        #expect(header.headerLength == 56 && header.upperProtocol == .tcp)
        var endless = try Self.packet("fd00::2", "fd00::fe", payload: 80)
        endless[6] = 60
        for offset in stride(from: 40, to: 120, by: 8) {
            endless[offset] = 60
            endless[offset + 1] = 0
        }
        #expect(throws: IPHeader.ParseError.badExtensionHeader) { try IPHeader(parsing: endless.span.bytes) }
    }

    @Test("random bytes never trap", arguments: [UInt64](1...4))
    func fuzz(seed: UInt64) {
        let random = RandomSource.seeded(seed)
        for _ in 0..<20_000 {
            var bytes = [UInt8](repeating: 0, count: Int(random.next(below: 96)))
            var span = bytes.mutableSpan
            var raw = span.mutableBytes
            random.fill(&raw)
            if !bytes.isEmpty { bytes[0] = (random.nextUInt32() & 1 == 0 ? 0x40 : 0x60) | (bytes[0] & 0x0F) }
            _ = try? IPHeader(parsing: bytes.span.bytes)
            _ = IPHeader.routing(of: bytes.span.bytes)
        }
    }
}

@Suite struct InternetChecksumTests {
    /// The definition, word by word.
    static func reference(_ bytes: [UInt8]) -> UInt16 {
        var sum: UInt32 = 0
        for index in stride(from: 0, to: bytes.count, by: 2) {
            sum += UInt32(bytes[index]) << 8 + (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
            sum = (sum & 0xFFFF) + (sum >> 16)
        }
        return ~UInt16(sum)
    }

    @Test("RFC 1071's example")
    func example() {
        let bytes: [UInt8] = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]
        let checksum = InternetChecksum.of(bytes.span.bytes)
        #expect(checksum == ~0xddf2)
    }

    @Test("every length from 0 to 200 agrees with the definition, also in two odd pieces")
    func lengths() {
        let random = RandomSource.seeded(7)
        for count in 0...200 {
            let bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.nextUInt32()) }
            let checksum = InternetChecksum.of(bytes.span.bytes)
            #expect(checksum == Self.reference(bytes))
            let cut = count / 3
            var pieces = InternetChecksum()
            pieces.add(Array(bytes[..<cut]).span.bytes)
            pieces.add(Array(bytes[cut...]).span.bytes)
            #expect(pieces.value == Self.reference(bytes), "\(count) bytes cut at \(cut)")
        }
    }
}

@Suite struct InstantTests {
    @Test("arithmetic saturates instead of trapping")
    func saturation() {
        let late = Instant(nanoseconds: .max - 5)
        #expect(late + .seconds(1) == .distantFuture)
        #expect(Instant(nanoseconds: 5) - .seconds(1) == Instant(nanoseconds: 0))
        #expect(Instant.distantFuture - Instant(nanoseconds: 0) == .nanoseconds(Int64.max))
        #expect(Duration.seconds(Int64.max).inNanoseconds == .max)
        #expect((Instant(nanoseconds: 10) - Instant(nanoseconds: 30)) == .nanoseconds(-20))
    }
}
