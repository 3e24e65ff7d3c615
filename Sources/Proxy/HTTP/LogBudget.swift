import NIOCore
import Synchronization

/// Bounds the lines that strangers can cause: so many of a kind in a second or a minute, the others are counted, and the count goes
/// with the next line. Thread-safe.
package final class LogBudget: Sendable {
    package enum Kind: Int, CaseIterable, Sendable {
        case notFound, disabled, proxyError, refusedTimestamp, timestampFarAhead, endpointChanged
        /// One line a minute: under a flood they come and go each second, and a full disk stays full.
        case underLoad, acceptPaused, accessLog

        fileprivate var lines: (count: Int, window: TimeAmount) {
            switch self {
            case .notFound, .disabled, .proxyError, .refusedTimestamp, .timestampFarAhead, .endpointChanged:
                (LogBudget.linesPerSecond, .seconds(1))
            case .underLoad, .acceptPaused, .accessLog: (1, .minutes(1))
            }
        }
    }

    package enum Decision: Equatable, Sendable {
        /// - `omitted`: lines of this kind since the last one that was written.
        case write(omitted: UInt64)
        case omit
    }

    private struct Window: Sendable {
        var end = NIODeadline.uptimeNanoseconds(0)
        var written = 0
        var omitted: UInt64 = 0
    }

    package static let linesPerSecond = 20
    private let windows = Mutex([Window](repeating: Window(), count: Kind.allCases.count))

    package init() {}

    package func take(_ kind: Kind, now: NIODeadline) -> Decision {
        windows.withLock { windows in
            let index = kind.rawValue
            if now >= windows[index].end {
                windows[index].end = now + kind.lines.window
                windows[index].written = 0
            }
            guard windows[index].written < kind.lines.count else {
                windows[index].omitted &+= 1
                return .omit
            }
            windows[index].written += 1
            defer { windows[index].omitted = 0 }
            return .write(omitted: windows[index].omitted)
        }
    }
}
