import Proxy
import Testing

@Suite struct ClientHelloTests {
    private let name = Array("app.example.com".utf8)

    private func parse(_ bytes: [UInt8]) -> ClientHelloParser.Progress {
        var parser = ClientHelloParser()
        return parser.receive(bytes)
    }

    @Test("a hello that offers acme-tls/1 and nothing else is a validation's")
    func validation() {
        func protocols(_ names: String...) -> [UInt8] {
            let list = names.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
            return [0, 16, 0, UInt8(list.count + 2), 0, UInt8(list.count)] + list
        }
        func parse(_ extra: [UInt8]) -> ClientHelloParser.Progress { self.parse(clientHello(serverName: name, extra: extra)) }
        #expect(parse(protocols("acme-tls/1")) == .complete(serverName: name, isACME: true))
        for other in [protocols("acme-tls/1", "h2"), protocols("h2"), protocols("ACME-TLS/1"), [0, 16, 0, 0], [0, 16, 0, 2, 0, 0]] {
            #expect(parse(other) == .complete(serverName: name))
        }
    }

    @Test("the server name is found")
    func serverName() { #expect(parse(clientHello(serverName: name)) == .complete(serverName: name)) }

    @Test("a hello without a server name is complete, too")
    func noServerName() { #expect(parse(clientHello(serverName: nil)) == .complete(serverName: nil)) }

    @Test("a hello may be cut anywhere, into segments and into records", arguments: [1, 2, 3, 5, 64, 300, 1_000])
    func cuts(recordSize: Int) {
        let bytes = clientHello(serverName: name, padding: 1_500, recordSize: recordSize)
        for segment in [1, 2, 7, 1_380] {
            var parser = ClientHelloParser()
            var progress = ClientHelloParser.Progress.incomplete
            for start in stride(from: 0, to: bytes.count, by: segment) {
                #expect(progress == .incomplete)
                progress = parser.receive(bytes[start..<min(start + segment, bytes.count)])
            }
            #expect(progress == .complete(serverName: name), "record size \(recordSize), segment \(segment)")
        }
    }

    @Test("what follows the hello is not looked at")
    func earlyData() { #expect(parse(clientHello(serverName: name) + [23, 3, 3, 0, 1, 0]) == .complete(serverName: name)) }

    @Test("a hello of more than 16 KiB is refused before it is all there")
    func tooLong() {
        #expect(parse([22, 3, 1, 0x40, 0, 1, 0, 0x40, 1]) == .invalid(.tooLong))
        var parser = ClientHelloParser()
        let bytes = clientHello(serverName: name, padding: 5_000, recordSize: 1)
        #expect(bytes.count > ClientHelloParser.maximumLength)
        #expect(parser.receive(bytes) == .invalid(.tooLong))
    }

    @Test("the longest hello that fits is read")
    func longest() {
        let overhead = clientHello(serverName: name).count
        let bytes = clientHello(serverName: name, padding: ClientHelloParser.maximumLength - overhead)
        #expect(bytes.count == ClientHelloParser.maximumLength)
        #expect(parse(bytes) == .complete(serverName: name))
    }

    @Test("something that is not TLS is known by its first byte")
    func notTLS() {
        #expect(parse(Array("GET / HTTP/1.1\r\n".utf8)) == .invalid(.notTLS(firstByte: UInt8(ascii: "G"))))
        #expect(parse([0x80]) == .invalid(.notTLS(firstByte: 0x80)))
    }

    @Test("each broken length is a decode error or waits for more, and none goes out of bounds")
    func brokenLengths() {
        let bytes = clientHello(serverName: name, padding: 20)
        for index in 5..<bytes.count {
            for value: UInt8 in [0, 1, 0x7f, 0xff] {
                var broken = bytes
                broken[index] = value
                _ = parse(broken)
            }
        }
        for count in 0..<bytes.count { #expect(parse(Array(bytes.prefix(count))) == .incomplete, "cut after \(count)") }
    }

    @Test("malformed hellos get the alert that RFC 8446 names")
    func alerts() {
        #expect(parse([22, 2]) == .invalid(.malformed(.protocolVersion)))
        #expect(parse([22, 3, 1, 0, 0]) == .invalid(.malformed(.unexpectedMessage)))
        #expect(parse([22, 3, 1, 0x40, 1]) == .invalid(.malformed(.recordOverflow)))
        #expect(parse([22, 3, 1, 0, 4, 2, 0, 0, 0]) == .invalid(.malformed(.unexpectedMessage)))
        #expect(parse([22, 3, 1, 0, 4, 1, 0, 0, 0]) == .invalid(.malformed(.decodeError)))
        #expect(parse(clientHello(serverName: [])) == .invalid(.malformed(.decodeError)))
        #expect(parse(clientHello(serverName: [97, 0, 98])) == .invalid(.malformed(.decodeError)))
        #expect(parse(clientHello(serverName: [UInt8](repeating: 97, count: 256))) == .invalid(.malformed(.decodeError)))
        let second: [UInt8] = [0, 0, 0, 6, 0, 4, 0, 0, 1, 97]
        #expect(parse(clientHello(serverName: name, extra: second)) == .invalid(.malformed(.illegalParameter)))
    }

    @Test("random and mutated input never traps, and gives the same answer however it is cut")
    func fuzz() async {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = TestRandom(state: seed)
        let valid = clientHello(serverName: name, padding: 40, recordSize: 50)
        for round in 0..<20_000 {
            // Tests that have a deadline share the threads.
            if round % 100 == 0 { await Task.yield() }
            var bytes: [UInt8]
            if round % 4 == 0 {
                bytes = (0..<Int.random(in: 0...200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                if !bytes.isEmpty { bytes[0] = 22 }
                if bytes.count > 1 { bytes[1] = 3 }
            } else {
                bytes = valid
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    let index = Int.random(in: 0..<bytes.count, using: &random)
                    switch Int.random(in: 0..<3, using: &random) {
                    case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
                    case 1: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                    default: bytes.remove(at: index)
                    }
                }
            }
            let whole = parse(bytes)
            var parser = ClientHelloParser()
            var pieces = ClientHelloParser.Progress.incomplete
            for byte in bytes where pieces == .incomplete { pieces = parser.receive(CollectionOfOne(byte)) }
            #expect(whole == pieces, "seed \(seed), round \(round)")
        }
    }
}
