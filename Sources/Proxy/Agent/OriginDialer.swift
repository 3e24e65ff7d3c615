import Inet
import NIOCore
import NIOPosix

/// Connections to targets over the system's own TCP. Names are resolved each time; IPv6 and IPv4 are tried as RFC 8305 says.
package enum OriginDialer {
    /// - Parameter halfClosure: a target that has said all may still be written to.
    package static func connector(timeout: TimeAmount = .seconds(3), halfClosure: Bool = false) -> UpstreamConnector {
        { target, eventLoop in
            var bootstrap = ClientBootstrap(group: eventLoop)
                .connectTimeout(timeout)
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                // A target that vanished is found out by the system, within 2 min.
                .channelOption(.socketOption(.so_keepalive), value: 1)
                .channelOption(.tcpOption(.keepaliveIdle), value: 60)
                .channelOption(.tcpOption(.keepaliveInterval), value: 15)
                .channelOption(.tcpOption(.keepaliveCount), value: 4)
                .channelOption(.tcpOption(.unsentLowWater), value: TCPOption.unsent)
                .channelOption(.allowRemoteHalfClosure, value: halfClosure)
                .channelOption(.writeBufferWaterMark, value: .init(low: 64 * 1024, high: 128 * 1024))
            do {
                if let source = target.source {
                    bootstrap = bootstrap.bind(to: try SocketAddress(ipAddress: "\(source)", port: 0))
                }
                return switch target.host {
                case .address(let address):
                    bootstrap.connect(to: try SocketAddress(ipAddress: "\(address)", port: Int(target.port)))
                case .name(let name): bootstrap.connect(host: name, port: Int(target.port))
                }
            } catch {
                return eventLoop.makeFailedFuture(error)
            }
        }
    }
}
