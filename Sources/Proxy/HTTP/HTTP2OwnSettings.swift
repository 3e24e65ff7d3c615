import NIOCore

/// Makes our SETTINGS hold from the client's first request on. NIO's handler goes by its own ones until the client has acknowledged ours, and
/// takes header sections of 16 KiB at most; but clients send requests right behind their preface, and know of no such limit (RFC 9113 §6.5.2,
/// §6.5.3). So it reads an acknowledgement behind the client's first SETTINGS, and not the one that the client sends later.
///
/// Ours allow more than the defaults, so whoever keeps to those does nothing wrong by them.
package final class HTTP2OwnSettings: ChannelInboundHandler, RemovableChannelHandler {
    package typealias InboundIn = ByteBuffer
    package typealias InboundOut = ByteBuffer

    private enum Phase {
        case preface, firstSettings, untilAcknowledged, done
    }

    private var phase = Phase.preface
    /// Bytes that go through before the next frame's head.
    private var skipped = HTTP2OwnSettings.prefaceLength
    /// The beginning of a frame's head.
    private var held = ByteBuffer()

    package init() {}

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if held.readableBytes > 0 {
            held.writeBuffer(&bytes)
            bytes = held
            held = ByteBuffer()
        }
        while phase != .done, bytes.readableBytes > 0 {
            if skipped > 0 {
                pass(&bytes, skipped, context)
            } else if let head = Head(bytes) {
                take(head, &bytes)
            } else {
                held = bytes
                return
            }
        }
        guard phase == .done else { return }
        pass(&bytes, bytes.readableBytes, context)
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    private func take(_ head: Head, _ bytes: inout ByteBuffer) {
        switch phase {
        case .preface:
            guard head.isSettings, !head.isAcknowledgement else {
                // The connection ends over it.
                phase = .done
                return
            }
            phase = .firstSettings
            skipped = Head.length + head.count
        case .untilAcknowledged:
            guard head.isSettings, head.isAcknowledgement, head.count == 0 else {
                skipped = Head.length + head.count
                return
            }
            bytes.moveReaderIndex(forwardBy: Head.length)
            phase = .done
        case .firstSettings, .done: break
        }
    }

    /// Hands on as much of what is skipped as is there.
    private func pass(_ bytes: inout ByteBuffer, _ count: Int, _ context: ChannelHandlerContext) {
        let count = min(count, bytes.readableBytes)
        guard count > 0, let slice = bytes.readSlice(length: count) else { return }
        skipped = max(0, skipped - count)
        context.fireChannelRead(wrapInboundOut(slice))
        if skipped == 0, phase == .firstSettings {
            context.fireChannelRead(wrapInboundOut(Self.acknowledgement))
            phase = .untilAcknowledged
        }
    }

    /// RFC 9113 §4.1.
    private struct Head {
        static let length = 9

        let count: Int
        let isSettings: Bool
        let isAcknowledgement: Bool

        /// - Returns: nil if it is not there whole.
        init?(_ bytes: ByteBuffer) {
            let start = bytes.readerIndex
            guard let high = bytes.getInteger(at: start, as: UInt16.self), let low = bytes.getInteger(at: start + 2, as: UInt8.self),
                let type = bytes.getInteger(at: start + 3, as: UInt8.self), let flags = bytes.getInteger(at: start + 4, as: UInt8.self),
                let stream = bytes.getInteger(at: start + 5, as: UInt32.self)
            else { return nil }
            count = Int(high) << 8 | Int(low)
            isSettings = type == 4 && stream & 0x7fff_ffff == 0
            isAcknowledgement = flags & 1 == 1
        }
    }

    /// RFC 9113 §3.4.
    private static let prefaceLength = 24
    private static let acknowledgement = ByteBuffer(bytes: [0, 0, 0, 4, 1, 0, 0, 0, 0])
}
