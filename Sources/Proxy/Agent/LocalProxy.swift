import Logging
import NIOCore
import Synchronization

/// What an agent serves: a target for each public host, or one for all.
package struct LocalTargets: Sendable, Equatable {
    /// What the target sees as Host.
    package enum HostField: Sendable, Equatable {
        case asReceived
        /// Its own name, as the original agent did.
        case target
    }

    package struct Entry: Sendable, Equatable {
        package var domain: String
        package var target: UpstreamTarget
        package var host: HostField
        package var enabled: Bool
        package var options = RouteOptions()

        package init(domain: String, target: UpstreamTarget, host: HostField = .asReceived, enabled: Bool = true) {
            self.domain = domain
            self.target = target
            self.host = host
            self.enabled = enabled
        }
    }

    package var entries: [Entry]
    /// For hosts without an entry.
    package var catchAll: Entry?

    package init(entries: [Entry] = [], catchAll: Entry? = nil) {
        self.entries = entries
        self.catchAll = catchAll
    }

    /// Every host goes to one target.
    package init(all target: UpstreamTarget, host: HostField = .asReceived) {
        self.init(catchAll: Entry(domain: "*", target: target, host: host))
    }
}

/// The HTTP server of an agent: on connections that were accepted inside the tunnel, requests go by Host to targets near the agent.
/// Thread-safe.
package final class LocalProxy: Sendable {
    package let service: ProxyService
    private let router: LocalRouter
    private let current: Mutex<LocalTargets>

    package init(
        targets: LocalTargets, connector: @escaping UpstreamConnector = OriginDialer.connector(), limits: ProxyLimits = .agent,
        firstRequestID: UInt64 = 1, logger: Logger
    ) {
        router = LocalRouter(targets)
        current = Mutex(targets)
        service = ProxyService(
            mode: .agent, router: router, connector: connector, limits: limits, firstRequestID: firstRequestID, logger: logger)
    }

    /// Requests from now on go by these targets; those in hand are not touched, but upgraded connections of targets that are gone end.
    @discardableResult
    package func update(_ targets: LocalTargets) -> RouteChanges {
        let former = current.withLock { current in
            defer { current = targets }
            return current
        }
        router.update(targets)
        service.endUpgraded { [router] in router.serves($0) }
        return RouteChanges(from: former.byDomain, to: targets.byDomain)
    }

    package var targets: LocalTargets { current.withLock { $0 } }

    /// The initializer of an accepted channel; to be called on its loop.
    package func initialize(_ channel: any Channel) -> EventLoopFuture<Void> {
        channel.eventLoop.makeCompletedFuture { try configure(channel) }
    }

    /// Puts the handlers at the end of the pipeline. On the channel's loop.
    func configure(_ channel: any Channel) throws { try service.configure(channel, scheme: .http, speaks: .either) }
}

private final class LocalRouter: RequestRouter {
    private struct Table: Sendable {
        var entries = DomainMap<RouteResolution>()
        var other: RouteResolution = .unknown
    }

    private let table: Mutex<Table>

    init(_ targets: LocalTargets) { table = Mutex(Self.table(targets, replacing: Table())) }

    func update(_ targets: LocalTargets) { table.withLock { $0 = Self.table(targets, replacing: $0) } }

    func serves(_ route: Route) -> Bool {
        if case .route(let now) = resolve(host: route.domain) { now.target == route.target } else { false }
    }

    func resolve(host: String) -> RouteResolution {
        table.withLock { $0.entries.lookUp(host) ?? $0.other }
    }

    /// Routes that have not changed are the same objects in both tables.
    private static func table(_ targets: LocalTargets, replacing former: Table) -> Table {
        var table = Table()
        for entry in targets.entries {
            guard let domain = DomainMap<RouteResolution>.normalized(entry.domain) else { continue }
            table.entries[domain] = resolution(entry, replacing: former.entries[domain])
        }
        if let entry = targets.catchAll { table.other = resolution(entry, replacing: former.other) }
        return table
    }

    private static func resolution(_ entry: LocalTargets.Entry, replacing former: RouteResolution?) -> RouteResolution {
        guard entry.enabled else { return .disabled }
        var old: Route?
        if case .route(let route)? = former { old = route }
        let host: String? = entry.host == .target ? "\(entry.target)" : nil
        return .route(Route(domain: entry.domain, target: entry.target, hostHeader: host, options: entry.options).replacing(old))
    }
}
