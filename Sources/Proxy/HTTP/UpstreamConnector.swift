import NIOCore
import NIOPosix

/// Makes connections to upstreams.
///
/// The future must be completed on the asked loop, with a channel of that loop, before the channel reads its first byte. The pipeline
/// gets HTTP handlers then; it should be empty. A connector that can tell fails with an ``UpstreamFailure``.
package typealias UpstreamConnector = @Sendable (_ target: UpstreamTarget, _ eventLoop: any EventLoop) -> EventLoopFuture<any Channel>

/// Why an upstream could not serve a request, as far as the answer depends on it.
package enum UpstreamFailure: Error, Equatable, CustomStringConvertible {
    /// There is no way to the agent just now: no session, no route, no answer to the connect. Worth another try soon: 503.
    case unreachable(String)
    /// Nobody listens: 502.
    case refused
    /// Everything else: 502.
    case broken(String)

    package init(_ error: any Error) {
        switch error {
        case let failure as UpstreamFailure: self = failure
        case ChannelError.connectTimeout: self = .unreachable("no answer to the connect")
        case let error as IOError:
            switch error.errnoCode {
            case Self.connectionRefused: self = .refused
            case Self.timedOut, Self.hostUnreachable, Self.networkUnreachable: self = .unreachable("\(error)")
            default: self = .broken("\(error)")
            }
        case let error as NIOConnectionError:
            if let first = error.connectionErrors.first { self.init(first.error) } else { self = .broken("\(error)") }
        default: self = .broken("\(error)")
        }
    }

    package var description: String {
        switch self {
        case .unreachable(let text), .broken(let text): text
        case .refused: "connection refused"
        }
    }

    // Linux numbers, asm-generic/errno.h.
    private static let networkUnreachable: CInt = 101
    private static let timedOut: CInt = 110
    private static let connectionRefused: CInt = 111
    private static let hostUnreachable: CInt = 113
}
