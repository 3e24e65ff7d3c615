import Glibc
import Inet
import TCPStack

/// A simulation that is drawn from a seed: paths, buffers, applications and what befalls them. `run` says what went wrong.
package struct StackScenario: Sendable {
    package var seed: UInt64
    package var family = IPAddress.Family.v4
    package var connections = 1
    /// They begin at random moments within it.
    package var spread = Duration.zero
    /// The most bytes that one side sends on one connection.
    package var largest = 1000
    package var up = SimulatedPath.Quality()
    package var down = SimulatedPath.Quality()
    package var tick = Duration.zero
    package var configuration = StackConfiguration()
    package var incidents: [Incident] = []
    package var hasSlowReaders = true
    package var hasTurns = true
    /// Applications that do not read, close early or abort.
    package var hasDisorder = true

    package struct Incident: Sendable {
        package var at: Duration
        package var what: StackSimulation.Incident
    }

    package init(seed: UInt64) { self.seed = seed }

    /// - Returns: what was wrong, or `nil`.
    package func run() -> String? { play().fault }

    /// The run, and what was wrong with it.
    package func play() -> (simulation: StackSimulation, fault: String?) {
        let simulation = StackSimulation(
            family: family, upstream: up, downstream: down, seed: seed, client: configuration, server: configuration, tick: tick)
        for number in 0..<connections {
            let random = RandomSource.seeded(seed &+ 1_000_003 &* UInt64(number + 1))
            let (client, server) = plans(random)
            simulation.add(client: client, server: server, at: random.jitter(upTo: spread))
        }
        for incident in incidents { simulation.schedule(incident.what, at: incident.at) }
        if max(up.loss, down.loss) < 0.01, up.burst == nil, down.burst == nil, up.corrupt + down.corrupt < 0.01 {
            simulation.patience = .seconds(180)
        }
        let isThrough = simulation.run(until: Self.limit)
        return (simulation, simulation.violation ?? (isThrough ? verdict(simulation) : "busy after \(Self.limit): \(open(simulation))"))
    }

    /// Switches one thing off after another and keeps what still fails.
    package func shrunk(limit: Int = 60) -> StackScenario {
        var (best, runs) = (self, 0)
        func attempt(_ change: (inout StackScenario) -> Void) -> Bool {
            var candidate = best
            change(&candidate)
            guard runs < limit, "\(candidate)" != "\(best)" else { return false }
            runs += 1
            guard candidate.run() != nil else { return false }
            best = candidate
            return true
        }
        while attempt({ $0.connections = max(1, $0.connections / 4) }) {}
        for index in incidents.indices.reversed() { _ = attempt { $0.incidents.remove(at: index) } }
        let steps: [(inout StackScenario) -> Void] = [
            { $0.hasDisorder = false }, { $0.hasSlowReaders = false }, { $0.hasTurns = false }, { $0.tick = .zero }, { $0.spread = .zero },
            { $0.up.corrupt = 0 }, { $0.down.corrupt = 0 }, { $0.up.duplicate = 0 }, { $0.down.duplicate = 0 }, { $0.up.reorder = 0 },
            { $0.down.reorder = 0 }, { $0.up.jitter = .zero }, { $0.down.jitter = .zero }, { $0.up.burst = nil }, { $0.down.burst = nil },
            { $0.up.loss = 0 }, { $0.down.loss = 0 }, { $0.up.rate = nil }, { $0.down.rate = nil },
            { $0.configuration.receiveBufferInitial = StackConfiguration().receiveBufferInitial },
            { $0.configuration.receiveBufferMaximum = StackConfiguration().receiveBufferMaximum },
            { $0.configuration.sendBufferMaximum = StackConfiguration().sendBufferMaximum },
        ]
        for step in steps { _ = attempt(step) }
        while attempt({ $0.largest /= 2 }) {}
        while attempt({ $0.connections = max(1, $0.connections / 2) }) {}
        return best
    }

    // MARK: What has to hold at the end

    private func verdict(_ simulation: StackSimulation) -> String? {
        for (number, conversation) in simulation.conversations.enumerated() {
            for (side, mine, theirs) in [
                ("client", conversation.client, conversation.server), ("server", conversation.server, conversation.client),
            ] where mine.id != nil && !mine.isForgotten {
                func fault(_ text: String) -> String {
                    "conversation \(number), \(side): \(text): \(mine.summary); peer: \(theirs.summary)"
                }
                guard let reason = mine.reason else { return fault("never ended") }
                guard conversation.isIntact, mine.plan.isOrderly, theirs.plan.isOrderly else { continue }
                if reason == .finished, !mine.isComplete { return fault("finished without all bytes") }
                // All is there, and the peer's TIME-WAIT was over before the last FIN came through.
                let isLateFIN = reason == .reset && mine.isComplete && theirs.isComplete && theirs.reason == .finished
                if reason != .finished, !mayFail(simulation), !isLateFIN { return fault("failed") }
            }
        }
        return simulation.remains == 0 ? nil : "\(simulation.remains) entries and bytes are left: \(open(simulation))"
    }

    /// So many losses, silence so long or memory so short that giving a connection up is right.
    private func mayFail(_ simulation: StackSimulation) -> Bool {
        let loss = simulation.hosts.map(\.path.lossSoFar).max() ?? 0
        let isHarsh = [up, down].contains { $0.burst.map { $0.bad > .seconds(1) } ?? false }
        let isShort = configuration.memoryLimit < StackConfiguration().memoryLimit
        return isShort || loss > 0.1 || isHarsh || (loss > 0.02 && incidents.contains { $0.what == .down(true) })
    }

    private func open(_ simulation: StackSimulation) -> String {
        let open = simulation.conversations.enumerated().filter { !$0.element.isOver }
        return
            "\(open.prefix(2).map { "\($0.offset): client \($0.element.client.summary); server \($0.element.server.summary)" }), \(simulation.hosts.map { $0.stack.counts })"
    }

    private static let limit = Duration.seconds(40_000)
}

extension StackScenario: CustomStringConvertible {
    /// Only what is not as usual.
    package var description: String { Self.differences(of: self, from: StackScenario(seed: 0)) }

    private static func differences<Value>(of value: Value, from usual: Value) -> String {
        let pairs = zip(Mirror(reflecting: value).children, Mirror(reflecting: usual).children)
        return pairs.compactMap { mine, theirs -> String? in
            let label = mine.label ?? ""
            switch (mine.value, theirs.value) {
            case (let mine as SimulatedPath.Quality, let theirs as SimulatedPath.Quality):
                return "\(label): (\(differences(of: mine, from: theirs)))"
            case (let mine as StackConfiguration, let theirs as StackConfiguration):
                return "\(label): (\(differences(of: mine, from: theirs)))"
            case (let mine as [Incident], _):
                return mine.isEmpty ? nil : "incidents: " + mine.map { "\($0.at) \(Self.text($0.what))" }.joined(separator: "; ")
            default: return "\(mine.value)" == "\(theirs.value)" ? nil : "\(label): \(mine.value)"
            }
        }.joined(separator: ", ")
    }

    private static func text(_ incident: StackSimulation.Incident) -> String {
        guard case .quality(let side, let quality) = incident else {
            return "\(incident)".replacing("TestSupport.StackSimulation.", with: "")
        }
        return "\(side) (\(differences(of: quality, from: SimulatedPath.Quality())))"
    }
}

// MARK: Drawing

extension StackScenario {
    /// Small enough for some tenths of a second.
    package static func drawn(from seed: UInt64) -> StackScenario {
        let random = RandomSource.seeded(seed)
        var scenario = StackScenario(seed: seed)
        scenario.family = random.pick([.v4, .v6])
        scenario.connections = random.pick([1, 1, 2, 5, 10, 50, 200])
        scenario.spread = random.pick([.zero, .milliseconds(200), .seconds(5)])
        scenario.largest = Int(random.logarithmic(1000...Double(20_000_000 / scenario.connections)))
        scenario.up = .drawn(random)
        scenario.down = random.happens(0.5) ? scenario.up : .drawn(random)
        scenario.tick = random.pick([.zero, .microseconds(20), .milliseconds(1)])
        scenario.hasSlowReaders = random.happens(0.5)
        scenario.hasTurns = random.happens(0.5)
        scenario.hasDisorder = random.happens(0.4)
        scenario.drawConfiguration(random)
        scenario.drawIncidents(random)
        return scenario
    }

    /// 10,000 connections.
    package static func large(_ family: IPAddress.Family, seed: UInt64) -> StackScenario {
        let random = RandomSource.seeded(seed)
        var scenario = StackScenario(seed: seed)
        scenario.family = family
        scenario.connections = 10_000
        scenario.spread = .seconds(10)
        scenario.largest = 20_000
        scenario.up.loss = random.pick([0, 0.001, 0.01])
        scenario.up.delay = .milliseconds(Int64(random.integer(1...100)))
        scenario.up.jitter = scenario.up.delay / 10
        scenario.down = scenario.up
        scenario.down.rate = random.pick([nil, 500e6])
        scenario.tick = .microseconds(100)
        scenario.configuration.keepalive = .seconds(60)
        scenario.configuration.maximumHalfOpenPerListener = 20_000
        return scenario
    }

    private mutating func drawConfiguration(_ random: RandomSource) {
        if random.happens(0.5) {
            configuration.receiveBufferInitial = 1 << random.integer(11...18)
            configuration.receiveBufferMaximum = configuration.receiveBufferInitial << random.integer(0...5)
            configuration.sendBufferMaximum = 1 << random.integer(11...20)
        }
        if random.happens(0.5) { configuration.sendBufferInitial = min(configuration.sendBufferMaximum, 1 << random.integer(11...18)) }
        // So little that connections have to be given up.
        if random.happens(0.1) { configuration.memoryLimit = 1 << random.integer(16...22) }
        configuration.ecn = random.happens(0.7)
        configuration.congestion = random.pick([.cubic, .cubic, .newReno])
        configuration.mtu = random.pick([1420, 1420, 1280, 1500, random.integer(1280...9000)])
        // A connection that is only idle must learn that its peer has gone.
        configuration.keepalive = .seconds(random.pick([15, 60, 300]))
        let loss = max(up.loss, down.loss)
        if loss > 0.02 { configuration.userTimeout = .seconds(300) }
        if loss > 0.1 || up.burst != nil || down.burst != nil {
            configuration.userTimeout = .seconds(2000)
            configuration.keepalive = .seconds(600)
        }
    }

    private mutating func drawIncidents(_ random: RandomSource) {
        let moment = { Duration.milliseconds(Int64(random.logarithmic(10...30_000))) }
        if random.happens(0.15) {
            let start = moment()
            incidents.append(Incident(at: start, what: .down(true)))
            incidents.append(Incident(at: start + .milliseconds(Int64(random.logarithmic(50...30_000))), what: .down(false)))
        }
        if random.happens(0.15) {
            var (narrow, other) = (up, down)
            narrow.tellsTooBig = random.happens(0.5)
            // Without a word, a path below 1,076 bytes is found after six timeouts only: too late for some user timeouts.
            let least = family == .v6 ? 1280 : narrow.tellsTooBig ? 600 : 1076
            narrow.mtu = random.integer(least...max(least, configuration.mtu - 1))
            (other.mtu, other.tellsTooBig) = (narrow.mtu, narrow.tellsTooBig)
            let start = moment()
            incidents.append(Incident(at: start, what: .quality(.client, narrow)))
            incidents.append(Incident(at: start, what: .quality(.server, other)))
        }
        let side = random.pick(StackSimulation.Side.allCases)
        if random.happens(0.1) { incidents.append(Incident(at: moment(), what: .restart(side))) }
        if random.happens(0.1) { incidents.append(Incident(at: moment(), what: .vanish(side))) }
    }

    private func plans(_ random: RandomSource) -> (ApplicationPlan, ApplicationPlan) {
        let bytes = { random.happens(0.1) ? 0 : Int(random.logarithmic(1...Double(max(2, largest)))) }
        var (client, server) = (ApplicationPlan(bytes: bytes()), ApplicationPlan(bytes: bytes()))
        if hasTurns, random.happens(0.4) {
            let (mine, theirs) = (random.integer(1...2000), random.integer(1...5000))
            let rounds = max(1, min(200, largest / (mine + theirs)))
            (client.bytes, server.bytes) = (mine * rounds, theirs * rounds)
            client.pace = .turns(mine: mine, theirs: theirs)
            server.pace = .turns(mine: theirs, theirs: mine)
        }
        if random.happens(0.3) { server.ending = .whenInputCloses } else if random.happens(0.3) { client.ending = .whenInputCloses }
        client.coalesces = random.happens(0.2)
        if hasSlowReaders {
            client.drawReading(random)
            server.drawReading(random)
        }
        if hasDisorder, random.happens(0.3) {
            if random.happens(0.5) { client.drawDisorder(random) } else { server.drawDisorder(random) }
        }
        return (client, server)
    }
}

extension ApplicationPlan {
    fileprivate mutating func drawReading(_ random: RandomSource) {
        switch random.integer(0...5) {
        case 0:
            let piece = max(1000, bytes / 50)
            reading = .slow(bytes: piece, every: .milliseconds(Int64(random.integer(1...500))))
        case 1: reading = .pause(after: random.integer(0...50_000), for: .milliseconds(Int64(random.integer(1...20_000))))
        default: reading = .eager
        }
    }

    fileprivate mutating func drawDisorder(_ random: RandomSource) {
        let after = Duration.milliseconds(Int64(random.logarithmic(1...100_000)))
        if random.happens(0.3) { reading = .never }
        ending = random.happens(0.5) ? .close(after: after) : .abort(after: after)
    }
}

extension SimulatedPath.Quality {
    fileprivate static func drawn(_ random: RandomSource) -> Self {
        var quality = Self()
        quality.loss = random.pick([0, 0, 0.001, 0.01, 0.05, 0.2, random.unit * 0.3])
        quality.duplicate = random.pick([0, 0, 0.01, 0.2])
        quality.corrupt = random.pick([0, 0, 0.001, 0.01])
        quality.reorder = random.pick([0, 0, 0.01, 0.1, 0.3])
        quality.delay = .microseconds(Int64(random.logarithmic(500...300_000)))
        quality.jitter = quality.delay * random.pick([0, 0, 1, 5, 10]) / 10
        if random.happens(0.15) {
            quality.burst = .init(
                loss: 0.3 + 0.7 * random.unit, bad: .milliseconds(Int64(random.logarithmic(5...2000))),
                good: .milliseconds(Int64(random.logarithmic(500...20_000))))
        }
        if random.happens(0.4) {
            let rate = random.logarithmic(2e6...1e9)
            quality.rate = rate
            // A few packets, as much as is in flight, or seconds of it.
            let inFlight = rate / 8 * Double(quality.delay.inNanoseconds) / 1e9 * 2
            quality.queue = max(20_000, Int(random.pick([20_000, inFlight, rate / 8 * 3])))
            if random.happens(0.3) { quality.mark = quality.queue / random.integer(1...10) }
        }
        return quality
    }
}

extension RandomSource {
    /// As often between 1 and 10 as between 10 and 100.
    fileprivate func logarithmic(_ range: ClosedRange<Double>) -> Double {
        range.lowerBound * exp(unit * log(range.upperBound / range.lowerBound))
    }
}
