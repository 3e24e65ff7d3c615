import Inet
import Noise
import Testing
import WGUserspace

@Suite struct WGQuickFileTests {
    static let privateKey = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    static let otherKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
    static let thirdKey = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
    static let presharedKey = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak="

    private func read(_ text: String) throws(WGQuickError) -> WGQuickFile { try WGQuickFile(Array(text.utf8).span.bytes) }

    /// The faults of a text that must not be accepted.
    private func faults(_ text: String) -> [WGQuickFault] {
        do {
            _ = try read(text)
            Issue.record("accepted: \(text)")
            return []
        } catch {
            return error.faults
        }
    }

    @Test("a complete file is read: interface, peers, lists, comments, any case of keys")
    func completeFile() throws {
        let file = try read(
            """
            # the gateway
            [INTERFACE]
            privatekey = \(Self.privateKey)
            Address = 10.1.0.254/24, fd00::fe/64 # both families
            address=10.2.0.254/24
            ListenPort = 51820
            MTU=1400

            [Peer]
            PublicKey = \(Self.otherKey)
            PresharedKey=\(Self.presharedKey)
            AllowedIPs = 10.1.0.2/32
            AllowedIPs = fd00::2/128,10.2.0.0/16
            Endpoint = vpn.example.com:51820
            PersistentKeepalive = 25
            [peer]
            PublicKey = \(Self.thirdKey)
            AllowedIPs =
            Endpoint = [2001:db8::1]:7
            PersistentKeepalive = off
            """)
        #expect(file.privateKey?.key.publicKey == PrivateKey(base64: Self.privateKey)?.publicKey)
        #expect(file.addresses.map(\.description) == ["10.1.0.254/24", "fd00::fe/64", "10.2.0.254/24"])
        #expect(file.addresses.first?.prefix == IPPrefix("10.1.0.0/24"))
        #expect(file.listenPort == 51820)
        #expect(file.mtu == 1400)
        #expect(file.interfaceLine == 2)
        #expect(file.warnings.isEmpty)
        try #require(file.peers.count == 2)
        #expect(file.peers[0].publicKey == PublicKey(base64: Self.otherKey))
        #expect(file.peers[0].presharedKey?.key.base64ForFile() == Self.presharedKey)
        #expect(file.peers[0].allowedIPs.map(\.description) == ["10.1.0.2/32", "fd00::2/128", "10.2.0.0/16"])
        #expect(file.peers[0].endpoint == .name("vpn.example.com", port: 51820))
        #expect(file.peers[0].persistentKeepalive == .seconds(25))
        #expect(file.peers[0].line == 9)
        #expect(file.peers[1].allowedIPs.isEmpty)
        #expect(file.peers[1].endpoint == SocketEndpoint("[2001:db8::1]:7").map { .address($0) })
        #expect(file.peers[1].persistentKeepalive == .zero)
    }

    @Test("line ends of any system and a byte order mark are accepted")
    func lineEnds() throws {
        let file = try read("\u{FEFF}[Interface]\r\nPrivateKey=\(Self.privateKey)\r\nAddress\t=\t10.1.0.2\r\n")
        #expect(file.addresses.map(\.description) == ["10.1.0.2/32"])
    }

    @Test("what does not apply in user space is warned of once; commands are never run")
    func warnings() throws {
        let file = try read(
            "[Interface]\nDNS = 1.1.1.1\nDNS = 9.9.9.9\nTable = off\nPostUp = rm -rf /\nPostUp = true\nSaveConfig=true\nFwMark=0x1\n")
        #expect(file.warnings.map(\.line) == [2, 4, 5, 7, 8])
        #expect(file.warnings.map(\.problem) == [.notApplied, .notApplied, .neverRun, .notApplied, .notApplied])
        #expect(file.warnings[2].description == "5:1: PostUp: is ignored: commands are never run")
    }

    @Test(
        "a bad value names line, column, key and what to write",
        arguments: [
            ("[Interface]\nListenPort = 65536", 2, "ListenPort", "from 0 to 65535"),
            ("[Interface]\nListenPort = 99999999999999999999999", 2, "ListenPort", "from 0 to 65535"),
            ("[Interface]\nListenPort = -1", 2, "ListenPort", "from 0 to 65535"),
            ("[Interface]\nMTU = 575", 2, "MTU", "from 576 to 9200"),
            ("[Interface]\nAddress = 10.1.0.2/33", 2, "Address", "10.1.0.2/24"),
            ("[Interface]\nAddress = 127.0.0.1/8", 2, "Address", "10.1.0.2/24"),
            ("[Interface]\nAddress = 10.1.0.2/24,", 2, "Address", "10.1.0.2/24"),
            ("[Interface]\n[Peer]\nPublicKey = \(otherKey)\nEndpoint = 192.0.2.1", 4, "Endpoint", "HOST:PORT"),
            ("[Interface]\n[Peer]\nPublicKey = \(otherKey)\nEndpoint = 2001:db8::1:51820", 4, "Endpoint", "HOST:PORT"),
            ("[Interface]\n[Peer]\nPublicKey = \(otherKey)\nEndpoint = host:0", 4, "Endpoint", "HOST:PORT"),
            ("[Interface]\n[Peer]\nPublicKey = \(otherKey)\nEndpoint = host:65536", 4, "Endpoint", "HOST:PORT"),
            ("[Interface]\n[Peer]\nPublicKey = \(otherKey)\nPersistentKeepalive = 65536", 4, "PersistentKeepalive", "or off"),
            ("[Interface]\n[Peer]\nPublicKey = \(otherKey)\nAllowedIPs = 10.0.0.0/8, ten", 4, "AllowedIPs", "address block"),
            ("[Interface]\n[Peer]\nPublicKey = short", 3, "PublicKey", "44 characters"),
            ("[Interface]\nSpeed = 1", 2, "Speed", "PrivateKey, Address, ListenPort, MTU"),
            ("[Interface]\n[Peer]\nPublicKey = \(otherKey)\nSpeed = 1", 4, "Speed", "AllowedIPs"),
        ])
    func badValues(text: String, line: Int, key: String, fix: String) throws {
        let fault = try #require(faults(text).first)
        #expect(fault.line == line)
        #expect(fault.column > 0)
        #expect(fault.key == key)
        #expect(fault.description.contains(fix))
    }

    @Test("the column is that of the element of a list")
    func columns() {
        #expect(faults("[Interface]\nAddress = 10.1.0.2/24, x").map(\.column) == [24])
    }

    @Test("all faults are reported at once")
    func allFaults() {
        let found = faults("Address = 10.0.0.1\n[Interface]\nMTU = x\nnonsense\n[Nobody]\nwhatever = 1\n[Peer]\nAllowedIPs = x\n")
        #expect(found.map(\.line) == [1, 3, 4, 5, 8, 7])
    }

    @Test("a file without sections is one fault, not one a line")
    func noSections() {
        #expect(faults("a\nb\nc = d\n").map(\.problem) == [.outsideSection])
        #expect(faults("").map(\.problem) == [.noInterface])
        #expect(faults("# only a comment").map(\.problem) == [.noInterface])
    }

    @Test("repeated single keys, second interfaces, repeated and nameless peers are faults")
    func structure() {
        #expect(faults("[Interface]\nMTU=1400\nMTU=1420").map(\.problem) == [.repeatedKey(firstLine: 2)])
        #expect(faults("[Interface]\n[Interface]").map(\.problem) == [.secondInterface(firstLine: 1)])
        #expect(
            faults("[Interface]\n[Peer]\nPublicKey=\(Self.otherKey)\n[Peer]\nPublicKey=\(Self.otherKey)").map(\.problem)
                == [.repeatedPeer(firstLine: 2)])
        #expect(faults("[Interface]\n[Peer]\nAllowedIPs=10.0.0.0/8").map(\.problem) == [.peerWithoutPublicKey])
    }

    @Test("a block given to two peers is warned of")
    func takenBlock() throws {
        let file = try read(
            "[Interface]\n[Peer]\nPublicKey=\(Self.otherKey)\nAllowedIPs=10.0.0.1/32\n[Peer]\nPublicKey=\(Self.thirdKey)\nAllowedIPs=10.0.0.1/32"
        )
        let prefix = try #require(IPPrefix("10.0.0.1/32"))
        #expect(file.warnings.map(\.problem) == [.allowedIPsTaken(prefix: prefix, firstLine: 2)])
    }

    @Test(
        "no fault shows a key, wherever it was put by mistake",
        arguments: [
            "[Interface]\nPrivateKey = K!", "[Interface]\nPrivateKey = \"K\"", "[Interface]\nK", "K", "K\n[Interface]", "[K]",
            "[Interface]\nAddress = K", "[Interface]\nListenPort = K", "[Interface]\nPrivateKye = K",
            "[Interface]\n[Peer]\nPublicKey=\(otherKey)\nPresharedKey = K=", "[Interface]\n[Peer]\nPublicKey=\(otherKey)\nEndpoint = K",
            "[Interface]\n[Peer]\nPublicKey = K x", "[Interface]\nPrivateKey K",
        ])
    func keysStayOut(pattern: String) {
        var filled = ""
        let target = pattern.lastIndex(of: "K")
        for index in pattern.indices { filled += index == target ? Self.privateKey : String(pattern[index]) }
        let shown = faults(filled).map(\.description).joined()
        #expect(!shown.isEmpty)
        #expect(!shown.contains(Self.privateKey.prefix(12)))
    }

    @Test("invalid UTF-8 is a fault of its line")
    func invalidUTF8() {
        do {
            _ = try WGQuickFile((Array("[Interface]\nMTU = ".utf8) + [0xFF, 0x0A]).span.bytes)
            Issue.record("accepted")
        } catch {
            #expect(error.faults.map(\.problem) == [.notUTF8])
            #expect(error.faults.map(\.line) == [2])
        }
    }

    @Test("size and number of faults are bounded")
    func bounds() {
        #expect(faults(String(repeating: "#", count: WGQuickFile.maximumSize + 1)).map(\.problem) == [.tooLarge])
        let many = faults("[Interface]\n" + String(repeating: "x\n", count: 5000))
        #expect(many.count == WGQuickFile.maximumFaults + 1)
        #expect(many.last?.problem == .tooManyFaults)
    }

    @Test("a large file of distinct peers and blocks is read in linear time")
    func largeFile() throws {
        var text = "[Interface]\n[Peer]\nPublicKey = \(Self.otherKey)\n"
        for index in 0..<40_000 { text += "AllowedIPs=10.\(index >> 16).\(index >> 8 & 255).\(index & 255)\n" }
        #expect(try read(text).peers.first?.allowedIPs.count == 40_000)
    }

    @Test("mutilated files never trap")
    func mutilated() {
        let seed: UInt64 = 0x5EED_0001
        let random = RandomSource.seeded(seed)
        let base = Array(
            """
            [Interface]
            PrivateKey = \(Self.privateKey)
            Address = 10.1.0.254/24, fd00::fe/64
            ListenPort = 51820
            [Peer]
            PublicKey = \(Self.otherKey)
            AllowedIPs = 10.1.0.2/32
            Endpoint = [2001:db8::1]:51820
            PersistentKeepalive = 25
            """.utf8)
        for round in 0..<3000 {
            var bytes = base
            for _ in 0...random.next(below: 6) {
                let index = Int(random.next(below: UInt64(bytes.count)))
                switch random.next(below: 3) {
                case 0: bytes[index] = UInt8(truncatingIfNeeded: random.nextUInt32())
                case 1: bytes.remove(at: index)
                default: bytes.insert(Array("[]=,/:#\n\t \0".utf8).randomElement(using: random), at: index)
                }
            }
            do {
                _ = try WGQuickFile(bytes.span.bytes)
            } catch {
                #expect(!error.faults.isEmpty, "seed \(seed), round \(round)")
                #expect(!error.description.contains(Self.privateKey), "seed \(seed), round \(round)")
            }
        }
    }
}

extension Array {
    fileprivate func randomElement(using random: RandomSource) -> Element { self[Int(random.next(below: UInt64(count)))] }
}
