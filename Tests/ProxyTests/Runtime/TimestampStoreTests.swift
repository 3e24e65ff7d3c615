import Inet
import Logging
import NIOCore
import NIOEmbedded
import NIOPosix
import Noise
import Proxy
import Synchronization
import Testing
import WGUserspace

@Suite struct TimestampStoreTests {
    private let temporary = TemporaryDirectory()
    private let loop = MultiThreadedEventLoopGroup.singleton.next()
    private let first = PrivateKey.generate(using: .seeded(1)).publicKey
    private let second = PrivateKey.generate(using: .seeded(2)).publicKey
    private static let start: UInt64 = 1_800_000_000
    private var path: String { temporary.file("timestamps") }

    private func store(_ peers: Set<PublicKey>, clock: UInt64 = start, delay: TimeAmount = TimestampStore.delay) -> TimestampStore {
        TimestampStore(path: path, peers: peers, eventLoop: loop, logger: Logger(label: "test"), delay: delay) {
            WallTime(seconds: clock, nanoseconds: 0)
        }
    }

    private func at(_ seconds: UInt64) -> TAI64N { TAI64N(WallTime(seconds: seconds, nanoseconds: 500_000_000)) }

    @Test("what was accepted is there after a restart, mode 0600, for peers that are still configured")
    func restart() {
        let before = store([first, second])
        before.recordAccepted(at(Self.start), of: first)
        before.recordAccepted(at(Self.start + 1), of: second)
        before.save()
        #expect(TemporaryDirectory.mode(path) == 0o600)
        #expect(store([first, second]).timestamps.accepted == [first: at(Self.start), second: at(Self.start + 1)])
        #expect(store([first]).timestamps.accepted == [first: at(Self.start)])
    }

    @Test("peers that are added at run time are stored, too")
    func addedAtRunTime() {
        let before = store([])
        before.recordAccepted(at(Self.start), of: first)
        before.save()
        #expect(store([first]).timestamps.accepted == [first: at(Self.start)])
    }

    @Test("a crash behind an initiation and a clock that steps back do not send an older timestamp")
    func reserve() throws {
        let before = store([])
        before.recordSent(at(Self.start))
        before.save()
        let stored = try #require(store([], clock: Self.start - 3600).timestamps.sent)
        // All that is sent in the next seconds is covered without another write.
        SystemFiles.remove(path)
        before.recordSent(at(Self.start + 9))
        before.save()
        #expect(!SystemFiles.exists(path))
        #expect(stored > at(Self.start + 9))
        before.recordSent(at(Self.start + 10))
        before.save()
        #expect(try #require(store([]).timestamps.sent) > at(Self.start + 10))
    }

    @Test("a clock far behind what was sent does not push the reserve ahead")
    func crashLoop() throws {
        var sent = at(Self.start)
        for _ in 0..<100 {
            let store = store([], clock: Self.start - 3600)
            sent = store.timestamps.sent.map { $0.next() } ?? sent
            store.recordSent(sent)
            store.save()
        }
        #expect(sent < at(Self.start + 200))
    }

    @Test("a timestamp more than a day ahead of our clock is not stored")
    func farAhead() {
        let store = store([first])
        let isStored = store.recordAccepted(at(Self.start + 86_400), of: first)
        let isFarStored = store.recordAccepted(at(Self.start + 86_401), of: first)
        #expect(isStored && !isFarStored)
        #expect(store.timestamps.accepted == [first: at(Self.start + 86_400)])
    }

    @Test("a forgotten timestamp stays forgotten after a restart")
    func forget() {
        let before = store([first])
        before.recordAccepted(at(Self.start), of: first)
        before.save()
        before.forget(first)
        before.save()
        #expect(store([first]).timestamps.accepted.isEmpty)
    }

    /// The file as another process would find it, when `isReady` likes it.
    private func stored(_ peers: Set<PublicKey>, when isReady: (TimestampStore.Timestamps) -> Bool) async throws
        -> TimestampStore.Timestamps
    {
        for _ in 0..<2000 {
            if SystemFiles.exists(path) {
                let timestamps = store(peers).timestamps
                if isReady(timestamps) { return timestamps }
            }
            try await loop.scheduleTask(in: .milliseconds(5)) {}.futureResult.get()
        }
        throw NotStored()
    }

    private struct NotStored: Error {}

    @Test("what must be stored at once is, though a later write was scheduled before it")
    func atOnce() async throws {
        // The later write would come too late for this test.
        let store = store([first], delay: .hours(1))
        store.recordAccepted(at(Self.start), of: first)
        store.recordSent(at(Self.start))
        let written = try await stored([first]) { $0.sent != nil }
        #expect(written.accepted == [first: at(Self.start)])
    }

    @Test("what could not be written is not taken for written")
    func failedWrite() throws {
        let path = temporary.file("missing/timestamps")
        let store = TimestampStore(path: path, peers: [first], eventLoop: loop, logger: Logger(label: "test")) {
            WallTime(seconds: Self.start, nanoseconds: 0)
        }
        store.recordAccepted(at(Self.start), of: first)
        store.save()
        #expect(!SystemFiles.exists(path))
        try SystemFiles.createDirectory(temporary.file("missing"))
        store.save()
        #expect(SystemFiles.exists(path))
    }

    @Test("peers that are removed, from the configuration or at run time, begin anew when they are added again")
    func removed() async throws {
        let before = store([first, second])
        before.recordAccepted(at(Self.start), of: first)
        before.recordAccepted(at(Self.start), of: second)
        before.save()
        before.forgetAll(but: [second])
        #expect(try await stored([first, second]) { $0.accepted.count == 1 }.accepted.keys.contains(second))
        // A start without it is enough.
        let without = store([])
        #expect(try await stored([second]) { $0.accepted.isEmpty }.accepted.isEmpty)
        #expect(without.timestamps.accepted.isEmpty)
    }

    @Test("nothing is written when nothing changed")
    func unchanged() {
        let store = store([first])
        store.recordAccepted(at(Self.start), of: first)
        store.save()
        SystemFiles.remove(path)
        store.recordAccepted(at(Self.start), of: first)
        store.save()
        #expect(!SystemFiles.exists(path))
    }

    @Test("a damaged file is put aside, and its whole lines count", arguments: ["\u{0}\u{1}junk\n", "sent @xyz\n", "sent"])
    func damaged(junk: String) throws {
        let good = TimestampStore.format(.init(sent: nil, accepted: [first: at(Self.start)]))
        try SystemFiles.create(path, good + Array(junk.utf8))
        #expect(store([first]).timestamps.accepted == [first: at(Self.start)])
        #expect(SystemFiles.exists(path + ".damaged"))
        #expect(!SystemFiles.exists(path))
    }

    @Test("arbitrary bytes are read without harm", arguments: 0..<50)
    func arbitrary(seed: UInt64) {
        let random = RandomSource.seeded(seed)
        let alphabet = Array("sent @0123456789abcdef\n\u{0}=zAé".utf8)
        let bytes = (0..<300).map { _ in alphabet[Int(random.nextUInt64() % UInt64(alphabet.count))] }
        let (timestamps, _) = TimestampStore.parse(bytes)
        #expect(TimestampStore.parse(TimestampStore.format(timestamps)) == (timestamps, true), "seed \(seed)")
    }
}
