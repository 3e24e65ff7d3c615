import Glibc
import NIOCore

/// The body of a message of HTTP/1.1, and where it ends: RFC 9112 §6 and §7.
///
/// Chunks can be had in two forms: their data alone, or whole, with framing that was checked and is passed on as it came. The last chunk
/// and the trailers are always taken apart.
package struct BodyDecoder {
    package enum Framing: Equatable {
        case none
        case length(Int)
        case chunked
        /// Ends with the connection; of responses only.
        case untilClose
    }

    package enum Step {
        case needMore
        case bytes(ByteBuffer)
        /// The trailers, nil if there are none.
        case end(FieldSection?)
    }

    private enum State: Equatable {
        case length(Int)
        case untilClose
        case chunkSize
        /// Bytes of data left.
        case chunkData(Int)
        /// After the data: `\r` first.
        case chunkCR, chunkLF
        case trailers
        case ended
    }

    package struct Limits {
        package var section: Int
        package var fields: HeadParser.Limits

        package init(section: Int, fields: HeadParser.Limits) {
            self.section = section
            self.fields = fields
        }
    }

    private var state: State
    private let isRaw: Bool
    private let limits: Limits
    private var scanner = HeadScanner(startLine: false)
    /// Framing beyond what data excuses.
    private var overhead = 0

    /// - Parameter raw: chunks are wanted with their framing.
    package init(_ framing: Framing, raw: Bool, limits: Limits) {
        isRaw = raw
        self.limits = limits
        state =
            switch framing {
            case .none: .length(0)
            case .length(let count): .length(count)
            case .chunked: .chunkSize
            case .untilClose: .untilClose
            }
    }

    var endsWithConnection: Bool { state == .untilClose }

    /// Takes the next piece off the front of `buffer`. To be called until it says `needMore` or `end`.
    package mutating func decode(_ buffer: inout ByteBuffer) throws(HeadFault) -> Step {
        switch state {
        case .length(0), .ended:
            state = .ended
            return .end(nil)
        case .length(let left):
            guard let piece = buffer.readSlice(length: min(left, buffer.readableBytes)), piece.readableBytes > 0 else { return .needMore }
            state = .length(left &- piece.readableBytes)
            return .bytes(piece)
        case .untilClose:
            guard buffer.readableBytes > 0, let piece = buffer.readSlice(length: buffer.readableBytes) else { return .needMore }
            return .bytes(piece)
        case .chunkSize, .chunkData, .chunkCR, .chunkLF: return isRaw ? try decodeRaw(&buffer) : try decodeData(&buffer)
        case .trailers: return try decodeTrailers(&buffer)
        }
    }

    /// Data of one chunk at a time.
    private mutating func decodeData(_ buffer: inout ByteBuffer) throws(HeadFault) -> Step {
        while true {
            if case .chunkData(let left) = state {
                guard let piece = buffer.readSlice(length: min(left, buffer.readableBytes)), piece.readableBytes > 0 else {
                    return .needMore
                }
                state = piece.readableBytes == left ? .chunkCR : .chunkData(left &- piece.readableBytes)
                return .bytes(piece)
            }
            if state == .trailers { return try decodeTrailers(&buffer) }
            let progress: Result<Int, HeadFault> = buffer.withUnsafeReadableBytes { advance($0, from: 0) }
            let end = try progress.get()
            guard end > 0 else { return .needMore }
            buffer.moveReaderIndex(forwardBy: end)
        }
    }

    /// As many chunks as there are.
    private mutating func decodeRaw(_ buffer: inout ByteBuffer) throws(HeadFault) -> Step {
        let progress: Result<(index: Int, last: Int), HeadFault> = buffer.withUnsafeReadableBytes { bytes in
            var index = 0
            while index < bytes.count {
                if case .chunkData(let left) = state {
                    let count = min(left, bytes.count &- index)
                    index &+= count
                    state = count == left ? .chunkCR : .chunkData(left &- count)
                    continue
                }
                switch advance(bytes, from: index) {
                case .failure(let fault): return .failure(fault)
                case .success(let end):
                    if state == .trailers { return .success((index, end &- index)) }
                    if end == index { return .success((index, 0)) }
                    index = end
                }
            }
            return .success((index, 0))
        }
        let (count, last) = try progress.get()
        let piece = buffer.readSlice(length: count)
        buffer.moveReaderIndex(forwardBy: last)
        if let piece, piece.readableBytes > 0 { return .bytes(piece) }
        return state == .trailers ? try decodeTrailers(&buffer) : .needMore
    }

    /// One step of framing. Answers where it ends: at `start` if there are too few bytes.
    private mutating func advance(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Result<Int, HeadFault> {
        guard start < bytes.count else { return .success(start) }
        switch state {
        case .chunkCR:
            guard bytes[start] == 0x0D else { return .failure(.chunkEnd) }
            state = .chunkLF
            return .success(start &+ 1)
        case .chunkLF:
            guard bytes[start] == 0x0A else { return .failure(.chunkEnd) }
            state = .chunkSize
            return .success(start &+ 1)
        case .chunkSize: return chunkSize(bytes, from: start)
        case .length, .untilClose, .chunkData, .trailers, .ended: return .success(start)
        }
    }

    /// `chunk-size [ chunk-ext ] CRLF`, RFC 9112 §7.1. Extensions are ignored, but must be made of what they may be made of.
    private mutating func chunkSize(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Result<Int, HeadFault> {
        let incomplete: Result<Int, HeadFault> =
            bytes.count &- start >= Self.maximumSizeLine ? .failure(.chunkExtension) : .success(start)
        var index = start
        var size = 0
        while index < bytes.count, let digit = Self.hexadecimal(bytes[index]) {
            guard index &- start < Self.maximumDigits else { return .failure(.chunkSize) }
            size = size << 4 | digit
            index &+= 1
        }
        guard index < bytes.count else { return incomplete }
        guard index > start else { return .failure(.chunkSize) }
        // `;token`, `;token=token` or `;token="quoted"`, any number of them.
        while index < bytes.count, bytes[index] != 0x0D {
            guard bytes[index] == UInt8(ascii: ";") else { return .failure(.chunkExtension) }
            let name = index &+ 1
            index = Self.tokenEnd(bytes, from: name)
            guard index < bytes.count else { return incomplete }
            guard index > name else { return .failure(.chunkExtension) }
            if bytes[index] == UInt8(ascii: "=") {
                let value = index &+ 1
                index = Self.valueEnd(bytes, from: value)
                guard index < bytes.count else { return incomplete }
                guard index > value else { return .failure(.chunkExtension) }
            }
        }
        guard index &+ 1 < bytes.count else { return incomplete }
        guard bytes[index &+ 1] == 0x0A else { return .failure(.lineEnd) }
        let end = index &+ 2
        guard end &- start <= Self.maximumSizeLine else { return .failure(.chunkExtension) }
        overhead = max(0, overhead &+ (end &- start) &- 16 &- min(size, 1 << 20) &* 2)
        guard overhead <= Self.maximumOverhead else { return .failure(.chunkOverhead) }
        if size == 0 {
            state = .trailers
            scanner = HeadScanner(startLine: false)
        } else {
            state = .chunkData(size)
        }
        return .success(end)
    }

    private mutating func decodeTrailers(_ buffer: inout ByteBuffer) throws(HeadFault) -> Step {
        guard case .complete(let count) = try scanner.scan(buffer, limits: .init(startLine: 0, section: limits.section)),
            let bytes = buffer.readSlice(length: count)
        else { return .needMore }
        state = .ended
        return .end(count == 2 ? nil : try HeadParser.trailers(bytes, limits: limits.fields))
    }

    private static func tokenEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        var index = start
        while index < bytes.count, HeaderBytes.isToken(bytes[index]) { index &+= 1 }
        return index
    }

    /// Of a token, or of a quoted string (RFC 9110 §5.6.4): the end of the bytes if that is not closed, the start if it is none.
    private static func valueEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        guard start < bytes.count, bytes[start] == UInt8(ascii: "\"") else { return tokenEnd(bytes, from: start) }
        var index = start &+ 1
        while index < bytes.count, bytes[index] != UInt8(ascii: "\"") {
            if bytes[index] == UInt8(ascii: "\\") { index &+= 1 }
            guard index < bytes.count else { break }
            guard HeaderBytes.isValue(bytes[index]) else { return start }
            index &+= 1
        }
        return min(index &+ 1, bytes.count)
    }

    private static func hexadecimal(_ byte: UInt8) -> Int? {
        switch byte {
        case 0x30...0x39: Int(byte &- 0x30)
        case 0x41...0x46: Int(byte &- 0x37)
        case 0x61...0x66: Int(byte &- 0x57)
        default: nil
        }
    }

    /// 60 bits.
    private static let maximumDigits = 15
    /// Its line end included.
    private static let maximumSizeLine = 1024
    private static let maximumOverhead = 16 * 1024
}
