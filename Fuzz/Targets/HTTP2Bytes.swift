import NIOCore
import NIOHPACK

/// Frames and heads that scripts for HTTP/2 send.
enum HTTP2Bytes {
    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    static func frame(_ type: UInt8, flags: UInt8 = 0, stream: Int = 0, _ payload: [UInt8] = []) -> ByteBuffer {
        var bytes = ByteBuffer()
        bytes.writeInteger(UInt8(truncatingIfNeeded: payload.count >> 16))
        bytes.writeInteger(UInt16(truncatingIfNeeded: payload.count))
        bytes.writeInteger(type)
        bytes.writeInteger(flags)
        bytes.writeInteger(UInt32(truncatingIfNeeded: stream))
        bytes.writeBytes(payload)
        return bytes
    }

    static func headers(_ fields: Fields, stream: Int, isEnd: Bool) -> ByteBuffer {
        var encoder = HPACKEncoder(allocator: ByteBufferAllocator(), maxDynamicTableSize: 0)
        var headers = HPACKHeaders()
        for (name, value) in fields { headers.add(name: name, value: value, indexing: .nonIndexable) }
        var block = ByteBuffer()
        try? encoder.encode(headers: headers, to: &block)
        var all = ByteBuffer()
        var type: UInt8 = 1
        repeat {
            let part = block.readSlice(length: min(16_384, block.readableBytes)) ?? ByteBuffer()
            let flags: UInt8 = (block.readableBytes == 0 ? 4 : 0) | (isEnd && type == 1 ? 1 : 0)
            all.writeImmutableBuffer(frame(type, flags: flags, stream: stream, Array(part.readableBytesView)))
            type = 9
        } while block.readableBytes > 0
        return all
    }

    static func data(_ count: Int, stream: Int, isEnd: Bool, padding: UInt8? = nil) -> ByteBuffer {
        var payload = padding.map { [$0] } ?? []
        payload += [UInt8](repeating: 0x61, count: count)
        payload += [UInt8](repeating: 0, count: Int(padding ?? 0))
        return frame(0, flags: (isEnd ? 1 : 0) | (padding == nil ? 0 : 8), stream: stream, payload)
    }

    static func integer(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }

    /// Of a setting; most are odd in some way.
    static func setting(_ identifier: UInt8, _ value: UInt8) -> [UInt8] {
        let values = [
            0, 1, 2, 100, 4095, 4096, 16_383, 16_384, 65_535, 65_536, 1 << 20, 1 << 24 - 1, 1 << 24, 1 << 31 - 1, 1 << 31, 1 << 32 - 1,
        ]
        return [0, identifier & 0x0F] + integer(values[Int(value) % values.count])
    }

    typealias Fields = [(String, String)]

    static let requests: [Fields] = {
        func head(_ method: String, _ path: String, _ host: String = "app.example.com", _ more: Fields = []) -> Fields {
            [(":method", method), (":scheme", "https"), (":path", path), (":authority", host)] + more
        }
        let h2c = "h2.example.com"
        let webSocket: Fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        let grpc: Fields = [("content-type", "application/grpc"), ("te", "trailers")]
        let long = (0..<60).map { ("x-\($0)", String(repeating: "v", count: 700)) }
        return [
            head("GET", "/"), head("POST", "/"), head("POST", "/", "app.example.com", [("content-length", "100")]), head("HEAD", "/h"),
            head("CONNECT", "/ws", "app.example.com", webSocket), head("GET", "/", h2c), head("POST", "/", h2c),
            head("POST", "/", h2c, [("content-length", "100")]), head("POST", "/s/m", h2c, grpc), head("CONNECT", "/ws", h2c, webSocket),
            head("PUT", "/", "app.example.com", [("expect", "100-continue"), ("content-length", "4096")]),
            head("POST", "/s/m", "app.example.com", grpc), head("GET", "/", "nobody.example.com"), head("GET", "/", "off.example.com"),
            head("OPTIONS", "*"), head("TRACE", "/"), [(":method", "CONNECT"), (":authority", "app.example.com:443")],
            head("GET", "/", "app.example.com", long), head("GET", "/", h2c, long + long), head("GET", "no path"),
            head("CONNECT", "/", "app.example.com", [(":protocol", "tls")]),
            head("POST", "/", "app.example.com", [("content-length", "0")]),
            head("GET", "/", "app.example.com", [("cookie", "a=b"), ("cookie", "c=d"), ("accept", "application/json")]),
            head("HEAD", "/", h2c),
        ]
    }()

    static let responses: [Fields] = [
        [(":status", "200")], [(":status", "200"), ("content-length", "100")], [(":status", "204")], [(":status", "103"), ("link", "x")],
        [(":status", "404"), ("content-length", "0")], [("grpc-status", "0")], [(":status", "101")],
        [(":status", "304"), ("content-length", "7")],
        [(":status", "42")], [(":status", "100")], [(":status", "200"), ("x", String(repeating: "v", count: 15_000))],
        [(":status", "200"), ("connection", "close")], [(":status", "200"), ("content-length", "1"), ("content-length", "2")],
        [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")],
        [(":status", "200"), ("content-length", "65536")], (0..<40).map { ("x-\($0)", String(repeating: "v", count: 400)) },
    ]

    /// Those of ``answers`` that are one message.
    static let wholeAnswers: Set<Int> = [0, 3, 13, 15]

    /// Of HTTP/1.1. `%` stands for what the key of a WebSocket asks for.
    static let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "0\r\n\r\n", "0\r\nX-End: 1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframes",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        "HTTP/1.1 500 No\r\nContent-Length: 0\r\nX: \(String(repeating: "v", count: 15_000))\r\n\r\n", "not HTTP\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ]
}
