import Inet
import NIOCore
import NIOEmbedded
import NIOHTTP1
import Proxy
import Testing

/// Our parser beside NIO's (llhttp) on the same mutated bytes: what ours accepts, the other has to read in the same way. Ours may refuse
/// more. Methods are the one exception: llhttp knows a list of them, ours takes any token.
@Suite struct HTTP1DifferentialTests {
    struct Message: Equatable {
        var method: String
        var target: String
        var fields: [String]
        var body: [UInt8]
        var trailers: [String]
    }

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
            guard let ours = try? Self.ours(bytes), !ours.isEmpty else { continue }
            accepted += 1
            let text = String(decoding: bytes, as: UTF8.self)
            do {
                let theirs = try Self.theirs(bytes)
                #expect(ours == theirs, "\(text.debugDescription)")
            } catch HTTPParserError.invalidMethod {
                #expect(ours.contains { HTTPMethod(rawValue: $0.method) == .RAW(value: $0.method) }, "\(text.debugDescription)")
            } catch {
                Issue.record("NIO refuses with \(error): \(text.debugDescription)")
            }
        }
        #expect(accepted > 300, "hardly anything was accepted")
    }

    @Test("heads and bodies in pieces are the same messages", arguments: seeds)
    func pieces(_ text: String) throws {
        let bytes = Array(text.utf8)
        #expect(try Self.ours(bytes) == Self.ours(bytes, piece: 1))
        #expect(try Self.ours(bytes) == Self.theirs(bytes))
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

    /// The messages that the bytes are; none if the last one is not whole, for then a fault in it may not have been met yet.
    private static func ours(_ bytes: [UInt8], piece: Int = .max) throws -> [Message] {
        let limits = ProxyLimits()
        var messages: [Message] = []
        var rest = bytes[...]
        var buffer = ByteBuffer()
        func more() -> Bool {
            guard !rest.isEmpty else { return false }
            buffer.writeBytes(rest.prefix(piece))
            rest = rest.dropFirst(piece)
            return true
        }
        while true {
            var scanner = HeadScanner(startLine: true)
            var length: Int?
            while length == nil {
                if case .complete(let count) = try scanner.scan(buffer, limits: limits.head) { length = count } else if !more() { break }
            }
            guard let length else { return buffer.readableBytes == 0 ? messages : [] }
            buffer.moveReaderIndex(forwardBy: scanner.skipped)
            let slice = buffer.readSlice(length: length - scanner.skipped)
            let head = try #require(slice)
            let (line, section) = try HeadParser.request(head, limits: limits.fields)
            let checked = RequestRules.check(line, section, forwarded: .keep)
            let request = try checked.get()
            guard HostName.normalize(request.authorityText) != nil else { throw HeadFault.requestLine }
            let framing: BodyDecoder.Framing =
                switch request.framing {
                case .none: .none
                case .length(let count): .length(count)
                case .chunked: .chunked
                }
            var decoder = BodyDecoder(framing, raw: false, limits: limits.body)
            var body: [UInt8] = []
            var trailers: [String]?
            while trailers == nil {
                switch try decoder.decode(&buffer) {
                case .needMore: if !more() { return [] }
                case .bytes(let data): body += Array(data.readableBytesView)
                case .end(let section): trailers = section?.fields.map { "\($0.name): \($0.value)" } ?? []
                }
            }
            messages.append(
                Message(
                    method: section.text(line.method), target: section.text(line.target),
                    fields: section.fields.map { "\($0.name): \($0.value)" }, body: body, trailers: trailers ?? []))
        }
    }

    /// NIO leaves blanks behind a value.
    private static func line(_ field: (name: String, value: String)) -> String {
        var value = Substring(field.value)
        while let last = value.utf8.last, last == 0x20 || last == 0x09 { value = value.dropLast() }
        return "\(field.name): \(value)"
    }

    private static func theirs(_ bytes: [UInt8]) throws -> [Message] {
        let channel = EmbeddedChannel()
        defer { _ = try? channel.finish() }
        try channel.pipeline.syncOperations.addHandler(ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes)))
        try channel.writeInbound(ByteBuffer(bytes: bytes))
        var messages: [Message] = []
        var current: Message?
        while let part = try channel.readInbound(as: HTTPServerRequestPart.self) {
            switch part {
            case .head(let head):
                current = Message(
                    method: head.method.rawValue, target: head.uri, fields: head.headers.map(line), body: [],
                    trailers: [])
            case .body(let data): current?.body += Array(data.readableBytesView)
            case .end(let trailers):
                current?.trailers = trailers?.map(line) ?? []
                if let current { messages.append(current) }
                current = nil
            }
        }
        return messages
    }
}
