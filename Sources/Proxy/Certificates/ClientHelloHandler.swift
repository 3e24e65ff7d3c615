import NIOCore
import NIOSSL
import NIOTLS

/// First in the pipeline of a TLS connection: looks at the ClientHello, has the certificate chosen, puts the TLS handler behind
/// itself, and leaves. A name that is not served ends with a fatal alert, which the TLS library alone cannot send.
///
///     waiting ──complete, known──► handedOver (TLS handler added, `onAccept`, bytes passed on, removed)
///        │ │                            ▲
///        │ └──certificate is under way──► awaiting (a client says nothing now) ──came──┘
///        │                                   └──did not come──┐
///        └──unknown, malformed─────────────────────────────► refusing (alert sent, output closed, input discarded) ──► closed
///
/// A validation by TLS-ALPN-01 is handed over to a TLS handler of its own and closed behind its handshake.
///
/// Deliberately no time limit for the hello: the listener has one for the whole handshake.
package final class ClientHelloHandler: ChannelDuplexHandler, RemovableChannelHandler {
    package typealias InboundIn = ByteBuffer
    package typealias InboundOut = ByteBuffer
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    private enum State {
        case waiting(ClientHelloParser, ByteBuffer)
        case awaiting(ByteBuffer)
        case refusing(discarded: Int, deadline: Scheduled<Void>)
        case handedOver
    }

    private let selector: CertificateSelector
    private let onWait: (TimeAmount) -> Void
    private let onAccept: (PresentedCertificate) throws -> Void
    /// Gives the place among those who wait for a certificate away.
    private var leave: (() -> Void)?
    private var state = State.waiting(ClientHelloParser(), ByteBuffer())

    /// - Parameters:
    ///   - onWait: called when the handshake waits for a certificate, at most for so long.
    ///   - onAccept: called on the event loop as soon as the certificate is chosen, with the TLS handler already in the
    ///     pipeline: handlers added now, at the end, see decrypted bytes. An error closes the connection.
    init(
        selector: CertificateSelector, onWait: @escaping (TimeAmount) -> Void, onAccept: @escaping (PresentedCertificate) throws -> Void
    ) {
        self.selector = selector
        self.onWait = onWait
        self.onAccept = onAccept
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        switch state {
        case .waiting(var parser, var held):
            state = .handedOver
            let progress = parser.receive(bytes.readableBytesView)
            held.writeBuffer(&bytes)
            switch progress {
            case .incomplete: state = .waiting(parser, held)
            case .complete(let serverName, let isACME): receiveHello(serverName, isACME: isACME, held: held, context: context)
            case .invalid(let fault): receiveFault(fault, context: context)
            }
        // It is read on, so that the end of the connection is seen; a client has nothing more to say before it is answered.
        case .awaiting(var held):
            state = .handedOver
            held.writeBuffer(&bytes)
            state = .awaiting(held)
            if held.readableBytes > Self.maximumDiscarded { context.close(promise: nil) }
        case .refusing(let discarded, let deadline):
            let total = discarded + bytes.readableBytes
            state = .refusing(discarded: total, deadline: deadline)
            if total > Self.maximumDiscarded { context.close(promise: nil) }
        case .handedOver:
            context.fireChannelRead(data)
        }
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        switch state {
        case .waiting, .awaiting, .refusing: context.read()
        case .handedOver: context.fireChannelReadComplete()
        }
    }

    package func channelInactive(context: ChannelHandlerContext) {
        if case .refusing(_, let deadline) = state { deadline.cancel() }
        state = .handedOver
        leave?()
        context.fireChannelInactive()
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch (state, event) {
        case (.waiting, ChannelEvent.inputClosed), (.awaiting, ChannelEvent.inputClosed), (.refusing, ChannelEvent.inputClosed):
            context.close(promise: nil)
        case (.waiting, is ChannelShouldQuiesceEvent), (.awaiting, is ChannelShouldQuiesceEvent): context.close(promise: nil)
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    /// Nothing may leave in clear: there is no TLS handler yet.
    package func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch state {
        case .handedOver: context.write(data, promise: promise)
        case .waiting, .awaiting, .refusing: promise?.fail(ChannelError.inappropriateOperationForState)
        }
    }

    private func receiveHello(_ serverName: [UInt8]?, isACME: Bool, held: ByteBuffer, context: ChannelHandlerContext) {
        if isACME {
            guard let challenge = selector.challenge(serverName: serverName) else {
                return refuse(TLSAlert.noApplicationProtocol.record, .noChallenge, context: context)
            }
            return handOver(held, context: context) {
                try $0.addHandler(NIOSSLServerHandler(context: challenge), position: .after(self))
                try $0.addHandler(ChallengeEnd())
            }
        }
        switch selector.choose(serverName: serverName) {
        case .refuse(let alert, let reason): refuse(alert.record, reason, context: context)
        case .show(let chosen, let name): accept(chosen, name, held: held, context: context)
        case .wait(let wait):
            state = .awaiting(held)
            onWait(CertificateWait.limit)
            // The context is of this loop, and so is the future.
            let (certificate, leave) = wait.certificate(on: context.eventLoop)
            self.leave = leave
            certificate.assumeIsolated().whenComplete { result in
                self.leave = nil
                guard case .awaiting(let held) = self.state else { return }
                self.state = .handedOver
                switch result {
                case .success(let certificate):
                    // Nothing goes through the context of a handler that has left.
                    let channel = context.channel
                    self.accept(certificate, wait.host, held: held, context: context)
                    channel.pipeline.fireChannelReadComplete()
                case .failure: self.refuse(TLSAlert.internalError.record, .certificateUnavailable, context: context)
                }
            }
        }
    }

    private func accept(_ certificate: ServedCertificate, _ serverName: String?, held: ByteBuffer, context: ChannelHandlerContext) {
        let presented = PresentedCertificate(serverName: serverName, names: certificate.names)
        handOver(held, context: context) {
            try $0.addHandler(NIOSSLServerHandler(context: certificate.context), position: .after(self))
            try onAccept(presented)
            context.fireUserInboundEventTriggered(presented)
        }
    }

    private func handOver(
        _ held: ByteBuffer, context: ChannelHandlerContext, _ prepare: (ChannelPipeline.SynchronousOperations) throws -> Void
    ) {
        do {
            try prepare(context.pipeline.syncOperations)
        } catch {
            context.fireErrorCaught(error)
            context.close(promise: nil)
            return
        }
        context.fireChannelRead(wrapInboundOut(held))
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    private func receiveFault(_ fault: ClientHelloParser.Fault, context: ChannelHandlerContext) {
        switch fault {
        case .malformed(let alert): refuse(alert.record, .malformed, context: context)
        case .tooLong: refuse(TLSAlert.decodeError.record, .tooLong, context: context)
        case .notTLS(let byte) where (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte):
            refuse(Array(Self.plainHTTPAnswer.utf8), .plainHTTP, context: context)
        case .notTLS: refuse(TLSAlert.unexpectedMessage.record, .notTLS, context: context)
        }
    }

    /// Closing with unread input would send a RST, which can overtake the alert: so the output is closed first, and input is
    /// discarded for a moment.
    private func refuse(_ answer: [UInt8], _ reason: TLSRefusal, context: ChannelHandlerContext) {
        selector.count(reason)
        // The task runs on this handler's own loop, where the context lives.
        let deadline = context.eventLoop.assumeIsolated().scheduleTask(in: Self.lingerTime) { context.close(promise: nil) }
        state = .refusing(discarded: 0, deadline: deadline)
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: answer)), promise: nil)
        let closed = context.eventLoop.makePromise(of: Void.self)
        closed.futureResult.assumeIsolated().whenFailure { _ in context.close(promise: nil) }
        context.close(mode: .output, promise: closed)
        context.read()
    }

    private static let lingerTime = TimeAmount.seconds(1)
    private static let maximumDiscarded = 65_536
    private static let plainHTTPAnswer =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 49\r\nConnection: close\r\n\r\n"
        + "This port speaks HTTPS: use https:// in the URL.\n"
}

extension CertificateSelector {
    /// What goes first into the pipeline of an accepted TLS connection.
    package func makeHandler(
        onWait: @escaping (TimeAmount) -> Void = { _ in }, onAccept: @escaping (PresentedCertificate) throws -> Void = { _ in }
    ) -> ClientHelloHandler {
        ClientHelloHandler(selector: self, onWait: onWait, onAccept: onAccept)
    }
}

/// RFC 8737 §3: nothing is said behind the handshake of a validation.
private final class ChallengeEnd: ChannelInboundHandler {
    typealias InboundIn = Any

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case TLSUserEvent.handshakeCompleted, is ChannelShouldQuiesceEvent, ChannelEvent.inputClosed: context.close(promise: nil)
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.close(promise: nil) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
