import FoundationEssentials
import NIOCore
import Synchronization

/// The certificates that ACME has brought, and the handshakes that wait for those to come. Thread-safe: event loops ask, and whoever
/// issues installs.
package final class AcquiredCertificates: Sendable {
    private struct State: Sendable {
        var byName = DomainTable<ServedCertificate>()
        var domains: Set<DomainPattern> = []
        /// A certificate may be there within ``CertificateWait/limit``.
        var expected: Set<DomainPattern> = []
        var waiters: [DomainPattern: [UInt64: EventLoopPromise<ServedCertificate>]] = [:]
        var waiterCount = 0
        var nextWaiter: UInt64 = 0
        /// Handshakes that ended for want of a certificate.
        var missed: [DomainPattern: UInt64] = [:]
    }

    package enum Answer: Sendable {
        case show(ServedCertificate)
        case wait
        case missing
    }

    private let state = Mutex(State())

    package init() {}

    /// - Parameters:
    ///   - host: normalised.
    ///   - domain: the route that the host belongs to.
    package func answer(host: String, domain: DomainPattern) -> Answer {
        state.withLock { state in
            if let certificate = state.byName[domain] ?? state.byName.value(for: host)?.value, certificate.covers(host) {
                return .show(certificate)
            }
            if state.expected.contains(domain) { return .wait }
            // Names come from routes, so that this is bounded.
            state.missed[domain, default: 0] &+= 1
            return .missing
        }
    }

    /// The certificate as soon as it is there. Fails if it does not come in time, or too many wait.
    /// - Returns: it, and what ends the waiting early; the future fails then.
    package func certificate(
        for domain: DomainPattern, on loop: any EventLoop
    ) -> (certificate: EventLoopFuture<ServedCertificate>, leave: @Sendable () -> Void) {
        let promise = loop.makePromise(of: ServedCertificate.self)
        let number: UInt64? = state.withLock { state in
            if let certificate = state.byName[domain] {
                promise.succeed(certificate)
                return nil
            }
            let count = state.waiters[domain]?.count ?? 0
            guard state.expected.contains(domain), count < Self.maximumWaitersPerName, state.waiterCount < Self.maximumWaiters else {
                promise.fail(CertificateAbsent())
                return nil
            }
            state.nextWaiter &+= 1
            state.waiterCount += 1
            state.waiters[domain, default: [:]][state.nextWaiter] = promise
            return state.nextWaiter
        }
        guard let number else { return (promise.futureResult, {}) }
        let leave: @Sendable () -> Void = { [self] in
            let late = state.withLock { state -> EventLoopPromise<ServedCertificate>? in
                guard let late = state.waiters[domain]?.removeValue(forKey: number) else { return nil }
                state.waiterCount -= 1
                return late
            }
            late?.fail(CertificateAbsent())
        }
        let timeout = loop.scheduleTask(in: CertificateWait.limit) { leave() }
        promise.futureResult.whenComplete { _ in timeout.cancel() }
        return (promise.futureResult, leave)
    }

    // MARK: Whoever issues

    /// It is shown from the next handshake on, and to those that wait.
    package func install(_ certificate: ServedCertificate, for domain: DomainPattern) {
        let waiting = state.withLock { state in
            state.domains.insert(domain)
            state.byName[domain] = certificate
            state.expected.remove(domain)
            return Self.takeWaiters(domain, &state)
        }
        for promise in waiting { promise.succeed(certificate) }
    }

    package func remove(_ domain: DomainPattern) {
        state.withLock { state in
            state.domains.remove(domain)
            state.byName[domain] = nil
        }
    }

    /// Handshakes for this name may wait from now on.
    package func expect(_ domain: DomainPattern) { state.withLock { _ = $0.expected.insert(domain) } }

    /// It will not be there soon: those who wait fail, and so does who comes.
    package func giveUp(_ domain: DomainPattern) {
        let waiting = state.withLock { state in
            state.expected.remove(domain)
            return Self.takeWaiters(domain, &state)
        }
        for promise in waiting { promise.fail(CertificateAbsent()) }
    }

    /// Routes that are there no more.
    package func keep(only domains: Set<DomainPattern>) {
        let gone = state.withLock { state in
            state.missed = state.missed.filter { domains.contains($0.key) }
            return state.domains.union(state.expected).subtracting(domains)
        }
        for domain in gone {
            remove(domain)
            giveUp(domain)
        }
    }

    package var all: [(domain: DomainPattern, certificate: ServedCertificate)] {
        state.withLock { state in state.domains.compactMap { domain in state.byName[domain].map { (domain, $0) } } }
            .sorted { $0.domain.name < $1.domain.name }
    }

    package func certificate(of domain: DomainPattern) -> ServedCertificate? { state.withLock { $0.byName[domain] } }

    /// Handshakes that wait now.
    package var waiting: Int { state.withLock { $0.waiterCount } }

    /// Handshakes that failed for want of a certificate since this was asked last, by route.
    package func takeMissed() -> [DomainPattern: UInt64] {
        state.withLock { state in
            defer { state.missed = [:] }
            return state.missed
        }
    }

    private static func takeWaiters(_ domain: DomainPattern, _ state: inout State) -> [EventLoopPromise<ServedCertificate>] {
        let waiters = state.waiters.removeValue(forKey: domain) ?? [:]
        state.waiterCount -= waiters.count
        return Array(waiters.values)
    }

    package static let maximumWaitersPerName = 100
    package static let maximumWaiters = 1_000
}

/// There is no certificate for the name, and none came in time.
struct CertificateAbsent: Error {}

/// A handshake's claim on a certificate that is being issued.
package struct CertificateWait: Sendable {
    /// Normalised.
    let host: String
    let domain: DomainPattern
    let certificates: AcquiredCertificates

    func certificate(on loop: any EventLoop) -> (certificate: EventLoopFuture<ServedCertificate>, leave: @Sendable () -> Void) {
        certificates.certificate(for: domain, on: loop)
    }

    package static let limit = TimeAmount.seconds(30)
}
