import NIOCore
import Proxy

/// A message of HTTP/1.1 as text, so that what two parsers make of the same bytes can be compared.
package struct HTTP1Message: Equatable {
    /// Method and target, or the status code.
    package var start: [String]
    package var fields: [String]
    package var body: [UInt8] = []
    package var trailers: [String] = []
    /// Its end was met; else its head is accepted, and the body is what there is of it.
    package var isWhole = false
}

/// What a parser makes of some bytes.
package struct HTTP1Reading: Equatable {
    package enum End: Equatable {
        /// The bytes end.
        case incomplete
        case refused
        /// What follows the last message is not read: the connection closes, or may change to another protocol.
        case last
    }

    package var messages: [HTTP1Message] = []
    /// The messages are made of so many bytes from the front.
    package var consumed = 0
    package var end = End.incomplete
}

/// Bytes through our parser as both ends of a connection use it: scanner, head, rules, body; message after message.
///
/// What must hold whatever the bytes are is checked on the way, and traps.
package struct HTTP1Reader {
    package enum Side: Equatable {
        case requests
        case responses(toHEAD: Bool)
    }

    private struct Refused: Error {}

    /// Bytes that come in pieces.
    private struct Input {
        let bytes: [UInt8]
        var cuts: ArraySlice<Int>
        var buffer = ByteBuffer()
        var fed = 0

        var consumed: Int { fed - buffer.readableBytes }

        mutating func more() -> Bool {
            guard fed < bytes.count else { return false }
            let end = cuts.popFirst() ?? bytes.count
            buffer.writeBytes(bytes[fed..<end])
            fed = end
            return true
        }
    }

    /// What a head says about what comes behind it.
    private struct Head {
        var message: HTTP1Message
        var framing: BodyDecoder.Framing
        var isLast: Bool
    }

    private let side: Side
    private let limits: ProxyLimits
    private let isRaw: Bool

    /// - Parameter raw: whether bodies keep the framing of their chunks.
    package init(_ side: Side, limits: ProxyLimits = ProxyLimits(), raw: Bool = false) {
        self.side = side
        self.limits = limits
        isRaw = raw
    }

    /// - Parameter cuts: where the bytes are cut, ascending; in one piece if there are none.
    package func read(_ bytes: [UInt8], cuts: [Int] = []) -> HTTP1Reading {
        var input = Input(bytes: bytes, cuts: cuts[...])
        var reading = HTTP1Reading()
        do {
            while try readMessage(&input, &reading) {}
        } catch {
            reading.end = .refused
        }
        return reading
    }

    /// Whether another message may follow.
    private func readMessage(_ input: inout Input, _ reading: inout HTTP1Reading) throws -> Bool {
        guard let bytes = try scan(&input) else { return false }
        let head = side == .requests ? try request(bytes) : try response(bytes)
        reading.messages.append(head.message)
        reading.consumed = input.consumed
        let index = reading.messages.count - 1
        var decoder = BodyDecoder(head.framing, raw: isRaw, limits: limits.body)
        while true {
            let step = try decoder.decode(&input.buffer)
            if case .needMore = step {
                if input.more() { continue }
                reading.consumed = input.consumed
                return false
            }
            // A fault that comes later leaves this as it is.
            reading.consumed = input.consumed
            switch step {
            case .needMore: break
            case .bytes(let data):
                require(data.readableBytes > 0, "an empty piece of a body")
                reading.messages[index].body += data.readableBytesView
                if case .length(let count) = head.framing { require(reading.messages[index].body.count <= count, "a body too long") }
            case .end(let trailers):
                if let trailers {
                    require(head.framing == .chunked, "trailers without chunks")
                    checkLimits(of: trailers)
                    if let kept = RequestRules.trailers(trailers) { checkWritten(kept, of: trailers) }
                }
                if case .length(let count) = head.framing { require(reading.messages[index].body.count == count, "a body too short") }
                reading.messages[index].trailers = Self.lines(trailers)
                reading.messages[index].isWhole = true
                if head.isLast { reading.end = .last }
                return !head.isLast
            }
        }
    }

    /// The next head, or nil if there is none yet.
    private func scan(_ input: inout Input) throws -> ByteBuffer? {
        var scanner = HeadScanner(startLine: true)
        while true {
            switch try scanner.scan(input.buffer, limits: limits.head) {
            case .incomplete: if !input.more() { return nil }
            case .complete(let count):
                require(scanner.skipped <= 4 && scanner.skipped < count && count <= input.buffer.readableBytes, "a head beyond its bytes")
                guard scanner.skipped == 0 || side == .requests else { throw Refused() }
                input.buffer.moveReaderIndex(forwardBy: scanner.skipped)
                guard let head = input.buffer.readSlice(length: count - scanner.skipped) else { return nil }
                require(head.readableBytes <= limits.requestLineSize + limits.headerListSize, "a head too long")
                return head
            }
        }
    }

    private func request(_ bytes: ByteBuffer) throws -> Head {
        let (line, section) = try HeadParser.request(bytes, limits: limits.fields)
        checkLimits(of: section)
        let request = try RequestRules.check(line, section, forwarded: .keep).get()
        guard HostName.normalize(request.authorityText) != nil else { throw Refused() }
        checkWritten(request.section, of: section)
        require(section.text(line.target).utf8.count <= limits.requestLineSize, "a target too long")
        let framing: BodyDecoder.Framing =
            switch request.framing {
            case .none: .none
            case .length(let count): .length(count)
            case .chunked: .chunked
            }
        return Head(
            message: HTTP1Message(start: [section.text(line.method), section.text(line.target)], fields: Self.lines(section)),
            framing: framing, isLast: !request.keepAlive || Self.names(of: section).contains("upgrade"))
    }

    private func response(_ bytes: ByteBuffer) throws -> Head {
        let (line, section) = try HeadParser.response(bytes, limits: limits.fields)
        checkLimits(of: section)
        let response = try ResponseRules.check(
            code: line.code, reason: line.reason, isHTTP10: line.minorVersion == 0, section, isHEAD: side == .responses(toHEAD: true),
            rawChunks: isRaw
        ).get()
        checkWritten(response.section, of: section)
        let framing: BodyDecoder.Framing =
            switch response.framing {
            case .none: .none
            case .length(let count): .length(count)
            case .chunked: .chunked
            case .untilClose: .untilClose
            }
        // The proxy waits for a final answer behind a 1xx of a connection that closes; NIO's decoder does not.
        return Head(
            message: HTTP1Message(start: [String(line.code)], fields: Self.lines(section)), framing: framing,
            isLast: line.code == 101 || !response.keepAlive)
    }

    private func checkLimits(of section: FieldSection) {
        require(section.lines.count <= limits.headerFieldCount, "more fields than are allowed")
        for line in section.fields {
            require(max(line.name.utf8.count, line.value.utf8.count) <= limits.headerFieldSize * 3, "a field longer than is allowed")
        }
    }

    /// What would be passed on: it is read as the same fields again, and none of them frames the message or belongs to one hop.
    private func checkWritten(_ kept: FieldSection, of whole: FieldSection) {
        require(kept.lines.count <= whole.lines.count, "fields from nowhere")
        var bytes = ByteBuffer()
        kept.write(into: &bytes)
        bytes.writeStaticString("\r\n")
        var scanner = HeadScanner(startLine: false)
        let progress = try? scanner.scan(bytes, limits: .init(startLine: 0, section: .max / 2))
        require(progress == .complete(bytes.readableBytes), "what is written ends early or late")
        let again = try? HeadParser.trailers(bytes, limits: .init(fieldSize: .max, fieldCount: .max))
        require(again.map(Self.lines) == Self.lines(kept), "what is written is read otherwise")
        for name in Self.names(of: kept) { require(!Self.framing.contains(name), "\(name) is passed on") }
    }

    private static func lines(_ section: FieldSection?) -> [String] { section?.fields.map { "\($0.name): \($0.value)" } ?? [] }
    private static func names(of section: FieldSection) -> [String] { section.fields.map { $0.name.lowercased() } }

    private static let framing: Set<String> = [
        "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade", "te",
    ]
}

/// A precondition that says in release builds, too, what is wrong.
func require(_ condition: Bool, _ words: @autoclosure () -> String) {
    if !condition { fatalError(words()) }
}
