import NIOCore
import NIOEmbedded
import Proxy
import Testing

/// Windows that SETTINGS make smaller while streams are open, RFC 9113 §6.9.2.
@Suite struct HTTP2WindowTests {
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    private static let settings: [UInt8] = [0, 0, 0, 4, 0, 0, 0, 0, 0]
    /// SETTINGS_INITIAL_WINDOW_SIZE of 0.
    private static let noWindow: [UInt8] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]
    private static let get: [UInt8] =
        [0, 0, 20, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84, 0x41, 15] + Array("app.example.com".utf8)
    private static let headersEnd: [UInt8] = [0, 0, 0, 1, 5, 0, 0, 0, 1]
    private static let dataEnd: [UInt8] = [0, 0, 0, 0, 1, 0, 0, 0, 1]

    private func send(_ bytes: [UInt8], to proxy: EmbeddedProxy) throws {
        _ = try proxy.client.writeInbound(ByteBuffer(bytes: bytes))
        proxy.loop.run()
    }

    private func received(_ proxy: EmbeddedProxy) throws -> [UInt8] {
        proxy.loop.run()
        var bytes: [UInt8] = []
        while case .byteBuffer(let buffer)? = try proxy.client.readOutbound(as: IOData.self) { bytes += buffer.readableBytesView }
        return bytes
    }

    private func end(behind settings: [UInt8], pieces: Int? = nil) throws -> [UInt8] {
        let proxy = try EmbeddedProxy(speaks: .http2)
        try send(Self.preface + Self.settings + Self.get, to: proxy)
        try proxy.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        _ = try received(proxy)
        for piece in pieces.map({ size in
            stride(from: 0, to: settings.count, by: size).map { settings[$0..<min($0 + size, settings.count)] }
        })
            ?? [settings[...]]
        { try send(Array(piece), to: proxy) }
        try proxy.respond("0\r\n\r\n")
        return try received(proxy)
    }

    @Test("an answer ends whose stream's window is below zero", arguments: [nil, 1, 4, 10])
    func belowZero(_ pieces: Int?) throws {
        let bytes = try end(behind: Self.noWindow, pieces: pieces)
        #expect(Array(bytes.suffix(9)) == Self.headersEnd)
    }

    @Test("as long as no window gets smaller, an answer ends with DATA")
    func unchanged() throws {
        #expect(Array(try end(behind: Self.settings).suffix(9)) == Self.dataEnd)
    }

    @Test("a stream whose end waits for the connection's window is reset when its own gets smaller")
    func waits() throws {
        let proxy = try EmbeddedProxy(speaks: .http2)
        try send(Self.preface + Self.settings + Self.get, to: proxy)
        // All that the connection's window takes.
        try proxy.respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n\(String(repeating: "b", count: 65_535))\r\n")
        _ = try received(proxy)
        try proxy.respond("0\r\n\r\n")
        _ = try received(proxy)
        try send(Self.noWindow + [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0], to: proxy)
        let bytes = try received(proxy)
        #expect(bytes.contains([0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 3]))
        #expect(proxy.client.isActive)
    }
}
