import Inet
import Logging
import NIOEmbedded
import Noise
import Proxy
import Testing

@Suite struct EndpointStoreTests {
    private let temporary = TemporaryDirectory()
    private let loop = EmbeddedEventLoop()
    private let first = PrivateKey.generate(using: .seeded(1)).publicKey
    private let second = PrivateKey.generate(using: .seeded(2)).publicKey
    private let endpoint = SocketEndpoint(IPAddress(v4: 192, 0, 2, 1), port: 51820)

    private func store(_ peers: Set<PublicKey>) -> EndpointStore {
        EndpointStore(path: temporary.file("endpoints"), peers: peers, eventLoop: loop, logger: Logger(label: "test"))
    }

    @Test("what was recorded is there after a restart, for peers that are still configured")
    func restart() throws {
        let before = store([first, second])
        before.record(first, at: endpoint)
        before.record(second, at: SocketEndpoint(IPAddress(v6High: 0x2001_0db8 << 32, low: 1), port: 7))
        before.save()
        #expect(TemporaryDirectory.mode(temporary.file("endpoints")) == 0o600)
        #expect(store([first, second]).endpoints.count == 2)
        #expect(store([first]).endpoints == [first: endpoint])
    }

    @Test("nothing is written for each packet: only when something changed")
    func unchanged() throws {
        let store = store([first])
        store.save()
        #expect(!SystemFiles.exists(temporary.file("endpoints")))
        store.record(first, at: endpoint)
        store.save()
        SystemFiles.remove(temporary.file("endpoints"))
        store.record(first, at: endpoint)
        store.save()
        #expect(!SystemFiles.exists(temporary.file("endpoints")))
    }

    @Test("strangers are not recorded")
    func strangers() {
        let store = store([first])
        store.record(second, at: endpoint)
        #expect(store.endpoints.isEmpty)
    }

    @Test("lines that are not understood are skipped")
    func garbage() {
        let text = "x\n\(first) nowhere\n\(first) 192.0.2.1:51820 more\n\(second) 192.0.2.1:51820\n\n\u{0}"
        #expect(EndpointStore.parse(Array(text.utf8)).map(\.0) == [second])
        #expect(EndpointStore.parse([0xFF, 0xFE, 0x0A]).isEmpty)
    }
}

@Suite struct ProbeScheduleTests {
    @Test("a silent gateway is probed at once and then every 15 s")
    func silent() {
        var schedule = ProbeSchedule()
        let asked = (0..<8).map { _ in schedule.tick(receivedBytes: 0) }
        #expect(asked == [true, false, false, true, false, false, true, false])
    }

    @Test("a gateway that talks is left alone, and one that falls silent is asked within 15 s")
    func fallsSilent() {
        var schedule = ProbeSchedule()
        let early = (1...20).map { schedule.tick(receivedBytes: $0) }
        #expect(!early.contains(true))
        let asked = (0..<3).map { _ in schedule.tick(receivedBytes: 20) }
        #expect(asked == [false, true, false])
    }
}
