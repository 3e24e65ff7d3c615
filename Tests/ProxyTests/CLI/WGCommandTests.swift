import Inet
import Noise
import Proxy
import Testing
import WGUserspace

@Suite struct WGCommandTests {
    private static let key = "6EtabScXwQA6E7QxVwNT26ypFGzxUMX4V1aA/rpSAno="
    private static let peer = "uFmW/sycfx/G0lcqdu2hHVm80gvo5UOxXOS9hajnWjM="
    private static let other = "WEAuaVuhdysck9NXVfBDJR6nf9zxD75jmJ6+fhkyE3Y="
    private static let psk = "GIUVCT6VL18i6GXO8wEucvi18LWYrAMJ1dys47cPz1I="

    private static func state() -> UAPI.State {
        UAPI.State(
            privateKey: stored(key), listenPort: 51820, fwmark: 0xCAFE,
            peers: [
                UAPI.State.Peer(publicKey: publicKey(other)),
                UAPI.State.Peer(
                    publicKey: publicKey(peer), presharedKey: storedPSK(psk),
                    endpoint: SocketEndpoint("[2001:db8::1]:51820"), lastHandshake: WallTime(seconds: 1_000_000), receivedBytes: 1023,
                    sentBytes: 1_053_819, persistentKeepalive: .seconds(25),
                    allowedIPs: ["10.0.0.0/8", "fd00::/64"].compactMap { IPPrefix($0) }),
            ])
    }

    private static func stored(_ text: String) -> StoredPrivateKey? {
        guard let key = PrivateKey(base64: text) else { return nil }
        return StoredPrivateKey(key)
    }

    private static func storedPSK(_ text: String) -> StoredPresharedKey? {
        guard let key = PresharedKey(base64: text) else { return nil }
        return StoredPresharedKey(key)
    }

    private static func publicKey(_ text: String) -> PublicKey {
        guard let key = PublicKey(base64: text) else { preconditionFailure("a test's own key") }
        return key
    }

    private static var ownPublicKey: String { state().privateKey?.key.publicKey.base64 ?? "" }

    @Test("the form for people is that of wg: the peer heard of last first, keys hidden, times and amounts in words")
    func pretty() {
        let text = """
            interface: wg0
              public key: \(Self.ownPublicKey)
              private key: (hidden)
              listening port: 51820
              fwmark: 0xcafe

            peer: \(Self.peer)
              preshared key: (hidden)
              endpoint: [2001:db8::1]:51820
              allowed ips: 10.0.0.0/8, fd00::/64
              latest handshake: 1 minute, 2 seconds ago
              transfer: 1023 B received, 1.01 MiB sent
              persistent keepalive: every 25 seconds

            peer: \(Self.other)
              allowed ips: (none)

            """
        #expect(WGReport(name: "wg0", state: Self.state(), now: 1_000_062).pretty() == text)
        let shown = WGReport(name: "wg0", state: Self.state(), now: 1_000_062, showsKeys: true).pretty()
        #expect(shown.contains("private key: \(Self.key)\n") && shown.contains("preshared key: \(Self.psk)\n"))
        #expect(WGReport(name: "wg0", state: UAPI.State(), now: 0).pretty() == "interface: wg0\n")
    }

    @Test("times and amounts are worded as wg words them")
    func wording() {
        func line(_ prefix: String, handshake: UInt64 = 1, now: UInt64 = 1, received: UInt64 = 0) -> String? {
            var state = UAPI.State(peers: [UAPI.State.Peer(publicKey: Self.publicKey(Self.peer))])
            state.peers[0].lastHandshake = WallTime(seconds: handshake)
            state.peers[0].receivedBytes = received
            return WGReport(name: "x", state: state, now: now).pretty().split(separator: "\n").first { $0.hasPrefix("  \(prefix): ") }
                .map { String($0.dropFirst(prefix.utf8.count + 4)) }
        }
        func ago(_ seconds: UInt64) -> String? { line("latest handshake", handshake: 5, now: 5 + seconds) }
        #expect(ago(0) == "Now")
        #expect(ago(1) == "1 second ago")
        #expect(ago(60) == "1 minute ago")
        #expect(ago(3661) == "1 hour, 1 minute, 1 second ago")
        #expect(ago(31_536_000 + 2 * 86_400) == "1 year, 2 days ago")
        #expect(
            line("latest handshake", handshake: 5, now: 4) == "(System clock wound backward; connection problems may ensue.)")
        func amount(_ bytes: UInt64) -> String? { line("transfer", received: bytes) }
        #expect(amount(1023) == "1023 B received, 0 B sent")
        #expect(amount(1024) == "1.00 KiB received, 0 B sent")
        #expect(amount(1_048_575) == "1024.00 KiB received, 0 B sent")
        #expect(amount(1 << 40) == "1.00 TiB received, 0 B sent")
        #expect(amount(.max) == "16777216.00 TiB received, 0 B sent")
    }

    @Test("colours are those of wg")
    func colours() {
        let lines = WGReport(name: "wg0", state: Self.state(), now: 1_000_001, isColored: true).pretty().split(separator: "\n")
        #expect(lines.first == "\u{1B}[0m\u{1B}[32m\u{1B}[1minterface\u{1B}[0m: \u{1B}[32mwg0\u{1B}[0m")
        #expect(lines.contains("  \u{1B}[1mlatest handshake\u{1B}[0m: 1 \u{1B}[36msecond\u{1B}[0m ago"))
        #expect(
            lines.contains("  \u{1B}[1mallowed ips\u{1B}[0m: 10.0.0.0\u{1B}[36m/\u{1B}[0m8, fd00::\u{1B}[36m/\u{1B}[0m64"))
    }

    @Test("each field is what wg prints of it, with the interface's name in front for all")
    func fields() {
        let report = WGReport(name: "wg0", state: Self.state(), now: 0)
        #expect(
            report.field("dump", isNamed: true) == """
                wg0\t\(Self.key)\t\(Self.ownPublicKey)\t51820\t0xcafe
                wg0\t\(Self.other)\t(none)\t(none)\t(none)\t0\t0\t0\toff
                wg0\t\(Self.peer)\t\(Self.psk)\t[2001:db8::1]:51820\t10.0.0.0/8,fd00::/64\t1000000\t1023\t1053819\t25

                """)
        #expect(report.field("allowed-ips", isNamed: false) == "\(Self.other)\t(none)\n\(Self.peer)\t10.0.0.0/8 fd00::/64\n")
        #expect(WGReport(name: "wg0", state: UAPI.State(), now: 0).field("dump", isNamed: false) == "(none)\t(none)\t0\toff\n")
        #expect(WGReport.fields.allSatisfy { report.field($0, isNamed: false) != nil })
        #expect(report.field("nonsense", isNamed: false) == nil)
    }

    @Test("showconf prints what setconf reads; read back it is the same interface")
    func configuration() throws {
        let text = WGReport(name: "wg0", state: Self.state(), now: 0).configuration()
        #expect(
            text == """
                [Interface]
                ListenPort = 51820
                FwMark = 0xcafe
                PrivateKey = \(Self.key)

                [Peer]
                PublicKey = \(Self.other)

                [Peer]
                PublicKey = \(Self.peer)
                PresharedKey = \(Self.psk)
                AllowedIPs = 10.0.0.0/8, fd00::/64
                Endpoint = [2001:db8::1]:51820
                PersistentKeepalive = 25

                """)
        let file = try WGQuickFile(Array(text.utf8).span.bytes)
        let request = try UAPI.SetRequest(file, .replace) { endpoint in
            guard case .address(let address) = endpoint else { throw UAPI.Fault.unknown }
            return address
        }
        #expect(request.listenPort == 51820 && request.fwmark == 0xCAFE && request.replacePeers && request.peers.count == 2)
        #expect(file.warnings.map(\.isAboutMark) == [true])
        #expect(request.peers[1].endpoint == SocketEndpoint("[2001:db8::1]:51820"))
    }

    @Test("syncconf sends what differs: others go, what is the same keeps its allowed IPs untouched")
    func synchronize() throws {
        let text = """
            [Interface]
            PrivateKey = \(Self.key)
            [Peer]
            PublicKey = \(Self.peer)
            AllowedIPs = fd00::/64, 10.0.0.0/8
            """
        let file = try WGQuickFile(Array(text.utf8).span.bytes)
        let request = try UAPI.SetRequest(file, .synchronize(Self.state())) { _ in throw UAPI.Fault.unknown }
        #expect(!request.replacePeers)
        #expect(request.listenPort == 0 && request.fwmark == 0)
        for (line, expected) in [("FwMark = 0xcafe", nil), ("FwMark = 51967", 51967), ("FwMark = off", 0), ("FwMark = OFF", UInt32(0))] {
            let marked = text.replacing("[Peer]", with: line + "\n[Peer]")
            let file = try WGQuickFile(Array(marked.utf8).span.bytes)
            #expect(try UAPI.SetRequest(file, .synchronize(Self.state())) { _ in throw UAPI.Fault.unknown }.fwmark == expected)
        }
        try #require(request.peers.count == 2)
        #expect(request.peers[0].publicKey == Self.publicKey(Self.other) && request.peers[0].remove)
        #expect(!request.peers[1].replaceAllowedIPs && request.peers[1].addedAllowedIPs.isEmpty)
        #expect(request.peers[1].persistentKeepalive == .zero && request.peers[1].presharedKey?.key.isZero == true)
    }

    private func parse(_ line: String, files: [String: String] = [:]) throws -> UAPI.SetRequest {
        try WGSetArguments(
            readFile: { Array((files[$0] ?? "").utf8) },
            resolve: { endpoint in
                guard case .address(let address) = endpoint else { throw UAPI.Fault.unknown }
                return address
            }
        ).parse(line.split(separator: " ").map(String.init))
    }

    @Test("set takes the words of wg set")
    func setWords() throws {
        let request = try parse(
            "listen-port 7 fwmark 0x10 private-key key peer \(Self.peer) preshared-key psk endpoint 192.0.2.1:1 persistent-keepalive off allowed-ips 10.0.0.1/32,fd00::/8 peer \(Self.other) remove",
            files: ["key": Self.key + "\n", "psk": Self.psk])
        guard case .set(let key)? = request.privateKey else { throw UAPI.Fault.unknown }
        #expect(key.key.base64ForFile() == Self.key)
        #expect(request.listenPort == 7 && request.fwmark == 16)
        try #require(request.peers.count == 2)
        #expect(request.peers[0].presharedKey?.key.base64ForFile() == Self.psk)
        #expect(request.peers[0].persistentKeepalive == .zero && request.peers[0].replaceAllowedIPs)
        #expect(request.peers[0].addedAllowedIPs.map(\.description) == ["10.0.0.1/32", "fd00::/8"])
        #expect(request.peers[1].remove)
        #expect(try parse("fwmark OFF peer \(Self.peer) persistent-keepalive Off").fwmark == 0)
        guard case .remove? = try parse("private-key empty").privateKey else { throw UAPI.Fault.unknown }
        let more = try parse("peer \(Self.peer) allowed-ips +10.0.0.1/32,-10.0.0.2/32").peers[0]
        #expect(!more.replaceAllowedIPs && more.addedAllowedIPs.count == 1 && more.removedAllowedIPs.count == 1)
    }

    @Test(
        "what set does not understand is refused, and no key is shown",
        arguments: [
            "listen-port", "listen-port 65536", "fwmark x", "what 1", "peer x", "peer \(peer) what 1", "peer \(peer) endpoint here",
            "peer \(peer) persistent-keepalive -1", "peer \(peer) allowed-ips 10.0.0.1/33", "private-key bad",
            "peer \(peer) preshared-key bad",
        ])
    func badWords(line: String) {
        #expect { try parse(line, files: ["bad": "SECRET"]) } throws: { !"\($0)".contains("SECRET") }
    }
}
