import Inet
import Noise
import Testing
import WGUserspace

@Suite struct UAPITests {
    static let key = "e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a"
    static let peer = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33"
    static let otherPeer = "58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376"
    static let psk = "188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52"
    static let zero = String(repeating: "0", count: 64)

    /// Everything that comes of a text, given in pieces of `size` bytes.
    static func events(_ text: String, pieces size: Int = .max) -> [UAPI.Parser.Event] {
        var parser = UAPI.Parser()
        var events: [UAPI.Parser.Event] = []
        let bytes = Array(text.utf8)
        var start = 0
        while start < bytes.count {
            let piece = Array(bytes[start..<min(bytes.count, start.addingReportingOverflow(size).overflow ? bytes.count : start + size)])
            start += piece.count
            var offset = 0
            while offset < piece.count {
                guard let event = parser.receive(piece.span.bytes, from: &offset) else { continue }
                events.append(event)
                if case .closed = event { return events }
            }
        }
        return events
    }

    private func set(_ lines: String) throws -> UAPI.SetRequest {
        let events = Self.events("set=1\n\(lines)\n")
        guard events.count == 1, case .request(.set(let request)) = events[0] else {
            Issue.record("\(events)")
            throw UAPI.Fault.unknown
        }
        return request
    }

    @Test("the example of the protocol's page is read: keys, port, several peers in one request")
    func completeRequest() throws {
        let request = try set(
            """
            private_key=\(Self.key)
            fwmark=4294967295
            listen_port=12912
            replace_peers=true
            public_key=\(Self.peer)
            preshared_key=\(Self.psk)
            replace_allowed_ips=true
            allowed_ip=192.168.4.4/32
            endpoint=[abcd:23::33]:51820
            public_key=\(Self.otherPeer.uppercased())
            update_only=true
            endpoint=182.122.22.19:3233
            persistent_keepalive_interval=111
            allowed_ip=192.168.4.6/24
            allowed_ip=::/0
            protocol_version=1
            public_key=\(Self.peer)
            remove=true

            """)
        guard case .set(let stored)? = request.privateKey else { throw UAPI.Fault.unknown }
        #expect(hex(stored.key) == Self.key)
        #expect(request.fwmark == .max)
        #expect(request.listenPort == 12912)
        #expect(request.replacePeers)
        try #require(request.peers.count == 3)
        #expect(hex(request.peers[0].publicKey) == Self.peer)
        #expect(request.peers[0].presharedKey.map { hex($0.key) } == Self.psk)
        #expect(request.peers[0].replaceAllowedIPs)
        #expect(request.peers[0].addedAllowedIPs.map(\.description) == ["192.168.4.4/32"])
        #expect(request.peers[0].endpoint?.description == "[abcd:23::33]:51820")
        #expect(request.peers[0].persistentKeepalive == nil)
        #expect(!request.peers[0].updateOnly)
        #expect(hex(request.peers[1].publicKey) == Self.otherPeer)
        #expect(request.peers[1].updateOnly)
        #expect(request.peers[1].persistentKeepalive == .seconds(111))
        #expect(request.peers[1].addedAllowedIPs.map(\.description) == ["192.168.4.0/24", "::/0"])
        #expect(request.peers[1].presharedKey == nil)
        #expect(!request.peers[1].remove)
        #expect(request.peers[2].remove)
    }

    @Test("what is not mentioned is not changed; all-zero keys and zeros mean none")
    func absentAndZero() throws {
        let nothing = try set("")
        #expect(nothing.privateKey == nil && nothing.listenPort == nil && nothing.fwmark == nil && !nothing.replacePeers)
        #expect(nothing.peers.isEmpty)
        let removal = try set(
            "private_key=\(Self.zero)\nfwmark=0\nlisten_port=0\npublic_key=\(Self.zero)\npreshared_key=\(Self.zero)\npersistent_keepalive_interval=0\n"
        )
        guard case .remove? = removal.privateKey else { throw UAPI.Fault.unknown }
        #expect(removal.fwmark == 0 && removal.listenPort == 0)
        try #require(removal.peers.count == 1)
        #expect(removal.peers[0].presharedKey?.key.isZero == true)
        #expect(removal.peers[0].persistentKeepalive == .zero)
    }

    @Test("of several lines about one block the last one counts, in the order of the request")
    func allowedIPsAddedAndRemoved() throws {
        let peer = try set(
            """
            public_key=\(Self.peer)
            allowed_ip=10.0.0.1/32
            allowed_ip=-10.0.0.2/32
            allowed_ip=-10.0.0.1/32
            allowed_ip=10.0.0.3/32
            allowed_ip=10.0.0.2/32

            """
        ).peers[0]
        #expect(peer.addedAllowedIPs.map(\.description) == ["10.0.0.3/32", "10.0.0.2/32"])
        #expect(peer.removedAllowedIPs.map(\.description) == ["10.0.0.1/32"])
    }

    @Test(
        "a bad line refuses the whole request, with wireguard-go's number",
        arguments: [
            ("no equals sign", 71), ("private_key", 71), ("=", 22), ("=x", 22), ("nonsense=1", 22), ("private_key=", 22),
            ("private_key=\(key)0", 22), ("private_key=\(String(key.dropLast()))", 22), ("private_key=g\(String(key.dropLast()))", 22),
            ("private_key= \(key)", 22), ("listen_port=65536", 22), ("listen_port=-1", 22), ("listen_port=", 22), ("listen_port=+1", 22),
            ("listen_port=99999999999999999999999", 22), ("fwmark=4294967296", 22), ("fwmark=0x1", 22), ("replace_peers=false", 22),
            ("replace_peers=1", 22), ("public_key=\(String(peer.dropLast()))", 22), ("public_key=\(peer)\nprivate_key=\(key)", 22),
            ("public_key=\(peer)\nlisten_port=1", 22), ("public_key=\(peer)\nfwmark=1", 22), ("public_key=\(peer)\nreplace_peers=true", 22),
            ("public_key=\(peer)\nremove=false", 22), ("public_key=\(peer)\nremove=", 22), ("public_key=\(peer)\nupdate_only=TRUE", 22),
            ("public_key=\(peer)\npreshared_key=00", 22), ("public_key=\(peer)\nendpoint=10.0.0.1", 22),
            ("public_key=\(peer)\nendpoint=example.com:1", 22), ("public_key=\(peer)\nendpoint=10.0.0.1:65536", 22),
            ("public_key=\(peer)\nendpoint=[::1]", 22), ("public_key=\(peer)\nendpoint=::1:1", 22),
            ("public_key=\(peer)\npersistent_keepalive_interval=65536", 22), ("public_key=\(peer)\npersistent_keepalive_interval=off", 22),
            ("public_key=\(peer)\nreplace_allowed_ips=yes", 22), ("public_key=\(peer)\nallowed_ip=10.0.0.1", 22),
            ("public_key=\(peer)\nallowed_ip=10.0.0.1/33", 22), ("public_key=\(peer)\nallowed_ip=", 22),
            ("public_key=\(peer)\nallowed_ip=--1.2.3.4/32", 22), ("public_key=\(peer)\nallowed_ip=::/129", 22),
            ("public_key=\(peer)\nprotocol_version=2", 22), ("public_key=\(peer)\nprotocol_version=", 22), ("remove=true", 22),
            ("allowed_ip=10.0.0.1/32", 22), ("endpoint=10.0.0.1:1", 22), ("rx_bytes=1", 22), ("errno=0", 22), ("protocol_version=1", 22),
        ])
    func badLine(_ lines: String, _ errno: Int) {
        let good = "listen_port=1\n"
        for text in ["set=1\n\(lines)\n\n", "set=1\n\(good)\(lines)\npublic_key=\(Self.peer)\n\n"] {
            let events = Self.events(text + "get=1\n\n")
            guard events.count == 2, case .refused(let fault) = events[0], case .request(.get) = events[1] else {
                Issue.record("\(lines): \(events)")
                continue
            }
            #expect(fault.errno == Int32(errno))
            #expect(UAPI.status(fault) == "errno=-\(errno)\n\n")
        }
    }

    @Test("get is answered after its blank line, another line in it refuses it, and neither get nor set ends the connection")
    func operations() {
        #expect(Self.names("get=1\n\nget=1\n\n") == ["get", "get"])
        #expect(Self.names("get=1\n") == [])
        #expect(Self.names("get=1\nx=y\n\n") == ["22"])
        #expect(Self.names("get=2\n\n") == ["closed"])
        #expect(Self.names("\n") == ["closed"])
        #expect(Self.names("set=1") == [])
        #expect(Self.names("GET / HTTP/1.1\r\n\r\n") == ["closed"])
        #expect(Self.names(String(repeating: "x", count: UAPI.maximumLine + 1) + "\n") == ["closed"])
    }

    @Test("a line and a request have bounds; what is longer is read over, refused, and the next request is understood")
    func bounds() {
        let line = "private_key=" + String(repeating: "0", count: UAPI.maximumLine) + "\n"
        #expect(Self.names("set=1\n\(line)\nget=1\n\n") == ["90", "get"])
        let peer = "public_key=\(Self.peer)\n"
        let many = String(repeating: peer, count: UAPI.maximumRequest / peer.utf8.count)
        #expect(Self.names("set=1\n\(many)\(peer)\(peer)\nget=1\n\n", pieces: 1 << 20) == ["90", "get"])
        #expect(Self.names("set=1\n\(many.dropLast(peer.utf8.count))\nget=1\n\n", pieces: 1 << 20) == ["set", "get"])
        // One line without end costs one line.
        #expect(Self.names("set=1\n" + String(repeating: "x", count: UAPI.maximumRequest + 9), pieces: 1 << 20) == [])
    }

    @Test("how the bytes are cut makes no difference")
    func anyPieces() {
        let text = "get=1\n\nset=1\nlisten_port=7\npublic_key=\(Self.peer)\nallowed_ip=10.0.0.0/8\n\nset=1\nx\n\nget=1\n\n"
        for size in 1...70 { #expect(Self.names(text, pieces: size) == ["get", "set", "71", "get"]) }
    }

    @Test("a request that is written out reads back the same")
    func requestRoundTrip() throws {
        let text = """
            set=1
            private_key=\(Self.key)
            listen_port=1
            fwmark=2
            replace_peers=true
            public_key=\(Self.peer)
            update_only=true
            preshared_key=\(Self.psk)
            endpoint=[2001:db8::1]:51820
            persistent_keepalive_interval=25
            replace_allowed_ips=true
            allowed_ip=10.0.0.0/8
            allowed_ip=-fd00::/8
            public_key=\(Self.otherPeer)
            remove=true


            """
        guard case .request(.set(let request))? = Self.events(text).first else { throw UAPI.Fault.unknown }
        #expect(string(request.text()) == text)
        #expect(string(UAPI.SetRequest(privateKey: .remove).text()) == "set=1\nprivate_key=\(Self.zero)\n\n")
    }

    @Test("the answer to get has the lines of wireguard-go, in its order, and reads back the same")
    func stateRoundTrip() throws {
        let text = """
            private_key=\(Self.key)
            listen_port=51820
            fwmark=18
            public_key=\(Self.peer)
            preshared_key=\(Self.psk)
            protocol_version=1
            endpoint=192.0.2.1:51820
            last_handshake_time_sec=1700000000
            last_handshake_time_nsec=999999999
            tx_bytes=18446744073709551615
            rx_bytes=1
            persistent_keepalive_interval=65535
            allowed_ip=10.0.0.2/32
            allowed_ip=fd00::/64
            public_key=\(Self.otherPeer)
            preshared_key=\(Self.zero)
            protocol_version=1
            last_handshake_time_sec=0
            last_handshake_time_nsec=0
            tx_bytes=0
            rx_bytes=0
            persistent_keepalive_interval=0
            errno=0


            """
        let state = try UAPI.State(answer: Array(text.utf8).span.bytes)
        #expect(state.peers.count == 2)
        #expect(state.peers.first?.lastHandshake == WallTime(seconds: 1_700_000_000, nanoseconds: 999_999_999))
        #expect(state.peers.last?.lastHandshake == nil)
        #expect(string(state.text()) == text)
        #expect(string(UAPI.State().text()) == "errno=0\n\n")
    }

    @Test("an endpoint with a scope is read without it, as another program's answer may have one")
    func scope() throws {
        let answer = "public_key=\(Self.peer)\nendpoint=[fe80::1%eth0]:51820\nerrno=0\n"
        let state = try UAPI.State(answer: Array(answer.utf8).span.bytes)
        #expect(state.peers.first?.endpoint == SocketEndpoint("[fe80::1]:51820"))
        for wrong in ["[fe80::1%eth0:51820", "%", "fe80%]:1"] {
            let answer = "public_key=\(Self.peer)\nendpoint=\(wrong)\nerrno=0\n"
            #expect(throws: UAPI.AnswerError.malformed(line: 2)) { try UAPI.State(answer: Array(answer.utf8).span.bytes) }
        }
    }

    @Test("an answer that is refused, cut off or not of this protocol is an error that says which")
    func badAnswers() {
        func fault(_ text: String) -> UAPI.AnswerError? {
            do {
                _ = try UAPI.State(answer: Array(text.utf8).span.bytes)
                return nil
            } catch {
                return error
            }
        }
        #expect(fault("errno=-13\n\n") == .refused(errno: 13))
        #expect(fault("errno=13\n\n") == .refused(errno: 13))
        #expect(fault("") == .incomplete)
        #expect(fault("listen_port=1\n") == .incomplete)
        #expect(fault("errno=0") == .incomplete)
        #expect(fault("listen_port=1\nwhat\n") == .malformed(line: 2))
        #expect(fault("listen_port=x\n") == .malformed(line: 1))
        #expect(fault("errno=-\n") == .malformed(line: 1))
        #expect(fault("some_future_key=x\nerrno=0\n\n") == nil)
    }

    @Test("mutated requests and answers never trap, and none is taken for more than it says")
    func mutations() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix(state: seed)
        let base = Array(
            "set=1\nprivate_key=\(Self.key)\nlisten_port=51820\nreplace_peers=true\npublic_key=\(Self.peer)\nendpoint=[::1]:1\nallowed_ip=-10.0.0.0/8\npersistent_keepalive_interval=25\n\nget=1\n\n"
                .utf8)
        for _ in 0..<20_000 {
            var bytes = base
            for _ in 0...random.next() % 4 {
                let place = Int(random.next() % UInt64(bytes.count))
                switch random.next() % 4 {
                case 0: bytes[place] = UInt8(truncatingIfNeeded: random.next())
                case 1: bytes.remove(at: place)
                case 2: bytes.insert(UInt8(truncatingIfNeeded: random.next()), at: place)
                default: bytes.swapAt(place, Int(random.next() % UInt64(bytes.count)))
                }
            }
            var parser = UAPI.Parser()
            var offset = 0
            var count = 0
            while offset < bytes.count {
                let before = offset
                let event = parser.receive(bytes.span.bytes, from: &offset)
                #expect(offset > before, "seed \(seed)")
                if event != nil { count += 1 }
                if case .closed? = event { break }
                if case .request(.set(let request))? = event { #expect(request.peers.count <= 2, "seed \(seed)") }
            }
            #expect(count <= bytes.count { $0 == 0x0A }, "seed \(seed)")
            readAnswer(Array(bytes.dropFirst(6)))
        }
    }

    // MARK: Helpers

    private func readAnswer(_ bytes: [UInt8]) {
        do {
            let state = try UAPI.State(answer: bytes.span.bytes)
            #expect(state.peers.count <= 2)
        } catch {
            #expect(!error.description.isEmpty)
        }
    }

    static func names(_ text: String, pieces: Int = .max) -> [String] {
        events(text, pieces: pieces).map { event in
            switch event {
            case .request(.get): "get"
            case .request(.set): "set"
            case .refused(let fault): "\(fault.errno)"
            case .closed: "closed"
            }
        }
    }

    private func string(_ text: consuming UAPI.Text) -> String {
        text.withBytes { bytes in String(decoding: (0..<bytes.byteCount).map { bytes.byte(at: $0) }, as: UTF8.self) }
    }

    private func hex(_ key: borrowing PrivateKey) -> String {
        var output = [UInt8](repeating: 0, count: 64)
        var span = output.mutableSpan
        var bytes = span.mutableBytes
        key.writeHex(into: &bytes, at: 0)
        return String(decoding: output, as: UTF8.self)
    }

    private func hex(_ key: borrowing PresharedKey) -> String {
        var output = [UInt8](repeating: 0, count: 64)
        var span = output.mutableSpan
        var bytes = span.mutableBytes
        key.writeHex(into: &bytes, at: 0)
        return String(decoding: output, as: UTF8.self)
    }

    private func hex(_ key: PublicKey) -> String {
        var output = [UInt8](repeating: 0, count: 64)
        var span = output.mutableSpan
        var bytes = span.mutableBytes
        key.writeHex(into: &bytes, at: 0)
        return String(decoding: output, as: UTF8.self)
    }
}

/// SplitMix64: repeats from its seed.
private struct SplitMix {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
