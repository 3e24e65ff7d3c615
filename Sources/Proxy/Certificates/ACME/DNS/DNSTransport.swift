import Inet
import NIOCore
import NIOPosix

/// Carries one question to one server and its answer back.
///
/// Over UDP the socket is connected, so that the system takes datagrams of that server alone, and has a port of its own; over TCP
/// each question has its own connection.
package struct DNSTransport: Sendable {
    package enum Way: Sendable { case udp, tcp }

    package let group: any EventLoopGroup

    package init(group: any EventLoopGroup) { self.group = group }

    /// - Parameter isAnswer: what it refuses is passed over by UDP, and waiting goes on; by TCP it ends the connection.
    package func ask(
        _ query: [UInt8], _ server: SocketEndpoint, by way: Way, limit: Duration, isAnswer: @escaping @Sendable ([UInt8]) -> Bool
    ) async throws(DNSFault) -> [UInt8] {
        let loop = group.any()
        let promise = loop.makePromise(of: [UInt8].self)
        let question = Question(query: query, isAnswer: isAnswer, promise: promise)
        let timer = loop.scheduleTask(in: .nanoseconds(limit.inNanoseconds)) {
            promise.fail(DNSFault("no answer within \(limit)"))
        }
        do {
            let address = try SocketAddress(ipAddress: "\(server.address)", port: Int(server.port))
            let opening: EventLoopFuture<any Channel> =
                switch way {
                case .udp:
                    DatagramBootstrap(group: loop).channelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(DatagramHandler(question)) }
                    }.connect(to: address)
                case .tcp:
                    ClientBootstrap(group: loop).connectTimeout(.nanoseconds(limit.inNanoseconds)).channelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(StreamHandler(question)) }
                    }.connect(to: address)
                }
            opening.whenComplete { result in
                switch result {
                // Closed when there is an answer, or none any more.
                case .success(let channel): promise.futureResult.whenComplete { _ in channel.close(promise: nil) }
                case .failure(let error): promise.fail(error)
                }
            }
        } catch {
            promise.fail(error)
        }
        defer { timer.cancel() }
        do {
            return try await withTaskCancellationHandler {
                try await promise.futureResult.get()
            } onCancel: {
                promise.fail(DNSFault("it was cancelled"))
            }
        } catch let fault as DNSFault {
            throw DNSFault("\(server): \(fault.reason)")
        } catch {
            throw DNSFault("\(server): \(error)")
        }
    }

    private struct Question: Sendable {
        let query: [UInt8]
        let isAnswer: @Sendable ([UInt8]) -> Bool
        let promise: EventLoopPromise<[UInt8]>
    }

    private final class DatagramHandler: ChannelInboundHandler {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>
        typealias OutboundOut = ByteBuffer
        private let question: Question

        init(_ question: Question) { self.question = question }

        func channelActive(context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: question.query)), promise: nil)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let bytes = Array(unwrapInboundIn(data).data.readableBytesView)
            if question.isAnswer(bytes) { question.promise.succeed(bytes) }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { question.promise.fail(error) }
    }

    /// RFC 1035 §4.2.2: two bytes of length before the message.
    private final class StreamHandler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let question: Question
        private var buffer = ByteBuffer()

        init(_ question: Question) { self.question = question }

        func channelActive(context: ChannelHandlerContext) {
            var buffer = context.channel.allocator.buffer(capacity: question.query.count + 2)
            buffer.writeInteger(UInt16(truncatingIfNeeded: question.query.count))
            buffer.writeBytes(question.query)
            context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var piece = unwrapInboundIn(data)
            buffer.writeBuffer(&piece)
            guard let length = buffer.getInteger(at: buffer.readerIndex, as: UInt16.self), buffer.readableBytes >= 2 + Int(length) else {
                return
            }
            buffer.moveReaderIndex(forwardBy: 2)
            let bytes = buffer.readBytes(length: Int(length)) ?? []
            // Nobody but the server can have written it, and it has one question: nothing better comes.
            if question.isAnswer(bytes) {
                question.promise.succeed(bytes)
            } else {
                question.promise.fail(DNSFault("it sent something that is no answer"))
            }
            context.close(promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) { question.promise.fail(DNSFault("the connection was closed")) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { question.promise.fail(error) }
    }
}
