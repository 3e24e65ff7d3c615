import TCPStack

extension MetricsText {
    /// The TCP connections inside the tunnel. Drops by reason stand elsewhere.
    mutating func add(_ totals: StackTotals) {
        let prefix = "kakuremichi_tcp_"
        family(prefix + "connections", .gauge, "TCP connections in the tunnel, by state.")
        for state in TCPState.allCases {
            sample(prefix + "connections", [("state", state.label)], UInt64(clamping: totals.connections[state.rawValue]))
        }
        single(prefix + "half_open_connections", .gauge, "Connections that wait for the end of their handshake.", totals.halfOpen)
        family(prefix + "opened_connections_total", .counter, "Connections begun, by us (active) or by a peer (passive).")
        sample(prefix + "opened_connections_total", [("direction", "active")], totals.activeOpens)
        sample(prefix + "opened_connections_total", [("direction", "passive")], totals.passiveOpens)
        directions("segments_total", "TCP segments in the tunnel.", totals.segmentsReceived, totals.segmentsSent)
        directions("bytes_total", "Bytes carried by TCP connections in the tunnel, each once.", totals.bytesReceived, totals.bytesSent)
        directions("resets_total", "TCP resets.", totals.resetsReceived, totals.resetsSent)
        single(
            prefix + "retransmitted_segments_total", .counter, "TCP segments that were sent again.", totals.segmentsRetransmitted)
        single(
            prefix + "retransmission_timeouts_total", .counter, "Expiries of retransmission timers.", totals.retransmissionTimeouts)
        single(prefix + "buffered_bytes", .gauge, "Bytes in the buffers of TCP connections.", totals.bufferedBytes)
        single(prefix + "buffer_memory_bytes", .gauge, "Memory of the buffers of TCP connections.", totals.bufferMemory)

        func directions(_ name: String, _ help: String, _ received: UInt64, _ sent: UInt64) {
            family(prefix + name, .counter, help)
            sample(prefix + name, [("direction", "receive")], received)
            sample(prefix + name, [("direction", "send")], sent)
        }
    }

    private mutating func single(_ name: String, _ kind: Kind, _ help: String, _ value: Int) {
        single(name, kind, help, UInt64(clamping: value))
    }
}

extension TCPState {
    /// The standard's name.
    package var name: String {
        switch self {
        case .synSent: "SYN-SENT"
        case .synReceived: "SYN-RECEIVED"
        case .established: "ESTABLISHED"
        case .finWait1: "FIN-WAIT-1"
        case .finWait2: "FIN-WAIT-2"
        case .closing: "CLOSING"
        case .closeWait: "CLOSE-WAIT"
        case .lastAck: "LAST-ACK"
        case .timeWait: "TIME-WAIT"
        case .closed: "CLOSED"
        }
    }

    /// The name as the value of a label.
    var label: String { name.lowercased().split(separator: "-").joined(separator: "_") }
}
