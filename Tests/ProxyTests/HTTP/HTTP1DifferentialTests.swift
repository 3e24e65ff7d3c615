import FuzzTargets
import Inet
import NIOCore
import Proxy
import Testing

/// Our parser beside NIO's (llhttp) on the same mutated bytes, by what the fuzz target `http1` does with any bytes.
@Suite struct HTTP1DifferentialTests {
    private static let seeds = [
        "GET / HTTP/1.1\r\nHost: app.example.com\r\nX-A:  b \r\n\r\n",
        "\r\nGET /a%2Fb?x;y HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nCookie: a=b; c\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-End: 1\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b c\";d\r\nhello\r\n0\r\n\r\n",
        "PUT /q HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "HEAD http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ]

    @Test("what our parser accepts, NIO's reads as the same messages", arguments: 0..<12)
    func same(_ seed: UInt64) throws {
        let random = RandomSource.seeded(seed)
        func below(_ limit: Int) -> Int { Int(random.nextUInt32()) % max(1, limit) }
        let alphabet = Array("\r\n\t :;,=0159afAFxX\0\u{7F}/?#%\"\\".utf8) + [0x80, 0xFF]
        let reader = HTTP1Reader(.requests)
        var accepted = 0
        for _ in 0..<3000 {
            var bytes = Array(Self.seeds[below(Self.seeds.count)].utf8)
            for _ in 0..<below(4) {
                let index = below(bytes.count)
                switch below(4) {
                case 0: bytes.insert(alphabet[below(alphabet.count)], at: index)
                case 1 where bytes.count > 1: bytes.remove(at: index)
                case 2: bytes.insert(contentsOf: bytes[index..<min(bytes.count, index + below(12))], at: below(bytes.count))
                default: bytes[index] = alphabet[below(alphabet.count)]
                }
            }
            let ours = reader.read(bytes)
            accepted += ours.messages.isEmpty ? 0 : 1
            let disagreement = HTTP1Peer.disagreement(on: bytes, ours, as: .requests)
            #expect(disagreement == nil, "\(String(decoding: bytes, as: UTF8.self).debugDescription)")
        }
        #expect(accepted > 300, "hardly anything was accepted")
    }

    @Test("heads and bodies in pieces are the same messages", arguments: seeds)
    func pieces(_ text: String) throws {
        let bytes = Array(text.utf8)
        let ours = HTTP1Reader(.requests).read(bytes)
        #expect(ours.end == .incomplete && ours.consumed == bytes.count && ours.messages.allSatisfy(\.isWhole))
        #expect(ours == HTTP1Reader(.requests).read(bytes, cuts: Array(1..<bytes.count)))
        #expect(HTTP1Peer.disagreement(on: bytes, ours, as: .requests) == nil)
    }

    @Test("a chunk size that never ends is given up after 1 KiB, and so is far more framing than data", arguments: [true, false])
    func endlessFraming(_ isRaw: Bool) {
        func decode(_ text: String) throws {
            var buffer = ByteBuffer(string: text)
            var decoder = BodyDecoder(.chunked, raw: isRaw, limits: ProxyLimits().body)
            while case .bytes = try decoder.decode(&buffer) {}
        }
        #expect(throws: HeadFault.chunkExtension) { try decode("5;" + String(repeating: "a", count: 2000)) }
        #expect(throws: HeadFault.chunkExtension) { try decode("5;a=" + String(repeating: "a", count: 2000)) }
        #expect(throws: HeadFault.chunkOverhead) {
            try decode(String(repeating: "1;" + String(repeating: "a", count: 500) + "\r\nx\r\n", count: 100))
        }
        #expect(throws: Never.self) { try decode(String(repeating: "1\r\nx\r\n", count: 100_000)) }
    }

    @Test("a line as long as is allowed is taken and a longer one is refused, however the bytes are cut", arguments: [0, 1])
    func limitsInPieces(_ excess: Int) {
        var limits = ProxyLimits()
        limits.requestLineSize = 40
        let head = "GET /\(String(repeating: "a", count: 26 + excess)) HTTP/1.1\r\nHost: a\r\n\r\n"
        let chunk = "1;\(String(repeating: "a", count: 1020 + excess))\r\nx\r\n0\r\n\r\n"
        for text in [head, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\(chunk)"] {
            let reader = HTTP1Reader(.requests, limits: limits)
            let bytes = Array(text.utf8)
            let whole = reader.read(bytes)
            #expect(whole.end == (excess == 0 ? .incomplete : .refused))
            #expect(whole == reader.read(bytes, cuts: Array(1..<bytes.count)))
        }
    }

    @Test("a start line that begins with what none begins with is refused before its head is whole, however the bytes are cut")
    func firstByte() {
        let bytes = Array(" GET / HTTP/1.1\r\nHost: a".utf8)
        #expect(HTTP1Reader(.requests).read(bytes).end == .refused)
        #expect(HTTP1Reader(.requests).read(bytes, cuts: Array(1..<bytes.count)).end == .refused)
    }
}
