import FoundationEssentials
import Logging
import NIOCore
import NIOPosix
import NIOWireGuard

/// All that a gateway has to do with certificates: the choice at each handshake, and ACME behind it if it is on.
package final class GatewayCertificates: Sendable {
    package let selector: CertificateSelector
    package let automatic: AutomaticCertificates?
    /// Answers validations by HTTP-01; nil without ACME.
    package let cluster: GatewayCluster?
    package let acquired: AcquiredCertificates?

    init(_ configuration: GatewayConfiguration, stateDirectory: String, logger: Logger) throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let acquired = configuration.acme.map { _ in AcquiredCertificates() }
        let board = ChallengeBoard()
        var front = TLSFrontConfiguration(
            domains: configuration.routes.map(\.domain), certificates: configuration.certificates, stateDirectory: stateDirectory)
        front.acquired = acquired
        front.challenges = board
        front.email = configuration.acme?.email ?? ""
        front.cacheDirectory = configuration.acme?.cacheDirectory
        let selector = try CertificateSelector(configuration: front, logger: logger)
        self.selector = selector
        self.acquired = acquired
        guard let settings = configuration.acme, let acquired else {
            (automatic, cluster) = (nil, nil)
            return
        }
        Self.nameForeignCaches(besides: settings.cacheDirectory, logger: logger)
        let automatic = try AutomaticCertificates(
            settings: settings, stateDirectory: stateDirectory, acquired: acquired, board: board,
            userAgent: "kakuremichi/\(KakuremichiCommand.version)", group: group, logger: logger, random: SystemEdges.random,
            isCoveredByFile: { selector.isCoveredByFile($0) })
        self.automatic = automatic
        let gatewayName = settings.gatewayName?.name
        cluster = GatewayCluster(
            board: board, store: automatic.store, settings: settings.cluster, group: group,
            isOurs: { selector.isRouted($0) || $0 == gatewayName })
        logger.info(
            "ACME is on",
            metadata: [
                "directories": .array(settings.authorities.map { "\($0.directory)" }),
                "challenges": .array(settings.challenges.map { "\($0.rawValue)" }), "cacheDir": "\(settings.cacheDirectory)",
            ])
    }

    /// The routes of now. Certificates that are in the cache are served when this returns.
    func update(_ routes: [TunnelConfig], generation: Int) async {
        await automatic?.update(domains: routes.map { ($0.domain, $0.enabled) }, generation: generation)
    }

    func stop() async {
        await automatic?.stop()
        await cluster?.shutdown()
    }

    /// An operator who comes from another program may have certificates already.
    private static func nameForeignCaches(besides directory: String, logger: Logger) {
        for other in ACMESettings.foreignCaches where other != directory && SystemFiles.exists(other) {
            logger.notice(
                "There is a certificate cache of another program; to use it, give its path as --acme-cache-dir",
                metadata: ["directory": "\(other)"])
        }
    }
}
