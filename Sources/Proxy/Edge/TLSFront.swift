import NIOCore
import NIOSSL

/// Decides about a TLS connection by its ClientHello.
package protocol TLSFront: Sendable {
    /// What goes first into the pipeline of an accepted connection.
    /// - Parameters:
    ///   - onWait: to be called when the handshake waits for a certificate, at most for so long.
    ///   - onAccept: to be called on the connection's loop when the certificate is chosen and the TLS handler is in the pipeline:
    ///     handlers that are added in it see decrypted bytes. An error closes the connection.
    func makeTLSHandler(
        onWait: @escaping (TimeAmount) -> Void, onAccept: @escaping (any HostCoverage) throws -> Void
    ) -> any ChannelHandler
}

/// One certificate for everybody, whatever name is asked for.
package struct SingleCertificateFront: TLSFront {
    private let context: NIOSSLContext
    private let coverage: any HostCoverage

    package init(context: NIOSSLContext, coverage: any HostCoverage) {
        self.context = context
        self.coverage = coverage
    }

    package func makeTLSHandler(
        onWait: @escaping (TimeAmount) -> Void, onAccept: @escaping (any HostCoverage) throws -> Void
    ) -> any ChannelHandler {
        AcceptingHandler(context: context, coverage: coverage, onAccept: onAccept)
    }

    /// Puts the TLS handler behind itself as soon as it is in a pipeline.
    private final class AcceptingHandler: ChannelInboundHandler, RemovableChannelHandler {
        typealias InboundIn = ByteBuffer
        private let tls: NIOSSLContext
        private let coverage: any HostCoverage
        private let onAccept: (any HostCoverage) throws -> Void

        init(context: NIOSSLContext, coverage: any HostCoverage, onAccept: @escaping (any HostCoverage) throws -> Void) {
            tls = context
            self.coverage = coverage
            self.onAccept = onAccept
        }

        func handlerAdded(context: ChannelHandlerContext) {
            do {
                try context.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls), position: .after(self))
                try onAccept(coverage)
                context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
            } catch {
                context.close(promise: nil)
            }
        }
    }
}
