import FoundationEssentials
import Inet
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Sends an alert as mail to a submission server: the sockets and TLS below an ``SMTPSession``.
package struct MailAlert: AlertChannel {
    private let settings: AlertSettings.Mail
    private let trustFile: String?
    private let loop: any EventLoop
    private let limit: TimeAmount

    /// - Parameters:
    ///   - trustFile: roots as PEM in place of the system's.
    ///   - limit: from the look-up of the name to the last answer.
    package init(_ settings: AlertSettings.Mail, trustFile: String? = nil, group: any EventLoopGroup, limit: TimeAmount = Self.limit) {
        self.settings = settings
        self.trustFile = trustFile
        self.limit = limit
        loop = group.next()
    }

    package var kind: AlertChannelKind { .mail }

    package func send(_ notice: AlertNotice) async -> Result<AlertReceipt, AlertFault> {
        let message = MailMessage(notice, from: settings.from, to: settings.to)
        let credentials: SMTPSession.Credentials?
        let tls: NIOSSLContext?
        do throws(AlertFault) {
            credentials = try self.credentials()
            tls = try self.tls()
        } catch {
            return .failure(error)
        }
        return await deliver(message, credentials, tls: tls, host: notice.host)
    }

    private func credentials() throws(AlertFault) -> SMTPSession.Credentials? {
        guard let username = settings.username, let file = settings.passwordFile else { return nil }
        return .init(username: username, password: try AlertSecret.read(file))
    }

    private func tls() throws(AlertFault) -> NIOSSLContext? {
        if settings.security == .none { return nil }
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        do {
            if let trustFile { configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(trustFile)) }
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw AlertFault("TLS: \(error)")
        }
    }

    private func deliver(
        _ message: MailMessage, _ credentials: SMTPSession.Credentials?, tls: NIOSSLContext?, host: String
    ) async -> Result<AlertReceipt, AlertFault> {
        let outcome = loop.makePromise(of: [MailAddress].self)
        let (settings, limit) = (settings, limit)
        let deadline = loop.scheduleTask(in: limit) {
            outcome.fail(AlertFault("no end after \(limit.nanoseconds / 1_000_000_000) s"))
        }
        let connection = ClientBootstrap(group: loop).connectTimeout(Self.connectLimit).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                let handler = SMTPHandler(settings, message, credentials, tls: tls, host: host, outcome: outcome)
                if settings.security == .tls { try handler.addTLS(to: channel.pipeline.syncOperations) }
                try channel.pipeline.syncOperations.addHandler(handler)
            }
        }.connect(host: settings.server.host, port: settings.server.port)
        connection.whenComplete { result in
            switch result {
            case .failure(let error): outcome.fail(error)
            // One that worked says goodbye by itself.
            case .success(let channel): outcome.futureResult.whenFailure { _ in channel.close(promise: nil) }
            }
        }
        defer { deadline.cancel() }
        do {
            let refused = try await withTaskCancellationHandler {
                try await outcome.futureResult.get()
            } onCancel: {
                outcome.fail(AlertFault("it was cancelled"))
            }
            return .success(AlertReceipt(refused: refused.map(\.text)))
        } catch {
            return .failure(AlertFault("\(settings.server): \(error)"))
        }
    }

    package static let limit = TimeAmount.seconds(60)
    static let connectLimit = TimeAmount.seconds(20)
}

/// Carries bytes between a channel and the session. Bound to its event loop.
private final class SMTPHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let settings: AlertSettings.Mail
    private let message: MailMessage
    private let credentials: SMTPSession.Credentials?
    private let tls: NIOSSLContext?
    private let host: String
    private let outcome: EventLoopPromise<[MailAddress]>
    /// From the moment that there is a connection.
    private var session: SMTPSession?
    private var isDone = false

    init(
        _ settings: AlertSettings.Mail, _ message: MailMessage, _ credentials: SMTPSession.Credentials?, tls: NIOSSLContext?, host: String,
        outcome: EventLoopPromise<[MailAddress]>
    ) {
        self.settings = settings
        self.message = message
        self.credentials = credentials
        self.tls = tls
        self.host = host
        self.outcome = outcome
    }

    /// Without a host name the certificate has to be for the address.
    func addTLS(to pipeline: ChannelPipeline.SynchronousOperations) throws {
        guard let tls else { throw SMTPFault.noTLS }
        let name = IPAddress(settings.server.host) == nil ? settings.server.host : nil
        try pipeline.addHandler(NIOSSLClientHandler(context: tls, serverHostname: name), position: .first)
    }

    func channelActive(context: ChannelHandlerContext) {
        let isLocal = context.remoteAddress?.ipAddress.flatMap { IPAddress($0) }?.isLoopback == true
        if settings.security == .none, !isLocal { return fail(SMTPFault.noTLS, context) }
        session = SMTPSession(
            SMTPSession.Plan(
                clientName: clientName(context.localAddress), message: message, upgrades: settings.security == .startTLS,
                isSafe: settings.security == .tls || isLocal, credentials: credentials))
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // The answer to QUIT.
        if isDone { return context.close(promise: nil) }
        guard let action = session?.receive(unwrapInboundIn(data).readableBytesView) else { return }
        perform(action, context)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent, let action = session?.receiveTLS() { perform(action, context) }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) { outcome.fail(AlertFault("the server closed the connection")) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { fail(error, context) }

    private func perform(_ action: SMTPSession.Action, _ context: ChannelHandlerContext) {
        switch action {
        case .none: break
        case .send(let bytes): context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: bytes)), promise: nil)
        case .startTLS:
            do { try addTLS(to: context.pipeline.syncOperations) } catch { fail(error, context) }
        case .done(let refused, let goodbye):
            isDone = true
            outcome.succeed(refused)
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: goodbye)), promise: nil)
            let channel = context.channel
            context.eventLoop.scheduleTask(in: Self.goodbyeLimit) { channel.close(promise: nil) }
        case .failed(let fault): fail(fault, context)
        }
    }

    private func fail(_ error: any Error, _ context: ChannelHandlerContext) {
        outcome.fail(error)
        context.close(promise: nil)
    }

    /// RFC 5321 §4.1.3: an address where there is no name of two labels.
    private func clientName(_ address: SocketAddress?) -> String {
        if host.utf8.contains(UInt8(ascii: ".")), MailAddress.isDomain(host) { return host }
        switch address {
        case .v4?: return "[\(address?.ipAddress ?? "127.0.0.1")]"
        case .v6?: return "[IPv6:\(address?.ipAddress ?? "::1")]"
        case .unixDomainSocket?, nil: return "localhost"
        }
    }

    private static let goodbyeLimit = TimeAmount.seconds(5)
}
