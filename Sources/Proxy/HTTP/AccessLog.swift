import Logging
import NIOCore
import NIOHTTP1

/// What is said about requests. Lines about single requests are for debugging: nothing is made unless the level asks for it. Never
/// fields of the request: they carry passwords and cookies. Never the query, which carries tokens.
struct AccessLog {
    private let logger: Logger
    let isDebug: Bool

    init(_ logger: Logger) {
        self.logger = logger
        isDebug = logger.logLevel <= .debug
    }

    func incoming(_ request: CheckedRequest, client: ClientIdentity, requestID: String) {
        logger.debug(
            "Incoming request",
            metadata: [
                "method": "\(LogText.escape(request.method.rawValue))", "host": "\(LogText.escape(request.authority))",
                "path": "\(Self.path(request.target))", "client": "\(client.address)", "requestID": "\(requestID)",
            ])
    }

    func proxied(_ route: Route, _ request: CheckedRequest, status: UInt, duration: TimeAmount, requestID: String) {
        logger.debug(
            "Proxying request",
            metadata: [
                "domain": "\(route.domain)", "agentIP": "\(route.agentIP)", "method": "\(LogText.escape(request.method.rawValue))",
                "path": "\(Self.path(request.target))", "status": "\(status)", "duration": "\(duration.nanoseconds / 1000) us",
                "requestID": "\(requestID)",
            ])
    }

    func notFound(host: String) { logger.warning("Tunnel not found", metadata: ["domain": "\(LogText.escape(host))"]) }

    func disabled(host: String) { logger.warning("Tunnel disabled", metadata: ["domain": "\(LogText.escape(host))"]) }

    func proxyError(_ route: Route, _ error: String) {
        logger.error(
            "Proxy error", metadata: ["domain": "\(route.domain)", "agentIP": "\(route.agentIP)", "error": "\(LogText.escape(error))"])
    }

    private static func path(_ target: String) -> String {
        LogText.escape(String(target.prefix { $0 != "?" }))
    }
}
