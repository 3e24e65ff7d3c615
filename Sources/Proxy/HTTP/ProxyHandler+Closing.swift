import NIOCore
import NIOHTTP1

/// The end of a client's connection.
extension ProxyHandler {
    /// Closes without a reset overtaking the answer: our side first, then the rest after the client's close or a short time.
    func linger() {
        flushClient()
        guard let context, phase != .lingering, phase != .closed else { return }
        phase = .lingering
        queue.removeAll()
        stopParsing(context)
        // Our side may never get to its close: a TLS handler puts it off until the handshake is done.
        setTimer(.linger)
        let stall = service.limits.bodyIdle
        guard !isInputClosed else {
            return DrainWatch.start(context.channel, clock: loop.clock, stall: stall) { [weak self] in self?.close() }
        }
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [weak self] result in
            switch result {
            case .success:
                self?.isOutputClosed = true
                self?.setTimer(.linger)
            case .failure: self?.close()
            }
        }
        context.close(mode: .output, promise: promise)
        DrainWatch.start(context.channel, clock: loop.clock, stall: stall) {}
        updateGate()
    }

    func close() {
        flushClient()
        context?.close(promise: nil)
    }

    /// A decoder that has seen an upgrade keeps all that still comes, without a bound: what nobody reads must not go through it.
    private func stopParsing(_ context: ChannelHandlerContext) {
        let operations = context.pipeline.syncOperations
        guard let decoder = try? operations.context(handlerType: ByteToMessageHandler<HTTPRequestDecoder>.self) else { return }
        operations.removeHandler(context: decoder, promise: nil)
    }
}
