import NIOConcurrencyHelpers
import NIOCore
import Testing

/// What a channel and the interface tell each other without waking the other's loop: nobody waits in vain for it.
@Suite(.timeLimit(.minutes(1))) struct QuietNoticeTests {
    typealias Connected = ChannelTests.Connected
    typealias Recorder = ChannelTests.Recorder

    @Test("5,000 questions and answers, each asked for when the one before has come, and no wish to read is lost")
    func manualEcho() async throws {
        let (count, rounds) = (NIOLockedValueBox(0), 5000)
        let echo = Recorder { context in
            context.writeAndFlush(NIOAny(ByteBuffer(integer: UInt8(1))), promise: nil)
            context.read()
        }
        let ask = Recorder { context in
            let done = count.withLockedValue {
                $0 += 1
                return $0
            }
            guard done < rounds else { return context.close(promise: nil) }
            context.writeAndFlush(NIOAny(ByteBuffer(integer: UInt8(1))), promise: nil)
            context.read()
        }
        let tunnel = try await Connected(threads: 3, far: echo, near: ask)
        for channel in [tunnel.near, tunnel.far] {
            try await channel.setOption(.autoRead, value: false).get()
            channel.read()
        }
        tunnel.near.writeAndFlush(ByteBuffer(integer: UInt8(1)), promise: nil)
        try await tunnel.near.closeFuture.get()
        #expect(count.withLockedValue { $0 } == rounds)
        try await tunnel.pair.shutdown()
    }

    @Test("who waits for no write hears that he may write on, and how little waits", arguments: [1, 3])
    func writabilityWithoutPromise(threads: Int) async throws {
        let recorder = Recorder()
        let tunnel = try await Connected(threads: threads, near: recorder)
        let near = tunnel.near
        // What was flushed is below the mark; what was not only brings it over it.
        near.eventLoop.execute {
            near.writeAndFlush(ByteBuffer(repeating: 1, count: 240 * 1024), promise: nil)
            near.write(ByteBuffer(repeating: 1, count: 40 * 1024), promise: nil)
        }
        while try await near.getOption(.bufferedWritableBytes).get() != 40 * 1024 {}
        while !near.isWritable { try await near.eventLoop.submit {}.get() }
        near.flush()
        while try await near.getOption(.bufferedWritableBytes).get() != 0 {}
        while !near.isWritable { try await near.eventLoop.submit {}.get() }
        #expect(recorder.events.filter { $0.hasPrefix("writable") }.count.isMultiple(of: 2))
        try await tunnel.pair.shutdown()
    }

    @Test("who waits for an empty write hears of it when all before it is taken", arguments: [1, 3])
    func emptyWrite(threads: Int) async throws {
        let tunnel = try await Connected(threads: threads)
        let near = tunnel.near
        try await tunnel.far.setOption(.autoRead, value: false).get()
        // Until the send buffer is full.
        var written = 0
        while try await near.getOption(.bufferedWritableBytes).get() == 0 {
            written += 60_000
            near.writeAndFlush(ByteBuffer(repeating: 1, count: 60_000), promise: nil)
            try await tunnel.far.eventLoop.submit {}.get()
        }
        #expect(near.isWritable)
        let done: EventLoopFuture<Void> = near.writeAndFlush(ByteBuffer())
        try await tunnel.far.setOption(.autoRead, value: true).get()
        try await done.get()
        #expect(try await near.getOption(.bufferedWritableBytes).get() == 0)
        try await tunnel.pair.shutdown()
    }
}
