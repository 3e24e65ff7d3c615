import NIOCore
import NIOEmbedded
import NIOHPACK
import NIOHTTP2
import Proxy
import Testing

/// The other end of an ``EmbeddedProxy`` that speaks HTTP/2: frames in, frames out.
final class HTTP2Client {
    let proxy: EmbeddedProxy
    private let channel: EmbeddedChannel

    init(_ proxy: EmbeddedProxy) throws {
        self.proxy = proxy
        channel = EmbeddedChannel(handler: NIOHTTP2Handler(mode: .client), loop: proxy.loop)
        channel.connect(to: try SocketAddress(ipAddress: "192.0.2.1", port: 443), promise: nil)
        try move()
    }

    /// A WebSocket is asked for: RFC 8441 §5.
    func openWebSocket(_ more: HPACKHeaders = [:]) throws {
        var headers: HPACKHeaders = [
            ":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": "/chat", ":authority": "app.example.com",
            "sec-websocket-version": "13",
        ]
        headers.add(contentsOf: more)
        try send(headers)
    }

    func send(_ headers: HPACKHeaders, endStream: Bool = false) throws {
        channel.writeAndFlush(HTTP2Frame(streamID: 1, payload: .headers(.init(headers: headers, endStream: endStream))), promise: nil)
        try move()
    }

    /// What stream 1 has brought since the last call: `:status`, data, `end`, `reset`.
    func received() throws -> [String] {
        try move()
        var seen: [String] = []
        while let frame = try channel.readInbound(as: HTTP2Frame.self) {
            guard frame.streamID == 1 else { continue }
            switch frame.payload {
            case .headers(let headers):
                seen.append(headers.headers.first(name: ":status") ?? "trailers")
                if headers.endStream { seen.append("end") }
            case .data(let data):
                if case .byteBuffer(let bytes) = data.data, bytes.readableBytes > 0 { seen.append(String(buffer: bytes)) }
                if data.endStream { seen.append("end") }
            case .rstStream: seen.append("reset")
            default: break
            }
        }
        return seen
    }

    private func move() throws {
        while true {
            proxy.loop.run()
            let bytes = try bytes(of: channel)
            let answer = try self.bytes(of: proxy.client)
            if bytes.readableBytes == 0, answer.readableBytes == 0 { return }
            if bytes.readableBytes > 0 { _ = try proxy.client.writeInbound(bytes) }
            if answer.readableBytes > 0 { _ = try channel.writeInbound(answer) }
        }
    }

    private func bytes(of channel: EmbeddedChannel) throws -> ByteBuffer {
        var all = ByteBuffer()
        while case .byteBuffer(var bytes)? = try channel.readOutbound(as: IOData.self) { all.writeBuffer(&bytes) }
        return all
    }
}
