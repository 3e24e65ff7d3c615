import FoundationEssentials
import Logging
import NIOConcurrencyHelpers
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
    private let watcher: ExpiryWatcher
    private let looks = NIOLockedValueBox<RepeatedTask?>(nil)

    init(_ configuration: GatewayConfiguration, stateDirectory: String, logger: Logger) throws {
        let group = MultiThreadedEventLoopGroup.singleton
        watcher = ExpiryWatcher(
            settings: configuration.alerts, file: stateDirectory + "/alerts.json", group: group, logger: logger)
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
        let dns = settings.dns.map { makeDNSChallenge($0, group: group, logger: logger) }
        let resolver = DNSResolver.system(override: settings.dns?.resolver, group: group)
        let automatic = try AutomaticCertificates(
            settings: settings, stateDirectory: stateDirectory, acquired: acquired, board: board, dns: dns,
            persistent: DNSPersistChallenge(propagation: DNSPropagation(resolver: resolver)),
            userAgent: "kakuremichi/\(KakuremichiCommand.version)", group: group, logger: logger, random: SystemEdges.random,
            isCoveredByFile: { selector.isCoveredByFile($0) })
        self.automatic = automatic
        let gatewayName = settings.gatewayName?.name
        cluster = GatewayCluster(
            board: board, store: automatic.store, settings: settings.cluster, group: group,
            ownThumbprint: { await automatic.thumbprint }, isOurs: { selector.isRouted($0) || $0 == gatewayName })
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

    /// The listeners are open: what is due is ordered, and all certificates are looked at once a minute, for alerts.
    func start() async {
        await automatic?.start()
        looks.withLockedValue {
            $0 = MultiThreadedEventLoopGroup.singleton.next().scheduleRepeatedTask(initialDelay: .seconds(5), delay: Self.watchInterval) {
                _ in
                Task { await self.look() }
            }
        }
    }

    private func look() async {
        let entries = await automatic?.watched ?? []
        let files = selector.files.map { file in
            WatchedCertificate(
                name: file.source, notBefore: file.notValidBefore, notAfter: file.notValidAfter, isOverdue: false, lastFailure: nil)
        }
        await watcher.check(certificates: entries + files, missing: await automatic?.missing ?? [])
    }

    var alertCounters: AlertCounters { watcher.counters }

    func stop() async {
        looks.withLockedValue { $0?.cancel() }
        await watcher.shutdown()
        await automatic?.stop()
        await cluster?.shutdown()
    }

    private static let watchInterval = TimeAmount.minutes(1)

    /// An operator who comes from another program may have certificates already.
    private static func nameForeignCaches(besides directory: String, logger: Logger) {
        for other in ACMESettings.foreignCaches where other != directory && SystemFiles.exists(other) {
            logger.notice(
                "There is a certificate cache of another program; to use it, give its path as --acme-cache-dir",
                metadata: ["directory": "\(other)"])
        }
    }
}
