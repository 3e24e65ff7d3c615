import NIOCore
import NIOEmbedded
import NIOHTTP1

/// The same bytes through NIO's decoder (llhttp): what ours accepts, the other has to read in the same way. Ours may refuse more.
///
/// Three differences are none: llhttp knows a list of methods where ours takes any token; NIO leaves blanks behind a value; and llhttp goes
/// by fields of the trailers that belong to the head (RFC 9110 §6.5.1), where ours throws them away.
package enum HTTP1Peer {
    /// - Parameters:
    ///   - ours: what our parser makes of the bytes.
    /// - Returns: what the two do not agree on, nil if they do.
    package static func disagreement(on bytes: [UInt8], _ ours: HTTP1Reading, as side: HTTP1Reader.Side) -> String? {
        guard !ours.messages.isEmpty else { return nil }
        let channel = EmbeddedChannel()
        defer { _ = try? channel.finish() }
        var fault: (any Error)?
        var theirs: [HTTP1Message] = []
        do {
            // What ours has not accepted the other need not see.
            let accepted = ByteBuffer(bytes: bytes[..<ours.consumed])
            switch side {
            case .requests: fault = try feed(channel, ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes)), accepted)
            case .responses(let toHEAD):
                let decoder = HTTPResponseDecoder(leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .forward)
                let method = toHEAD ? HTTPMethod.HEAD : .GET
                fault = try feed(
                    channel, ByteToMessageHandler(decoder), accepted, to: Array(repeating: method, count: ours.messages.count))
            }
            theirs = side == .requests ? try requests(channel) : try responses(channel)
        } catch {
            return "NIO fails: \(error)"
        }
        if let odd = ours.messages.firstIndex(where: hasOddTrailers), odd < theirs.count {
            var (last, theirLast) = (ours.messages[odd], theirs[odd])
            (last.trailers, theirLast.trailers, last.isWhole, theirLast.isWhole) = ([], [], true, true)
            let isSame = ours.messages[..<odd] == theirs[..<odd] && last == theirLast
            return isSame ? nil : "up to odd trailers: ours \(ours.messages), NIO's \(theirs)"
        }
        if fault != nil, side == .requests, theirs.count < ours.messages.count, isUnknown(ours.messages[theirs.count].start[0]) {
            return Array(ours.messages.prefix(theirs.count)) == theirs
                ? nil : "before an unknown method: ours \(ours.messages), NIO's \(theirs)"
        }
        if let fault { return "NIO refuses with \(fault): \(ours.messages)" }
        return ours.messages == theirs ? nil : "ours \(ours.messages), NIO's \(theirs)"
    }

    private static func hasOddTrailers(_ message: HTTP1Message) -> Bool {
        message.trailers.contains { line in
            ["content-length", "transfer-encoding", "connection", "proxy-connection", "upgrade"].contains {
                line.lowercased().hasPrefix("\($0):")
            }
        }
    }

    /// Not in llhttp's list, or there as one of another protocol's.
    private static func isUnknown(_ method: String) -> Bool { HTTPMethod(rawValue: method) == .RAW(value: method) }

    /// - Parameter methods: of the requests that the bytes answer.
    private static func feed(
        _ channel: EmbeddedChannel, _ decoder: some ChannelHandler, _ bytes: ByteBuffer, to methods: [HTTPMethod] = []
    ) throws -> (any Error)? {
        try channel.pipeline.syncOperations.addHandler(decoder)
        for method in methods {
            try channel.writeOutbound(HTTPClientRequestPart.head(HTTPRequestHead(version: .http1_1, method: method, uri: "/")))
        }
        do {
            try channel.writeInbound(bytes)
            return nil
        } catch {
            return error
        }
    }

    private static func requests(_ channel: EmbeddedChannel) throws -> [HTTP1Message] {
        var messages: [HTTP1Message] = []
        while let part = try channel.readInbound(as: HTTPServerRequestPart.self) {
            switch part {
            case .head(let head):
                messages.append(HTTP1Message(start: [head.method.rawValue, head.uri], fields: head.headers.map(line)))
            case .body(let data): messages[messages.count - 1].body += data.readableBytesView
            case .end(let trailers): end(&messages[messages.count - 1], trailers)
            }
        }
        return messages
    }

    private static func responses(_ channel: EmbeddedChannel) throws -> [HTTP1Message] {
        var messages: [HTTP1Message] = []
        while let part = try channel.readInbound(as: HTTPClientResponsePart.self) {
            switch part {
            case .head(let head):
                var message = HTTP1Message(start: [String(head.status.code)], fields: head.headers.map(line))
                // NIO says no end of these.
                message.isWhole = (100..<200).contains(head.status.code) && head.status.code != 101
                messages.append(message)
            case .body(let data): messages[messages.count - 1].body += data.readableBytesView
            case .end(let trailers): end(&messages[messages.count - 1], trailers)
            }
        }
        return messages
    }

    private static func end(_ message: inout HTTP1Message, _ trailers: HTTPHeaders?) {
        message.trailers = trailers?.map(line) ?? []
        message.isWhole = true
    }

    /// A field as a line without blanks behind it.
    static func line(_ field: (name: String, value: String)) -> String {
        var value = Substring(field.value)
        while let last = value.utf8.last, last == 0x20 || last == 0x09 { value = value.dropLast() }
        return "\(field.name): \(value)"
    }
}
