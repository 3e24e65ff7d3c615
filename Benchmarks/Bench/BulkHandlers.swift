import NIOCore

/// What a connection says first: this letter and a number of bytes, eight of them, most significant first. The dialer then receives or
/// sends so many; the server answers those that it has received with their number.
enum BulkDirection: UInt8 {
    case down = 0x64
    case up = 0x75

    init?(_ name: String) {
        switch name {
        case "down": self = .down
        case "up": self = .up
        default: return nil
        }
    }

    static let requestSize = 9
}

/// Sends out of one constant buffer, no more at a time than the channel takes.
private protocol BulkSender: ChannelInboundHandler {
    var unsent: Int { get set }
}

extension BulkSender {
    /// `flush` may come back here by way of `channelWritabilityChanged`.
    func sendMore(_ context: ChannelHandlerContext) {
        guard unsent > 0 else { return }
        while unsent > 0, context.channel.isWritable {
            let piece = unsent >= constant.readableBytes ? constant : constant.getSlice(at: 0, length: unsent) ?? constant
            unsent -= piece.readableBytes
            context.write(NIOAny(piece), promise: nil)
        }
        context.flush()
    }
}

private let constant = ByteBuffer(repeating: 7, count: 64 * 1024)

/// One connection of the serving side.
final class BulkServer: ChannelInboundHandler, BulkSender {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum Phase {
        case awaitingRequest(ByteBuffer)
        case sending
        case receiving(total: Int, received: Int)
    }

    private var phase = Phase.awaitingRequest(ByteBuffer())
    fileprivate var unsent = 0

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        switch phase {
        case .awaitingRequest(var request):
            request.writeBuffer(&buffer)
            guard request.readableBytes >= BulkDirection.requestSize else {
                phase = .awaitingRequest(request)
                return
            }
            guard let letter = request.readInteger(as: UInt8.self), let direction = BulkDirection(rawValue: letter),
                let count = request.readInteger(as: UInt64.self).flatMap(Int.init(exactly:))
            else { return context.close(promise: nil) }
            switch direction {
            case .down:
                phase = .sending
                unsent = count
                sendMore(context)
            case .up:
                phase = .receiving(total: count, received: 0)
                receive(request.readableBytes, context)
            }
        case .sending: context.close(promise: nil)
        case .receiving: receive(buffer.readableBytes, context)
        }
    }

    private func receive(_ count: Int, _ context: ChannelHandlerContext) {
        guard case .receiving(let total, var received) = phase else { return }
        received += count
        phase = .receiving(total: total, received: received)
        guard received >= total else { return }
        context.writeAndFlush(NIOAny(ByteBuffer(integer: UInt64(received))), promise: nil)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) { sendMore(context) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// One connection of the dialing side: `completion` says when all bytes are there.
final class BulkClient: ChannelInboundHandler, BulkSender {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    struct Begin: Sendable {}
    struct WrongCount: Error { var received: Int }

    private let direction: BulkDirection
    private let bytes: Int
    private let completion: EventLoopPromise<Void>
    fileprivate var unsent = 0
    private var received = 0
    private var answer = ByteBuffer()

    init(_ direction: BulkDirection, _ bytes: Int, _ completion: EventLoopPromise<Void>) {
        self.direction = direction
        self.bytes = bytes
        self.completion = completion
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event is Begin else { return context.fireUserInboundEventTriggered(event) }
        var request = ByteBuffer(integer: direction.rawValue)
        request.writeInteger(UInt64(bytes))
        context.writeAndFlush(NIOAny(request), promise: nil)
        if direction == .up {
            unsent = bytes
            sendMore(context)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        switch direction {
        case .down:
            received += buffer.readableBytes
            if received >= bytes { finish(received) }
        case .up:
            answer.writeBuffer(&buffer)
            if let count = answer.readInteger(as: UInt64.self) { finish(Int(clamping: count)) }
        }
    }

    private func finish(_ count: Int) {
        if count == bytes { completion.succeed() } else { completion.fail(WrongCount(received: count)) }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) { sendMore(context) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { completion.fail(error) }

    func channelInactive(context: ChannelHandlerContext) { completion.fail(ChannelError.eof) }
}

/// Sends one byte and waits for one.
final class OneByte: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let answered: EventLoopPromise<Void>

    init(_ answered: EventLoopPromise<Void>) { self.answered = answered }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(NIOAny(ByteBuffer(integer: UInt8(1))), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { answered.succeed() }

    func channelInactive(context: ChannelHandlerContext) { answered.fail(ChannelError.eof) }
}
