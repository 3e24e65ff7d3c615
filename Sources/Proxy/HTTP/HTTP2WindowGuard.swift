import NIOCore
import NIOHTTP2

/// Before NIO's handler: says when the peer makes its streams' windows smaller, which may leave them below zero (RFC 9113 §6.9.2). NIO's
/// handler traps over DATA without data that is due while its stream's window is below zero: none may be there by then.
final class HTTP2WindowGuard: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let onSmaller: () -> Void
    /// Bytes to pass over: the preface, or the rest of a frame.
    private var skipped: Int
    /// What is left of a SETTINGS frame.
    private var settings = 0
    /// The peer's first frame is its SETTINGS, and there is no stream yet.
    private var isFirst = true
    private var hasHead = false
    /// A frame's head, or one setting.
    private var piece: [UInt8] = []
    private var window = UInt32(HTTP2Window.standard)

    init(_ mode: NIOHTTP2Handler.ParserMode, onSmaller: @escaping () -> Void) {
        self.onSmaller = onSmaller
        skipped = mode == .server ? Self.prefaceLength : 0
        piece.reserveCapacity(Self.headLength)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if read(unwrapInboundIn(data)) { onSmaller() }
        context.fireChannelRead(data)
    }

    /// - Returns: whether a window gets smaller.
    private func read(_ bytes: ByteBuffer) -> Bool {
        var bytes = bytes
        var isSmaller = false
        while bytes.readableBytes > 0 {
            if skipped > 0 {
                let count = min(skipped, bytes.readableBytes)
                bytes.moveReaderIndex(forwardBy: count)
                skipped -= count
                continue
            }
            let length = settings > 0 ? Self.settingLength : Self.headLength
            let part = bytes.readableBytesView.prefix(length - piece.count)
            piece += part
            bytes.moveReaderIndex(forwardBy: part.count)
            guard piece.count == length else { break }
            if settings > 0 {
                settings -= Self.settingLength
                isSmaller = takeSetting() && !isFirst || isSmaller
            } else {
                isFirst = isFirst && !hasHead
                hasHead = true
                takeHead()
            }
            piece.removeAll(keepingCapacity: true)
        }
        return isSmaller
    }

    private func takeHead() {
        let length = Int(piece[0]) << 16 | Int(piece[1]) << 8 | Int(piece[2])
        // Of another length it is no SETTINGS frame that anybody would take.
        if piece[3] == Self.settingsType, length % Self.settingLength == 0 { settings = length } else { skipped = length }
    }

    private func takeSetting() -> Bool {
        guard piece[0] == 0, piece[1] == Self.initialWindowSize else { return false }
        let value = piece[2...].reduce(0) { $0 << 8 | UInt32($1) }
        defer { window = value }
        return value < window
    }

    private static let prefaceLength = 24
    // RFC 9113 §4.1 and §6.5.1.
    private static let headLength = 9
    private static let settingLength = 6
    private static let settingsType: UInt8 = 4
    private static let initialWindowSize: UInt8 = 4
}
