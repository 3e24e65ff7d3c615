import NIOCore
import NIOHPACK
import Proxy

/// A header block of HTTP/2 on its way to an upstream of HTTP/1.1: what the rules accept becomes one request there and nothing else, for our
/// parser and for NIO's.
///
/// Bit 0 of the first byte ends the stream, bit 1 keeps what the client says of itself; the rest is HPACK.
struct HTTP2FieldsScript {
    private let first: UInt8
    private let block: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) {
        first = bytes.first ?? 0
        block = bytes.dropFirst()
    }

    func run() {
        var decoder = HPACKDecoder(allocator: ByteBufferAllocator())
        var buffer = ByteBuffer(bytes: block)
        guard let headers = try? decoder.decodeHeaders(from: &buffer),
            case .success(let (section, pseudo)) = HTTP2Fields.section(headers, limits: ProxyLimits()), let method = pseudo.method
        else { return }
        let checked = RequestRules.check(
            method: method, path: pseudo.path ?? .empty, authority: pseudo.authority, protocol: pseudo.protocol, section,
            endStream: first & 1 != 0, forwarded: first & 2 == 0 ? .drop : .keep)
        guard case .success(let request) = checked, let host = HostName.normalize(request.authorityText) else { return }
        let isConnect = request.method == .connect
        var head = ByteBuffer()
        RequestWriter.write(
            OutgoingRequest(request: request, host: host, added: ByteBuffer(), upgrade: isConnect ? "websocket" : nil), into: &head)
        let bytes = Array(head.readableBytesView)
        let reading = HTTP1Reader(.requests, limits: Self.wide).read(bytes)
        require(
            reading.messages.count == 1 && reading.consumed == bytes.count && reading.end != .refused,
            "it becomes \(String(decoding: bytes, as: UTF8.self).debugDescription)")
        let message = reading.messages[0]
        require(message.start == [isConnect ? "GET" : request.methodText, request.targetText], "it becomes \(message.start)")
        // Crumbs of cookies that are put together may end with a blank, which no reader takes for a part of the value.
        let kept = request.section.fields.map { HTTP1Peer.line($0) }
        require(message.fields.first == "Host: \(host)" && message.fields.dropFirst().starts(with: kept), "it becomes \(message.fields)")
        require(message.isWhole == (isConnect || !request.hasBody), "a body from nowhere")
        if let words = HTTP1Peer.disagreement(on: bytes, reading, as: .requests) { fatalError(words) }
    }

    /// Some fields of ours come on top.
    static let wide: ProxyLimits = {
        var limits = ProxyLimits()
        limits.headerFieldSize = 1 << 20
        limits.headerListSize = 1 << 20
        limits.headerFieldCount = 256
        return limits
    }()
}
