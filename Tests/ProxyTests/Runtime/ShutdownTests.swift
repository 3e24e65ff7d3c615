import Proxy
import Synchronization
import Testing

@Suite struct ShutdownTests {
    /// What ran, and what is told when.
    private final class Notes: Sendable {
        private let notes = Mutex<[String]>([])
        var all: [String] { notes.withLock { $0 } }
        func add(_ note: String) { notes.withLock { $0.append(note) } }
    }

    @Test("an end that is asked for while a reload is under way is not kept waiting", .timeLimit(.minutes(1)))
    func endDuringReload() async {
        let requests = ProcessRequests()
        let (started, hasStarted) = AsyncStream.makeStream(of: Void.self)
        let (released, release) = AsyncStream.makeStream(of: Void.self)
        let (over, isOver) = AsyncStream.makeStream(of: Bool.self)
        async let served: Void = requests.serve(
            tick: {},
            reload: {
                hasStarted.yield()
                for await _ in released { break }
                isOver.yield(Task.isCancelled)
            })
        requests.add(.reload)
        for await _ in started { break }
        requests.add(.end)
        await served
        release.yield()
        for await isCancelled in over {
            #expect(isCancelled, "a reload that is under way can see that nobody waits for it")
            break
        }
    }

    @Test("reloads that are asked for while one runs are one more, behind it; ticks go on", .timeLimit(.minutes(1)))
    func reloadsInARow() async {
        let requests = ProcessRequests()
        let notes = Notes()
        let (started, hasStarted) = AsyncStream.makeStream(of: Void.self)
        let (released, release) = AsyncStream.makeStream(of: Void.self)
        async let served: Void = requests.serve(
            tick: { notes.add("tick") },
            reload: {
                notes.add("reload")
                hasStarted.yield()
                for await _ in released { break }
                notes.add("reloaded")
            })
        var starts = started.makeAsyncIterator()
        requests.add(.reload)
        await starts.next()
        for _ in 0..<3 { requests.add(.reload) }
        requests.add(.tick)
        #expect(notes.all == ["reload"])
        release.yield()
        await starts.next()
        #expect(notes.all == ["reload", "reloaded", "tick", "reload"])
        release.yield()
        requests.add(.end)
        await served
    }
}
