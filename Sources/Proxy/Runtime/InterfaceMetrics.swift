import NIOWireGuard
import WGUserspace

extension MetricsText {
    /// The process itself.
    mutating func addProcess(role: String, version: String, startedAt: UInt64) {
        family("kakuremichi_build_info", .gauge, "Version and role; always 1.")
        sample("kakuremichi_build_info", [("role", role), ("version", version)], 1)
        single("process_start_time_seconds", .gauge, "When the process started, in seconds since 1970.", startedAt)
    }

    /// WireGuard, TCP and UDP of a snapshot.
    package mutating func add(_ status: InterfaceStatus) {
        addPeers(status.peers.map { (peer: $0, name: $0.publicKey.base64) })
        family("kakuremichi_wireguard_handshakes_total", .counter, "Handshake messages and results.")
        for (outcome, count) in Status.handshakes(status.counters) {
            sample("kakuremichi_wireguard_handshakes_total", [("outcome", outcome)], count)
        }
        single(
            "kakuremichi_wireguard_under_load", .gauge, "1 while handshakes need a cookie because there are too many of them.",
            status.isUnderLoad ? 1 : 0)
        single(
            "kakuremichi_wireguard_queued_handshakes", .gauge, "Handshake messages that wait for their turn.",
            UInt64(clamping: status.queuedHandshakes))
        single(
            "kakuremichi_wireguard_sessions", .gauge, "Peers with a session in use.", UInt64(status.peers.count { $0.hasSession }))
        family("kakuremichi_wireguard_dropped_packets_total", .counter, "WireGuard messages and inner packets dropped, by reason.")
        for (reason, count) in status.drops(of: "wireguard ") {
            sample("kakuremichi_wireguard_dropped_packets_total", [("reason", reason)], count)
        }
        family("kakuremichi_tcpip_dropped_packets_total", .counter, "Packets dropped by the TCP/IP stack in the tunnel, by reason.")
        for (reason, count) in status.drops(of: "tcp/ip ") {
            sample("kakuremichi_tcpip_dropped_packets_total", [("reason", reason)], count)
        }
        add(status.tcp)
        family("kakuremichi_udp_datagrams_total", .counter, "Datagrams of the WireGuard sockets.")
        sample("kakuremichi_udp_datagrams_total", [("direction", "receive")], UInt64(clamping: status.datagramsReceived))
        sample("kakuremichi_udp_datagrams_total", [("direction", "send")], UInt64(clamping: status.datagramsSent))
        family("kakuremichi_udp_errors_total", .counter, "Calls of the WireGuard sockets that failed.")
        sample("kakuremichi_udp_errors_total", [("direction", "receive")], UInt64(clamping: status.receiveErrors))
        sample("kakuremichi_udp_errors_total", [("direction", "send")], UInt64(clamping: status.sendErrors))
        addLoops(status)
        single("kakuremichi_udp_send_calls_total", .counter, "System calls that sent datagrams.", UInt64(clamping: status.sendCalls))
    }

    /// How the work is spread, and what loops had to say to each other.
    private mutating func addLoops(_ status: InterfaceStatus) {
        let prefix = "kakuremichi_loop_"
        let loops = status.loops.enumerated().map { (name: "\($0)", loop: $1) }
        family(prefix + "peers", .gauge, "Peers of each loop of the tunnel.")
        for (name, loop) in loops { sample(prefix + "peers", [("loop", name)], UInt64(clamping: loop.peers)) }
        family(prefix + "udp_datagrams_total", .counter, "Datagrams of the WireGuard sockets of each loop.")
        for (name, loop) in loops {
            sample(prefix + "udp_datagrams_total", [("loop", name), ("direction", "receive")], UInt64(clamping: loop.datagramsReceived))
            sample(prefix + "udp_datagrams_total", [("loop", name), ("direction", "send")], UInt64(clamping: loop.datagramsSent))
        }
        family(prefix + "handed_over_total", .counter, "WireGuard messages that one loop gave to another.")
        sample(prefix + "handed_over_total", [("kind", "initiation")], status.counters.initiationsHandedOver)
        sample(prefix + "handed_over_total", [("kind", "misdirected")], status.counters.misdirectedMessages)
    }

    private mutating func addPeers(_ peers: [(peer: PeerStatus, name: String)]) {
        func add(_ name: String, _ kind: Kind, _ help: String, _ value: (PeerStatus) -> UInt64?) {
            family(name, kind, help)
            for (peer, label) in peers {
                if let value = value(peer) { sample(name, [("peer", label)], value) }
            }
        }
        let prefix = "kakuremichi_wireguard_peer_"
        add(prefix + "receive_bytes_total", .counter, "Bytes of authentic messages from the peer.") { $0.receivedBytes }
        add(prefix + "transmit_bytes_total", .counter, "Bytes of messages to the peer.") { $0.sentBytes }
        add(prefix + "last_handshake_timestamp_seconds", .gauge, "When the last session began, in seconds since 1970; 0 is never.") {
            $0.lastHandshakeWallTime?.seconds ?? 0
        }
        add(prefix + "session", .gauge, "1 if there is a session in use.") { $0.hasSession ? 1 : 0 }
        add(
            prefix + "refused_timestamps", .gauge, "Initiations refused since the last accepted one, as their timestamps were not later."
        ) { $0.refusedTimestamps }
        let handshakes = prefix + "handshakes_total"
        family(handshakes, .counter, "Handshakes with the peer, by outcome.")
        for (peer, label) in peers {
            for (outcome, count) in Status.handshakes(peer.handshakes) {
                sample(handshakes, [("peer", label), ("outcome", outcome)], count)
            }
        }
    }
}

extension InterfaceStatus {
    /// - Parameter layer: what the reasons begin with.
    func drops(of layer: String) -> [(reason: String, count: UInt64)] {
        drops.compactMap { $0.reason.hasPrefix(layer) ? (String($0.reason.dropFirst(layer.count)), $0.count) : nil }
    }
}

extension Status {
    /// Handshakes with one peer by outcome.
    static func handshakes(_ counters: PeerStatus.HandshakeCounters) -> [(outcome: String, count: UInt64)] {
        [
            ("initiation_sent", UInt64(counters.initiationsSent)), ("initiation_received", UInt64(counters.initiationsReceived)),
            ("established", UInt64(counters.established)), ("gave_up", UInt64(counters.gaveUp)),
        ]
    }

    /// Handshakes of all peers by outcome.
    static func handshakes(_ counters: DeviceCounters) -> [(outcome: String, count: UInt64)] {
        [
            ("initiation_sent", counters.initiationsSent), ("initiation_received", counters.initiationsReceived),
            ("response_sent", counters.responsesSent), ("response_received", counters.responsesReceived),
            ("established_as_initiator", counters.sessionsAsInitiator), ("established_as_responder", counters.sessionsAsResponder),
            ("retried", counters.handshakesRetried), ("gave_up", counters.handshakesGivenUp),
            ("cookie_reply_sent", counters.cookieRepliesSent), ("cookie_received", counters.cookiesReceived),
        ]
    }
}
