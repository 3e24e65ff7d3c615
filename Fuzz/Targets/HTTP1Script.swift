import NIOCore
import Proxy

/// The first byte says how, the others are messages: read as requests and as responses, whole and in pieces, with chunks taken apart and
/// passed on, and by NIO.
///
/// Bit 0 of the first byte asks for limits that a few lines reach, bit 1 takes responses for answers to HEAD, the rest chooses the cuts.
struct HTTP1Script {
    private let bytes: [UInt8]
    private let first: UInt8

    init(_ bytes: [UInt8]) {
        first = bytes.first ?? 0
        self.bytes = Array(bytes.dropFirst())
    }

    func run() {
        run(.requests)
        run(.responses(toHEAD: first & 2 != 0))
    }

    private func run(_ side: HTTP1Reader.Side) {
        let limits = first & 1 == 0 ? ProxyLimits() : Self.small
        let reader = HTTP1Reader(side, limits: limits)
        let whole = reader.read(bytes)
        require(whole.consumed <= bytes.count && (whole.consumed > 0) == !whole.messages.isEmpty, "bytes from nowhere")
        require(whole.messages.dropLast().allSatisfy(\.isWhole), "a message begins before the last one has ended")
        for cuts in [random, bytes.count <= 1024 ? Array(1..<max(1, bytes.count)) : []] where !cuts.isEmpty {
            let pieces = reader.read(bytes, cuts: cuts)
            require(pieces == whole, "in pieces it is \(pieces), whole \(whole)")
        }
        if let words = HTTP1Peer.disagreement(on: bytes, whole, as: side) { fatalError(words) }
        checkRaw(HTTP1Reader(side, limits: limits, raw: true), whole)
    }

    /// Chunks that are passed on as they came are the same body for who reads them next.
    private func checkRaw(_ reader: HTTP1Reader, _ whole: HTTP1Reading) {
        for cuts in [[], random] {
            var raw = reader.read(bytes, cuts: cuts)
            require(raw.messages.count == whole.messages.count && raw.end == whole.end, "with chunks it is \(raw), without \(whole)")
            for (index, message) in whole.messages.enumerated() where raw.messages[index].body != message.body {
                raw.messages[index].body = Self.body(of: raw.messages[index].body)
                // Chunks before one that is bad may have come with it.
                if raw.end == .refused, index == whole.messages.count - 1 {
                    require(message.body.starts(with: raw.messages[index].body), "with chunks it is \(raw), without \(whole)")
                } else {
                    require(raw.messages[index] == message, "with chunks it is \(raw), without \(whole)")
                }
            }
        }
    }

    private static func body(of chunks: [UInt8]) -> [UInt8] {
        var decoder = BodyDecoder(.chunked, raw: false, limits: ProxyLimits().body)
        var buffer = ByteBuffer(bytes: chunks)
        var body: [UInt8] = []
        do {
            while case .bytes(let data) = try decoder.decode(&buffer) { body += data.readableBytesView }
        } catch {
            fatalError("chunks that were passed on are refused: \(error)")
        }
        return body
    }

    /// Cuts that the first byte and the length choose: mostly a few bytes apart, at times many.
    private var random: [Int] {
        var state = UInt32(first >> 2) &* 0x9E37_79B9 &+ UInt32(truncatingIfNeeded: bytes.count) | 1
        var cuts: [Int] = []
        var position = 0
        while true {
            state ^= state << 13
            state ^= state >> 17
            state ^= state << 5
            position += 1 + Int(state >> 8) % (state & 7 == 0 ? 700 : 24)
            guard position < bytes.count else { return cuts }
            cuts.append(position)
        }
    }

    private static let small: ProxyLimits = {
        var limits = ProxyLimits()
        limits.requestLineSize = 40
        limits.headerFieldSize = 32
        limits.headerListSize = 160
        limits.headerFieldCount = 4
        return limits
    }()
}
