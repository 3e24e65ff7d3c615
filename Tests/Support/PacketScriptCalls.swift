import Inet
import TCPStack

/// What the application does in a packet script.
extension PacketScriptRunner {
    func set(_ words: [String]) throws(PacketScript.Fault) {
        guard trace.isEmpty else { throw PacketScript.Fault(description: "set comes first") }
        switch words.first {
        case "mtu": configuration.mtu = try number(words, 1)
        case "receive-initial": configuration.receiveBufferInitial = try number(words, 1)
        case "receive-maximum": configuration.receiveBufferMaximum = try number(words, 1)
        case "send-maximum": configuration.sendBufferMaximum = try number(words, 1)
        case "half-open": configuration.maximumHalfOpenPerListener = try number(words, 1)
        case "connections": configuration.maximumConnections = try number(words, 1)
        case "time-wait-records": configuration.maximumTimeWait = try number(words, 1)
        case "memory": configuration.memoryLimit = try number(words, 1)
        case "ecn": configuration.ecn = words.last == "on"
        case "user-timeout": configuration.userTimeout = try duration(words, 1)
        case "syn-timeout": configuration.synTimeout = try duration(words, 1)
        case "time-wait": configuration.timeWait = try duration(words, 1)
        case "fin-wait-2": configuration.finWait2Timeout = try duration(words, 1)
        case "keepalive": configuration.keepalive = try duration(words, 1)
        case "keepalive-probes": configuration.keepaliveProbes = try number(words, 1)
        case "delayed-ack": configuration.delayedAcknowledgment = try duration(words, 1)
        case "congestion" where words.last == "reno": configuration.congestion = .newReno
        case "congestion" where words.last == "cubic": configuration.congestion = .cubic
        case "peer-iss":
            guard words.count == 2, let iss = UInt32(words[1]) else { throw PacketScript.Fault(description: "a number is missing") }
            peerShift = iss &- 1000
        default: throw PacketScript.Fault(description: "no such setting")
        }
    }

    /// `use established|connected [rtt TIME] [options of the peer's SYN]`: the handshake, after which time is zero.
    func open(_ words: [String]) throws(PacketScript.Fault) {
        let isActive = words.first == "connected"
        guard isActive || words.first == "established" else { throw PacketScript.Fault(description: "use established|connected") }
        var words = words.dropFirst()
        var rtt = Duration.zero
        if let place = words.firstIndex(of: "rtt") {
            rtt = try duration(Array(words), words.distance(from: words.startIndex, to: place) + 1)
            words.removeSubrange(place...(place + 1))
        }
        var form = try SegmentForm((isActive ? ["SA", "1000", "ack", "5001"] : ["S", "1000"]) + words)
        if form.numbers[.mss] == nil, !form.absent.contains(.mss) { form.numbers[.mss] = .exactly(1000) }
        if !form.absent.contains(.sackOK) { form.numbers[.sackOK] = .exactly(1) }
        let window = form.numbers[.win]
        if isActive {
            try connect(timeout: nil)
            try drain()
            guard waiting.popLast()?.segment.flags.isSuperset(of: .syn) == true else { throw PacketScript.Fault(description: "no SYN") }
            harness.now += rtt
            try send(form)
            try drain()
            guard waiting.popLast()?.segment.flags == .ack else { throw PacketScript.Fault(description: "no third ACK") }
        } else {
            if harness.stack.counts.listeners == 0 { try listen(backlog: 16) }
            try send(form)
            try drain()
            guard waiting.popLast()?.segment.flags.isSuperset(of: [.syn, .ack]) == true else {
                throw PacketScript.Fault(description: "no SYN and ACK")
            }
            harness.now += rtt
            var third = try SegmentForm(["A", "1001", "ack", "5001"])
            third.numbers[.win] = window
            try send(third)
            try drain()
        }
        guard events.popLast() != nil, events.isEmpty, waiting.isEmpty else { throw PacketScript.Fault(description: "no connection") }
        (zero, lastTurn) = (harness.now, harness.now)
        trace = ["0.000000 established"]
    }

    func listen(backlog: Int) throws(PacketScript.Fault) {
        do {
            _ = try harness.stack.listen(address: nil, port: harness.localPort, backlog: backlog)
        } catch {
            throw PacketScript.Fault(description: "\(error)")
        }
    }

    func connect(timeout: Duration?) throws(PacketScript.Fault) {
        do {
            let id = try harness.stack.connect(
                from: harness.local, to: SocketEndpoint(harness.remote, port: harness.remotePort),
                options: ConnectionOptions(connectTimeout: timeout), now: harness.now)
            harness.localPort = harness.stack.endpoints(of: id)?.local.port ?? 0
            adopt(id)
        } catch {
            throw PacketScript.Fault(description: "\(error)")
        }
    }

    /// A connection comes to life: both streams begin.
    func adopt(_ id: ConnectionID) {
        self.id = id
        (written, read) = (0, 0)
    }

    /// `write COUNT [taken COUNT|refused]`
    func write(_ words: [String]) throws(PacketScript.Fault) {
        let id = try current()
        let start = written
        let bytes = (0..<UInt32(try number(words, 0))).map { Self.streamByte(start &+ $0) }
        let taken = harness.write(id, bytes)
        written &+= UInt32(taken ?? 0)
        switch words.dropFirst().first {
        case "refused":
            guard taken == nil else { throw PacketScript.Fault(description: "it was taken") }
        case "taken":
            guard taken == (try number(words, 2)) else { throw PacketScript.Fault(description: "taken: \(taken ?? 0)") }
        default:
            guard taken == bytes.count else { throw PacketScript.Fault(description: taken.map { "taken: \($0)" } ?? "refused") }
        }
    }

    /// `read COUNT|all [= 5x7 10x3]`: the bytes have to be the stream's, or so many of these values.
    func read(_ words: [String]) throws(PacketScript.Fault) {
        let id = try current()
        let bytes = harness.read(id, atMost: words.first == "all" ? 1 << 22 : try number(words, 0))
        if words.first != "all" {
            guard bytes.count == (try number(words, 0)) else { throw PacketScript.Fault(description: "\(bytes.count) bytes") }
        }
        var expected: [UInt8] = []
        if words.count > 1, words[1] == "=" {
            for run in words.dropFirst(2) {
                let parts = run.split(separator: "x").compactMap { Int($0) }
                guard parts.count == 2 else { throw PacketScript.Fault(description: "COUNTxVALUE: \(run)") }
                expected += [UInt8](repeating: UInt8(truncatingIfNeeded: parts[1]), count: parts[0])
            }
        } else {
            let start = read
            expected = bytes.indices.map { Self.streamByte(start &+ UInt32($0)) }
        }
        read &+= UInt32(bytes.count)
        guard bytes == expected else { throw PacketScript.Fault(description: "wrong bytes: \(bytes.prefix(100))") }
    }

    /// The byte at a place of either stream.
    static func streamByte(_ place: UInt32) -> UInt8 { UInt8(truncatingIfNeeded: (place &* 31) ^ (place >> 8)) }
}
