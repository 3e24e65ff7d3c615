import NIOCore
import NIOHPACK
import NIOHTTP2

/// What NIO's handler is told for each kind of connection, and what it does not say by itself.
enum HTTP2Setup {
    /// - Parameters:
    ///   - isShared: between gateway, agent and service, where a connection carries the requests of many clients, and none of them may
    ///     bring it down: what one does to its streams is not counted against all.
    static func handler(
        _ mode: NIOHTTP2Handler.ParserMode, settings: HTTP2Settings, isShared: Bool, frames: HTTP2FrameWatch
    ) -> NIOHTTP2Handler {
        var connection = NIOHTTP2Handler.ConnectionConfiguration()
        var stream = NIOHTTP2Handler.StreamConfiguration()
        connection.initialSettings = settings
        connection.maximumSequentialContinuationFrames = HTTP2Window.continuationFrames
        connection.maximumBufferedControlFrames = isShared ? HTTP2Window.sharedControlFrames : HTTP2Window.controlFrames
        connection.maximumSequentialEmptyDataFrames = HTTP2Window.emptyFrames
        if isShared {
            connection.initialSettings.append(HTTP2Setting(parameter: .maxFrameSize, value: HTTP2Window.sharedFrameSize))
            connection.maximumRecentlyResetStreams = sharedCount
            connection.maximumConnectionGlitches = .max
            connection.maximumSequentialEmptyDataFrames = sharedCount
            (connection.controlFrameRateLimit.maximumCount, connection.controlFrameRateLimit.windowLength) = (sharedCount, .seconds(1))
            (stream.streamResetFrameRateLimit.maximumCount, stream.streamResetFrameRateLimit.windowLength) = (sharedCount, .seconds(1))
            (stream.streamErrorRateLimit.maximumCount, stream.streamErrorRateLimit.windowLength) = (sharedCount, .seconds(1))
        } else {
            connection.maximumRecentlyResetStreams = recentlyReset
            // A client that measures its path sends a PING each round trip; one that scrolls through a map cancels many requests.
            (connection.controlFrameRateLimit.maximumCount, connection.controlFrameRateLimit.windowLength) = (controlFrames, .seconds(1))
            stream.streamResetFrameRateLimit.windowLength = .seconds(5)
        }
        return NIOHTTP2Handler(mode: mode, frameDelegate: frames, connectionConfiguration: connection, streamConfiguration: stream)
    }

    /// Each costs eight bytes of a connection's memory, and a look at all when a frame comes for a stream that is not there.
    private static let sharedCount = 10_000
    private static let recentlyReset = 512
    private static let controlFrames = 400
}

/// What the peer takes of a header section, RFC 9113 §6.5.2.
struct HTTP2PeerLimits {
    private var frameSize = HTTP2Window.standardFrameSize
    /// Not every peer names one.
    private var headerListSize = Int.max

    mutating func take(_ setting: HTTP2Setting) {
        switch setting.parameter {
        case .maxFrameSize: frameSize = setting.value
        case .maxHeaderListSize: headerListSize = setting.value
        default: break
        }
    }

    /// Whether the peer takes it, in one frame: NIO's handler writes no CONTINUATION, and ends the connection over what does not fit.
    func allow(_ headers: HPACKHeaders) -> Bool {
        let bytes = headers.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
        guard bytes + headers.count * Self.fieldOverhead <= headerListSize else { return false }
        if bytes * Self.longestCode + headers.count * Self.longestPrefix + Self.frameOverhead <= frameSize { return true }
        var encoder = HPACKEncoder(allocator: ByteBufferAllocator(), maxDynamicTableSize: 0)
        var buffer = ByteBuffer()
        guard (try? encoder.encode(headers: headers, to: &buffer)) != nil else { return false }
        return buffer.readableBytes + Self.frameOverhead <= frameSize
    }

    /// The same of the fields of an answer, to which a status and a length are added. Quick; false if it is not certain.
    func certainlyAllow(_ section: FieldSection) -> Bool {
        let (bytes, count) = (section.bytes.readableBytes, section.lines.count)
        // A byte that is not UTF-8 becomes two.
        return 2 * bytes + count * Self.fieldOverhead + Self.added <= headerListSize
            && 2 * bytes * Self.longestCode + count * Self.longestPrefix + Self.added <= frameSize
    }

    /// Bytes that Huffman's code makes of one at most, RFC 7541 appendix B.
    private static let longestCode = 4
    private static let longestPrefix = 16
    /// RFC 9113 §6.5.2.
    private static let fieldOverhead = 32
    private static let frameOverhead = 64
    private static let added = 256
}

/// Tells what an error that NIO's handler reports is about: it writes RST_STREAM or GOAWAY just before it reports what a peer did wrong.
final class HTTP2FrameWatch: NIOHTTP2FrameDelegate {
    private enum Last { case reset, farewell, other }

    private var last = Last.other

    func wroteFrame(_ frame: HTTP2Frame) {
        switch frame.payload {
        case .rstStream: last = .reset
        case .goAway(_, let code, _): last = code == .noError ? .other : .farewell
        default: last = .other
        }
    }

    /// Once for each error. What is reported without either is a frame of our own that was held back while the channel took nothing, and
    /// whose stream has ended meanwhile: nobody's fault.
    func endsConnection(_ error: any Error) -> Bool {
        defer { last = .other }
        switch last {
        case .reset: return false
        case .farewell: return true
        case .other:
            return
                !(error is NIOHTTP2Errors.StreamError || error is NIOHTTP2Errors.NoSuchStream
                || error is NIOHTTP2Errors.BadStreamStateTransition || error is NIOHTTP2Errors.CreatedStreamAfterGoaway)
        }
    }
}

/// Keeps HEADERS before the DATA behind them. NIO's handler holds both back while the channel takes nothing, HEADERS until they are
/// flushed, but DATA only until the channel takes something again: between the two it would send DATA alone, and drop it for that.
struct HTTP2FrameOrder {
    private var wasUnwritable = false

    /// HEADERS that were written just now may be held back, and are to be flushed before DATA is written.
    func isAtRisk(_ channel: any Channel) -> Bool { wasUnwritable || !channel.isWritable }

    mutating func writabilityChanged(_ channel: any Channel) {
        if !channel.isWritable { wasUnwritable = true }
    }

    /// Nothing is held back any more if the channel takes more.
    mutating func flushed(_ channel: any Channel) { wasUnwritable = !channel.isWritable }
}

/// Which header fields the peer is to remember, RFC 7541 §6.2: those that come again, in a table that stays small whatever size the peer
/// allows. A table is searched from end to end for each field.
struct HeaderIndexing {
    private var remembered: Set<Int> = []
    private var recent: [Int] = []
    private var nextPlace = 0
    private var budget = Self.tableBudget

    mutating func indexing(_ name: String, _ value: String) -> HPACKIndexing {
        let size = name.utf8.count + value.utf8.count
        guard size <= Self.longest else { return .nonIndexable }
        var hasher = Hasher()
        hasher.combine(name)
        hasher.combine(value)
        let hash = hasher.finalize()
        if remembered.contains(hash) { return .indexable }
        if recent.contains(hash) {
            guard budget >= size + Self.entryOverhead else { return .nonIndexable }
            budget -= size + Self.entryOverhead
            remembered.insert(hash)
            return .indexable
        }
        if recent.count < Self.recentCount {
            recent.append(hash)
        } else {
            recent[nextPlace] = hash
            nextPlace = (nextPlace + 1) % Self.recentCount
        }
        return .nonIndexable
    }

    private static let longest = 256
    private static let recentCount = 64
    /// RFC 7541 §4.1.
    private static let entryOverhead = 32
    /// Bytes of all that is ever remembered on a connection.
    private static let tableBudget = 8 * 1024
}
