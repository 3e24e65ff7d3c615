import Inet
import TCPStack

/// Performs a packet script on a stack of one address family, in virtual time.
package final class PacketScriptRunner {
    let script: PacketScript
    let family: IPAddress.Family
    var configuration = StackConfiguration()
    lazy var harness = TCPScript(configuration: configuration, family: family)
    lazy var zero = harness.now
    /// When the peer's clock showed 1000.
    lazy var birth = harness.now
    /// When the line before had its turn.
    lazy var lastTurn = harness.now
    var id: ConnectionID?
    /// The peer's ISS is 1000 in the script, and this much more on the wire. With IPv6 its numbers wrap, so that every script
    /// shows that too.
    lazy var peerShift: UInt32 = family == .v6 ? 0 &- 2500 : 0
    /// By both ports.
    var flows: [UInt32: Flow] = [:]
    var peerSendsTimestamps = false
    var written: UInt32 = 0
    var read: UInt32 = 0
    var waiting: [Departure] = []
    var events: [StackEvent] = []
    var trace: [String] = []

    /// How the numbers of a script and those on the wire differ.
    struct Flow {
        /// The stack's real ISS.
        var iss: UInt32?
        var firstTimestamp: UInt32?
        var lastTimestamp: UInt32 = 0
    }

    /// A segment that has left, in the script's numbers.
    struct Departure {
        var segment: TCPScript.Segment
        var at: Instant
        var ecn: UInt8
    }

    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    package init(_ script: PacketScript, family: IPAddress.Family) {
        self.script = script
        self.family = family
    }

    package func run() throws(Failure) {
        for line in script.lines { try perform(line) }
        do throws(PacketScript.Fault) {
            try finish()
        } catch {
            throw failure("at the end", error)
        }
    }

    private func perform(_ line: PacketScript.Line) throws(Failure) {
        if let wanted = line.family, wanted != family { return }
        if line.words.first == "repeat" {
            for turn in 0..<(line.words.count > 1 ? Int(line.words[1]) ?? 1 : 1) {
                for inner in line.block { try perform(inner.stepped(turn)) }
            }
            return
        }
        do throws(PacketScript.Fault) {
            try interpret(line)
        } catch {
            throw failure("line \(line.number): \(line.text)", error)
        }
    }

    private func failure(_ place: String, _ fault: PacketScript.Fault) -> Failure {
        let lines = ["\(script.title) [\(family)]", place, fault.description, "so far:"] + trace.suffix(40)
        return Failure(description: lines.joined(separator: "\n"))
    }

    private func interpret(_ line: PacketScript.Line) throws(PacketScript.Fault) {
        let rest = line.words.dropFirst()
        // Before anything that makes the stack.
        if line.words[0] == "set" { return try set(Array(rest)) }
        if line.words[0] == "<" { return try expect(SegmentForm(rest), time: line.time) }
        if let time = line.time {
            let turn = (time.isRelative ? lastTurn : zero) + time.latest
            guard turn >= harness.now else { throw PacketScript.Fault(description: "the time is past: it is \(clock(harness.now))") }
            try lapse(until: turn)
        }
        try act(line.words[0], Array(rest))
        lastTurn = harness.now
    }

    private func act(_ verb: String, _ words: [String]) throws(PacketScript.Fault) {
        switch verb {
        case ">":
            try requireQuiet()
            try send(SegmentForm(words))
        case "icmp":
            try requireQuiet()
            try sendICMP(words)
        case "use": try open(words)
        case "peer":
            guard words.count == 2, words[0] == "port" else { throw PacketScript.Fault(description: "peer port NUMBER|next") }
            harness.remotePort = words[1] == "next" ? harness.remotePort &+ 1 : UInt16(try number(words, 1))
        case "listen": try listen(backlog: words.first == "backlog" ? number(words, 1) : 16)
        case "connect": try connect(timeout: words.first == "timeout" ? duration(words, 1) : nil)
        case "write": try write(words)
        case "read": try read(words)
        case "close": harness.stack.close(try current(), now: harness.now)
        case "shutdown": harness.stack.closeWrite(try current(), now: harness.now)
        case "abort" where words == ["once", "acknowledged"]: harness.stack.abortOnceAcknowledged(try current(), now: harness.now)
        case "abort": harness.stack.abort(try current(), now: harness.now)
        case "advance": try lapse(until: harness.now + duration(words, 0))
        case "skip":
            try drain()
            waiting = []
        case "expect": try expect(words)
        default: throw PacketScript.Fault(description: "not understood: \(verb)")
        }
    }

    // MARK: Time

    /// Lets time pass, timer by timer. Whatever leaves meanwhile should have been expected.
    private func lapse(until end: Instant) throws(PacketScript.Fault) {
        try drain()
        try requireQuiet()
        while let deadline = harness.stack.nextDeadline, deadline <= end {
            try fire(deadline)
            try requireQuiet()
        }
        harness.now = end
    }

    private func fire(_ deadline: Instant) throws(PacketScript.Fault) {
        harness.now = max(harness.now, deadline)
        harness.stack.handleTimeout(now: harness.now)
        try drain()
    }

    func clock(_ instant: Instant) -> String {
        let microseconds = (instant - zero).inNanoseconds / 1000
        let fraction = String(1_000_000 + microseconds % 1_000_000).dropFirst()
        return "\(microseconds / 1_000_000).\(fraction)"
    }

    // MARK: What leaves

    /// Takes all events, then all packets.
    func drain() throws(PacketScript.Fault) {
        for event in harness.events() {
            switch event {
            case .accepted(_, let accepted): adopt(accepted)
            case .connected, .readable, .writable, .inputClosed, .inputReset, .urgent, .datagrams, .udpWritable, .udpError, .udpClosed,
                .closed:
                break
            }
            events.append(event)
        }
        while let packet = harness.nextPacket() {
            let departure = try departure(packet)
            waiting.append(departure)
            trace.append("\(clock(harness.now)) < \(describe(departure.segment))")
        }
        if harness.stack.counts.connections < 64, let violation = harness.stack.brokenInvariant() {
            throw PacketScript.Fault(description: "broken invariant: \(violation)")
        }
    }

    private func requireQuiet() throws(PacketScript.Fault) {
        guard let first = waiting.first else { return }
        throw PacketScript.Fault(description: "nobody expected, at \(clock(first.at)): \(describe(first.segment))")
    }

    private func expect(_ form: SegmentForm, time: PacketScript.Time?) throws(PacketScript.Fault) {
        if waiting.isEmpty { try drain() }
        let base = time?.isRelative == false ? zero : lastTurn
        if let time {
            let latest = base + time.latest
            while waiting.isEmpty, let deadline = harness.stack.nextDeadline, deadline <= latest { try fire(deadline) }
            if waiting.isEmpty { harness.now = max(harness.now, latest) }
        }
        let total = form.end?.value.map { $0 &- (form.seq?.value ?? 0) }
        for part in 0..<form.count {
            guard !waiting.isEmpty else { throw PacketScript.Fault(description: "nothing came") }
            let departure = waiting.removeFirst()
            if let time, departure.at < base + time.earliest || departure.at > base + time.latest {
                throw PacketScript.Fault(description: "came at \(clock(departure.at)): \(describe(departure.segment))")
            }
            var form = form
            if form.count > 1, let start = form.seq?.value, let total {
                let length = total / UInt32(form.count)
                form.seq = .exactly(start &+ UInt32(part) &* length)
                form.end = .exactly(start &+ UInt32(part + 1) &* length)
            }
            if let difference = difference(form, departure) {
                throw PacketScript.Fault(description: "\(difference), at \(clock(departure.at)): \(describe(departure.segment))")
            }
            lastTurn = departure.at
        }
    }

    // MARK: Other expectations

    private func expect(_ words: [String]) throws(PacketScript.Fault) {
        try drain()
        switch words.first {
        case "nothing":
            try requireQuiet()
            if words.count == 3, words[1] == "for" { try lapse(until: harness.now + duration(words, 2)) }
        case "event":
            let wanted = words.dropFirst().joined(separator: " ")
            while let event = events.first, name(event) != wanted, ["readable", "writable"].contains(name(event)) { events.removeFirst() }
            guard let event = events.first else { throw PacketScript.Fault(description: "no event came") }
            guard name(event) == wanted else { throw PacketScript.Fault(description: "the event is: \(name(event))") }
            events.removeFirst()
        case "no":
            guard events.isEmpty else { throw PacketScript.Fault(description: "events: \(events.map(name))") }
        case "drops":
            guard let reason = DropReason.allCases.first(where: { words.count == 3 && "\($0)" == words[1] }) else {
                throw PacketScript.Fault(description: "expect drops REASON NUMBER")
            }
            try compare(Int(clamping: harness.stack.drops[reason]), words, 2)
        case "connections": try compare(harness.stack.counts.connections, words, 1)
        case "time-wait": try compare(harness.stack.counts.timeWait, words, 1)
        case "buffered": try compare(harness.stack.counts.bufferedBytes, words, 1)
        case "readable": try compare(harness.stack.readableBytes(current()), words, 1)
        case "writable": try compare(harness.stack.writableBytes(current()), words, 1)
        case "idle":
            guard harness.stack.nextDeadline == nil else { throw PacketScript.Fault(description: "a timer is armed") }
        case "empty":
            let counts = harness.stack.counts
            guard harness.stack.tableEntries == 0, counts.bufferedBytes == 0, counts.bufferMemory == 0 else {
                throw PacketScript.Fault(description: "left: \(counts)")
            }
        default: throw PacketScript.Fault(description: "expect what?")
        }
    }

    private func compare(_ value: Int, _ words: [String], _ index: Int) throws(PacketScript.Fault) {
        guard words.indices.contains(index) else { throw PacketScript.Fault(description: "no number") }
        guard try NumberPattern(words[index]).matches(UInt32(clamping: value)) else {
            throw PacketScript.Fault(description: "it is \(value)")
        }
    }

    private func finish() throws(PacketScript.Fault) {
        try drain()
        try requireQuiet()
        for event in events {
            if case .closed = event { throw PacketScript.Fault(description: "nobody expected the event: \(name(event))") }
        }
    }

    private func name(_ event: StackEvent) -> String {
        switch event {
        case .connected: "connected"
        case .accepted: "accepted"
        case .readable: "readable"
        case .writable: "writable"
        case .inputClosed: "input-closed"
        case .inputReset: "input-reset"
        case .urgent: "urgent"
        case .datagrams: "datagrams"
        case .udpWritable: "udp-writable"
        case .udpError: "udp-error"
        case .udpClosed: "udp-closed"
        case .closed(_, let reason): "closed \(reason)"
        }
    }

    // MARK: Words

    func number(_ words: [String], _ index: Int) throws(PacketScript.Fault) -> Int {
        guard words.indices.contains(index), let value = Int(words[index]) else {
            throw PacketScript.Fault(description: "a number is missing")
        }
        return value
    }

    func duration(_ words: [String], _ index: Int) throws(PacketScript.Fault) -> Duration {
        guard words.indices.contains(index), let value = Duration(script: words[index]) else {
            throw PacketScript.Fault(description: "a time is missing")
        }
        return value
    }

    func current() throws(PacketScript.Fault) -> ConnectionID {
        // The connection may have been accepted in this very batch.
        if id == nil { try drain() }
        guard let id else { throw PacketScript.Fault(description: "there is no connection") }
        return id
    }
}
