import NIOCore
import NIOExtras
import NIOWireGuard
import Synchronization

/// The accepted connections of a listener, for the orderly way down: each is told to end after the request in hand, and what is left
/// at the deadline is reset, so that a torn answer does not look complete.
package final class OpenChannels: Sendable {
    private struct State {
        var channels: [ObjectIdentifier: any Channel] = [:]
        var isDraining = false
        var whenEmpty: EventLoopPromise<Void>?
    }

    private let state = Mutex(State())

    package init() {}

    func add(_ channel: any Channel) {
        let key = ObjectIdentifier(channel)
        let isDraining = state.withLock { state in
            state.channels[key] = channel
            return state.isDraining
        }
        channel.closeFuture.whenComplete { _ in self.remove(key) }
        if isDraining { channel.close(promise: nil) }
    }

    func tell(_ event: any Sendable) {
        for channel in state.withLock({ Array($0.channels.values) }) { channel.pipeline.fireUserInboundEventTriggered(event) }
    }

    package func drain(within limit: TimeAmount, on eventLoop: any EventLoop) async {
        let promise = eventLoop.makePromise(of: Void.self)
        let open = state.withLock { state in
            state.isDraining = true
            state.whenEmpty = promise
            return Array(state.channels.values)
        }
        if open.isEmpty { finish() }
        for channel in open { channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent()) }
        let deadline = eventLoop.scheduleTask(in: limit) { [self] in
            for channel in state.withLock({ Array($0.channels.values) }) { Self.reset(channel) }
        }
        try? await promise.futureResult.get()
        deadline.cancel()
    }

    private static func reset(_ channel: any Channel) {
        channel.triggerUserOutboundEvent(WireGuardChannel.AbortEvent()).whenFailure { _ in channel.close(promise: nil) }
    }

    private func remove(_ key: ObjectIdentifier) {
        let isEmpty = state.withLock { state in
            state.channels[key] = nil
            return state.channels.isEmpty
        }
        if isEmpty { finish() }
    }

    private func finish() {
        let promise = state.withLock { state in
            defer { state.whenEmpty = nil }
            return state.whenEmpty
        }
        promise?.succeed(())
    }
}
