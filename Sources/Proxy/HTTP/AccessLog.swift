import Logging
import NIOCore

/// What is said about requests. Lines about single requests are for debugging: nothing is made unless the level asks for it. Never
/// fields of the request: they carry passwords and cookies. Never the query, which carries tokens.
struct AccessLog {
    private let logger: Logger
    private let budget: LogBudget
    private let eventLoop: any EventLoop
    let isDebug: Bool

    init(_ logger: Logger, budget: LogBudget, eventLoop: any EventLoop) {
        self.logger = logger
        self.budget = budget
        self.eventLoop = eventLoop
        isDebug = logger.logLevel <= .debug
    }

    func incoming(_ request: CheckedRequest, client: String, requestID: String) {
        logger.debug(
            "Incoming request",
            metadata: [
                "method": "\(LogText.escape(request.methodText))", "host": "\(LogText.escape(request.hostForLogs))",
                "path": "\(Self.path(request.targetText))", "client": "\(client)", "requestID": "\(LogText.escape(requestID))",
            ])
    }

    func proxied(_ route: Route, _ request: CheckedRequest, status: Int, duration: TimeAmount, requestID: String) {
        logger.debug(
            "Proxying request",
            metadata: [
                "domain": "\(route.domain)", "agentIP": "\(route.agentIP)", "method": "\(LogText.escape(request.methodText))",
                "path": "\(Self.path(request.targetText))", "status": "\(status)", "duration": "\(duration.nanoseconds / 1000) us",
                "requestID": "\(LogText.escape(requestID))",
            ])
    }

    func notFound(host: String) { write(.notFound, .warning, "Tunnel not found", ["domain": "\(LogText.escape(host))"]) }

    func disabled(host: String) { write(.disabled, .warning, "Tunnel disabled", ["domain": "\(LogText.escape(host))"]) }

    /// - Parameter requestID: nil where no request is read.
    func proxyError(_ route: Route, _ error: String, requestID: String? = nil) {
        var metadata: Logger.Metadata = [
            "domain": "\(route.domain)", "agentIP": "\(route.agentIP)", "error": "\(LogText.escape(error))",
        ]
        if let requestID { metadata["requestID"] = "\(LogText.escape(requestID))" }
        write(.proxyError, .error, "Proxy error", metadata)
    }

    /// What any client can cause at any rate.
    private func write(_ kind: LogBudget.Kind, _ level: Logger.Level, _ message: Logger.Message, _ metadata: Logger.Metadata) {
        guard logger.logLevel <= level, case .write(let omitted) = budget.take(kind, now: eventLoop.now) else { return }
        var metadata = metadata
        if omitted > 0 { metadata["omitted"] = .stringConvertible(omitted) }
        logger.log(level: level, message, metadata: metadata)
    }

    private static func path(_ target: String) -> String {
        LogText.escape(String(target.prefix { $0 != "?" }))
    }
}
