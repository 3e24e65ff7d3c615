import Glibc
import NIOCore
import NIOWireGuard

/// The end of a connection that nobody can take for an orderly one: a TCP reset, on the machine or in the tunnel.
enum ConnectionReset {
    /// On the channel's loop. What was written and has not arrived is lost.
    /// - Parameter close: closes the channel, which then sends a reset instead of a FIN. It may be called before this returns.
    static func send(on channel: any Channel, close: @escaping () -> Void) {
        if let socket = channel as? any SocketOptionProvider {
            socket.setSoLinger(linger(l_onoff: 1, l_linger: 0)).assumeIsolated().whenComplete { _ in close() }
        } else {
            let promise = channel.eventLoop.makePromise(of: Void.self)
            promise.futureResult.assumeIsolated().whenFailure { _ in close() }
            channel.triggerUserOutboundEvent(WireGuardChannel.AbortEvent(), promise: promise)
        }
    }
}
