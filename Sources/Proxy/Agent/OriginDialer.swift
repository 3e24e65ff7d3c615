import Inet
import NIOCore
import NIOPosix

/// Connections to targets over the system's own TCP. Names are resolved each time; IPv6 and IPv4 are tried as RFC 8305 says.
package enum OriginDialer {
    package static func connector(timeout: TimeAmount = .seconds(3)) -> UpstreamConnector {
        { target, eventLoop in
            var bootstrap = ClientBootstrap(group: eventLoop)
                .connectTimeout(timeout)
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
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
