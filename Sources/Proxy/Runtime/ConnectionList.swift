import NIOWireGuard
import TCPStack

/// The TCP connections of a running process, as `status --connections` shows them.
package struct ConnectionList: Codable, Sendable, Equatable {
    /// Connections in one list: far less than an answer of the admin socket holds.
    package static let limit = 10_000

    /// Times in seconds, sizes in bytes; `nil` is not known yet.
    package struct Connection: Codable, Sendable, Equatable {
        package var local: String
        package var remote: String
        package var peer: String?
        /// "in" if a listener has accepted it, else "out".
        package var direction: String
        package var state: String
        package var age: Double
        /// Since the peer was heard last.
        package var silence: Double
        package var srtt: Double?
        package var rttvar: Double
        package var rto: Double
        package var minimumRTT: Double?
        package var cwnd: Int
        package var ssthresh: Int?
        /// "cubic" or "newreno".
        package var congestion: String
        /// "slow start", "avoidance", "recovery" or "timeout".
        package var phase: String
        package var inFlight: Int
        package var sendWindow: Int
        package var receiveWindow: Int
        package var mss: Int
        /// Waiting to be sent or acknowledged; `unsent` is a part of it.
        package var unacknowledged: Int
        package var unsent: Int
        /// Waiting to be read.
        package var unread: Int
        package var bytesSent: UInt64
        package var bytesReceived: UInt64
        package var retransmittedSegments: Int
        package var timeouts: Int

        package init(_ connection: InterfaceConnection) {
            let statistics = connection.statistics
            local = "\(statistics.local)"
            remote = "\(statistics.remote)"
            peer = connection.peer?.base64
            direction = statistics.isPassive ? "in" : "out"
            state = statistics.state.name
            age = statistics.age.inSeconds
            silence = statistics.silence.inSeconds
            srtt = statistics.srtt?.inSeconds
            rttvar = statistics.rttvar.inSeconds
            rto = statistics.rto.inSeconds
            minimumRTT = statistics.minimumRTT?.inSeconds
            cwnd = statistics.cwnd
            ssthresh = statistics.ssthresh
            congestion =
                switch statistics.congestion {
                case .cubic: "cubic"
                case .newReno: "newreno"
                }
            phase =
                switch statistics.phase {
                case .slowStart: "slow start"
                case .congestionAvoidance: "avoidance"
                case .recovery: "recovery"
                case .timeout: "timeout"
                }
            inFlight = statistics.flightSize
            sendWindow = statistics.sendWindow
            receiveWindow = statistics.receiveWindow
            mss = statistics.mss
            unacknowledged = statistics.unacknowledgedBytes
            unsent = statistics.unsentBytes
            unread = statistics.unreadBytes
            bytesSent = statistics.bytesSent
            bytesReceived = statistics.bytesReceived
            retransmittedSegments = statistics.retransmittedSegments
            timeouts = statistics.timeouts
        }
    }

    package var role: String
    package var processID: Int
    package var connections: [Connection]
    /// How many are left out.
    package var more: Int

    package init(role: String, processID: Int, connections: [Connection], more: Int) {
        self.role = role
        self.processID = processID
        self.connections = connections
        self.more = more
    }
}

extension ConnectionList {
    /// The form for people: three lines a connection.
    package var text: String {
        var lines = ["\(role), process \(processID): \(connections.count + more) TCP connections in the tunnel"]
        for connection in connections { lines += connection.lines }
        if more > 0 { lines.append("\(more) more, for which less waits") }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension ConnectionList.Connection {
    fileprivate var lines: [String] {
        func size(_ count: Int) -> String { Status.size(UInt64(clamping: count)) }
        let arrow = direction == "in" ? "<-" : "->"
        let measured = srtt.map { "\(Self.milliseconds($0)) ± \(Self.milliseconds(rttvar)) ms" } ?? "-"
        return [
            "",
            "\(state)  \(local) \(arrow) \(remote)  \(Status.span(Int(min(age, 1e15))))  peer \(peer ?? "none")",
            "  sent \(Status.size(bytesSent))  received \(Status.size(bytesReceived))  to send \(size(unsent))  unread \(size(unread))"
                + "  in flight \(size(inFlight))  retransmitted \(retransmittedSegments)  timeouts \(timeouts)"
                + "  heard \(Status.span(Int(min(silence, 1e15)))) ago",
            "  rtt \(measured), least \(minimumRTT.map(Self.milliseconds) ?? "-")  rto \(Self.milliseconds(rto)) ms"
                + "  \(congestion), \(phase)  cwnd \(size(cwnd))  ssthresh \(ssthresh.map(size) ?? "-")"
                + "  windows \(size(sendWindow)) out, \(size(receiveWindow)) in  mss \(mss)",
        ]
    }

    /// To the hundredth.
    private static func milliseconds(_ seconds: Double) -> String { "\((seconds * 100_000).rounded() / 100)" }
}
