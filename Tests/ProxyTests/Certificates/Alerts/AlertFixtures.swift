import Glibc
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Proxy

/// Keeps lines with their metadata, from any thread.
struct LockedLog: LogHandler {
    let lines = NIOLockedValueBox<[String]>([])
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let details = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        lines.withLockedValue { $0.append((["\(event.level)", "\(event.message)"] + details).joined(separator: " ")) }
    }

    var logger: Logger { Logger(label: "test") { _ in self } }
    var all: [String] { lines.withLockedValue { $0 } }
}

/// A channel that keeps what it was given, fails as often as it is told, and may hang.
final class FakeChannel: AlertChannel {
    let kind: AlertChannelKind
    let sent = NIOLockedValueBox<[AlertNotice]>([])
    private let failures: NIOLockedValueBox<Int>
    private let hangs: Bool

    init(_ kind: AlertChannelKind, failures: Int = 0, hangs: Bool = false) {
        self.kind = kind
        self.failures = NIOLockedValueBox(failures)
        self.hangs = hangs
    }

    func send(_ notice: AlertNotice) async -> Result<AlertReceipt, AlertFault> {
        if hangs {
            let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Void.self)
            await withTaskCancellationHandler {
                try? await promise.futureResult.get()
            } onCancel: {
                promise.succeed(())
            }
            return .failure(AlertFault("it hung"))
        }
        let fails = failures.withLockedValue { failures in
            failures -= 1
            return failures >= 0
        }
        if fails { return .failure(AlertFault("no\nway")) }
        sent.withLockedValue { $0.append(notice) }
        return .success(AlertReceipt())
    }

    var events: [CertificateAlert.Event] { sent.withLockedValue { $0.map(\.alert.event) } }
}

/// Looks until it is so; the suite's time limit ends it.
func eventually(_ condition: () -> Bool) async {
    while !condition() {
        try? await MultiThreadedEventLoopGroup.singleton.next().scheduleTask(in: .milliseconds(2)) {}.futureResult.get()
    }
}
