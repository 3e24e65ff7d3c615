import NIOCore
import NIOTLS

/// Behind the TLS handler: waits for the end of the handshake, lets the pipeline be finished for the protocol that was agreed on
/// (ALPN, RFC 7301), and leaves.
final class ProtocolNegotiation: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = Any

    private let onAgreement: (ProxyService.ClientProtocol) throws -> Void

    /// - Parameter onAgreement: handlers that are added in it see everything that the client sent. An error closes the connection.
    init(onAgreement: @escaping (ProxyService.ClientProtocol) throws -> Void) { self.onAgreement = onAgreement }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case TLSUserEvent.handshakeCompleted(let negotiated):
            do {
                try onAgreement(negotiated == "h2" ? .http2 : .http1)
                context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
            } catch {
                context.close(promise: nil)
            }
        // Nobody would have been served.
        case is ChannelShouldQuiesceEvent, ChannelEvent.inputClosed: context.close(promise: nil)
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
