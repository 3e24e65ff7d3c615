import Logging
import NIOCore

/// DNS-01: adds the record at the end of the name's chain of CNAMEs, waits until the zone's servers show it, removes it.
///
/// Changes at one name are made one after the other.
///
/// Source: RFC 8555 §8.4.
package struct DNSChallenge: ACMEPresenter {
    private let provider: any DNSProvider
    private let resolver: DNSResolver
    private let propagation: DNSPropagation
    private let logger: Logger
    private let records = PresentedRecords()

    package init(provider: any DNSProvider, resolver: DNSResolver, propagation: DNSPropagation, logger: Logger) {
        self.provider = provider
        self.resolver = resolver
        self.propagation = propagation
        self.logger = logger
    }

    package func present(_ challenge: ACMEChallenge) async throws {
        guard challenge.type == .dns01 else { throw DNSFault("\(challenge.type.rawValue) is not shown in the DNS") }
        var record = TXTRecord(name: try await place(challenge.dnsName), value: challenge.dnsValue)
        do {
            try await add(record, challenge)
        } catch let fault as DNSFault where fault.isZoneMissing {
            let own = TXTRecord(name: challenge.dnsName, value: challenge.dnsValue)
            guard own != record else { throw fault }
            // The CNAME may be a wildcard that is meant for something else: a record of its own hides it.
            logger.debug("No zone for the target of a CNAME", metadata: Self.metadata(challenge, record, provider))
            do { try await add(own, challenge) } catch { throw DNSFault("\(fault); \(own.name): \(error)") }
            record = own
        }
        logger.debug("A record for DNS-01 was added", metadata: Self.metadata(challenge, record, provider))
        try await propagation.wait(for: record)
    }

    private func add(_ record: TXTRecord, _ challenge: ACMEChallenge) async throws {
        // Before it is added: when that fails, it may be there all the same.
        await records.keep(record, for: challenge)
        try await change(record) { try await provider.add(record) }
    }

    /// Also when the task is cancelled.
    package func withdraw(_ challenge: ACMEChallenge) async {
        guard let record = await records.take(challenge) else { return }
        await Task {
            do {
                try await change(record) { try await provider.remove(record) }
            } catch {
                var metadata = Self.metadata(challenge, record, provider)
                metadata["reason"] = "\(LogText.escape("\(error)"))"
                logger.warning("A record for DNS-01 was not removed", metadata: metadata)
            }
        }.value
    }

    /// The name where the record is written. Without an answer it is the name itself: the provider may work where the resolver does not.
    private func place(_ name: String) async throws(DNSFault) -> String {
        guard let asked = DNSName(name) else { throw DNSFault("\(name) is not a name") }
        let target: DNSName
        do throws(DNSFault) {
            target = try await resolver.target(of: asked)
        } catch {
            logger.info("The CNAME of a name could not be looked up", metadata: ["name": "\(asked)", "reason": "\(error.reason)"])
            return name
        }
        guard target != asked else { return name }
        // A provider, a program above all, is given nothing that is not a name of a host.
        guard let host = DomainPattern.normalizedHost("\(target)") else {
            throw DNSFault("the CNAME at \(name) leads to \(target), which is not the name of a host")
        }
        logger.debug("A record for DNS-01 stands elsewhere", metadata: ["name": "\(asked)", "target": "\(host)"])
        return host
    }

    private func change(_ record: TXTRecord, _ body: () async throws -> Void) async throws {
        guard await records.enter(record.name) else { throw DNSFault("it was cancelled") }
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        await records.leave(record.name)
        try result.get()
    }

    private static func metadata(_ challenge: ACMEChallenge, _ record: TXTRecord, _ provider: any DNSProvider) -> Logger.Metadata {
        ["domain": "\(challenge.name)", "record": "\(LogText.escape(record.name))", "provider": "\(provider.label)"]
    }
}

/// What stands where, and which names are being changed.
private actor PresentedRecords {
    private var records: [ACMEChallenge: TXTRecord] = [:]
    /// Names that are being changed, with those who wait.
    private var waiting: [String: [(number: Int, continuation: CheckedContinuation<Bool, Never>)]] = [:]
    private var nextNumber = 0

    func keep(_ record: TXTRecord, for challenge: ACMEChallenge) { records[challenge] = record }
    func take(_ challenge: ACMEChallenge) -> TXTRecord? { records.removeValue(forKey: challenge) }

    /// - Returns: false if the task was cancelled before its turn came.
    func enter(_ name: String) async -> Bool {
        guard waiting[name] != nil else {
            waiting[name] = []
            return true
        }
        nextNumber += 1
        let number = nextNumber
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                // The handler has run already.
                guard !Task.isCancelled else { return continuation.resume(returning: false) }
                waiting[name, default: []].append((number, continuation))
            }
        } onCancel: {
            Task { await giveUp(number, name) }
        }
    }

    private func giveUp(_ number: Int, _ name: String) {
        guard let place = waiting[name]?.firstIndex(where: { $0.number == number }) else { return }
        waiting[name]?.remove(at: place).continuation.resume(returning: false)
    }

    /// The next in line is let in, and the name stays taken.
    func leave(_ name: String) {
        guard var line = waiting[name], !line.isEmpty else {
            waiting[name] = nil
            return
        }
        let next = line.removeFirst()
        waiting[name] = line
        next.continuation.resume(returning: true)
    }
}
