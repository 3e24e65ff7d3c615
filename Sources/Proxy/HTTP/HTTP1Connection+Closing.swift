import NIOCore

/// The end of a client's connection.
extension HTTP1Connection {
    /// Closes without a reset overtaking the answer: our side first, then the rest after the client's close or a short time.
    func linger() {
        guard let context, phase != .lingering, phase != .closed else { return flush() }
        phase = .lingering
        pending = nil
        // Our side may never get to its close: a TLS handler puts it off until the handshake is done.
        setTimer(.linger)
        guard !isInputClosed else {
            flush()
            return drainAndClose()
        }
        if isTLS { context.triggerUserOutboundEvent(FarewellGate.Hold(), promise: nil) }
        closeOutput()
        DrainWatch.start(context.channel, clock: loop.clock, stall: service.limits.bodyIdle) {}
        readingMayGoOn()
    }

    /// Our side of the connection.
    func closeOutput() {
        flush()
        guard let context, !isOutputClosing else { return }
        isOutputClosing = true
        guard isInputClosed else { return sendFIN() }
        // NIO would close the whole channel, without what waits in it.
        DrainWatch.start(context.channel, clock: loop.clock, stall: service.limits.bodyIdle) { [weak self] in self?.sendFIN() }
    }

    private func sendFIN() {
        guard let context else { return }
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [weak self] result in
            switch result {
            case .success:
                self?.isOutputClosed = true
                if self?.phase == .lingering { self?.setTimer(.linger) }
            case .failure: self?.close()
            }
        }
        context.close(mode: .output, promise: promise)
    }

    /// Behind the last bytes that were written.
    func drainAndClose() {
        guard let context else { return }
        phase = .lingering
        pending = nil
        setTimer(.linger)
        DrainWatch.start(context.channel, clock: loop.clock, stall: service.limits.bodyIdle) { [weak self] in self?.close() }
    }

    func close() {
        flush()
        if endsWithConnection { reset() } else { context?.close(promise: nil) }
    }

    /// Somebody else's close: the process ends.
    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        guard endsWithConnection, case .all = mode else { return context.close(mode: mode, promise: promise) }
        if let promise { context.channel.closeFuture.cascade(to: promise) }
        close()
    }

    /// A `close_notify`, or a FIN, would make half a body whole: RFC 9112 §8.
    private func reset() {
        endsWithConnection = false
        guard let context else { return }
        let promise = context.eventLoop.makePromise(of: Void.self)
        // Without TLS there is no gate.
        promise.futureResult.assumeIsolated().whenFailure { _ in
            ConnectionReset.send(on: context.channel) { context.close(promise: nil) }
        }
        context.triggerUserOutboundEvent(FarewellGate.Reset(), promise: promise)
    }
}
