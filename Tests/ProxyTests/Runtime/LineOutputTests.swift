import Foundation
import Glibc
import NIOConcurrencyHelpers
import Proxy
import Testing

@Suite struct LineOutputTests {
    /// Both ends of a pipe of one page.
    private func pipe() throws -> (reader: CInt, writer: CInt) {
        var ends: [CInt] = [0, 0]
        #expect(Glibc.pipe(&ends) == 0)
        // F_SETPIPE_SZ.
        #expect(fcntl(ends[1], 1031, 4096) > 0)
        return (ends[0], ends[1])
    }

    @Test(
        "a reader that stalls stops nobody; what it then reads is whole lines in order, and how many were dropped", .timeLimit(.minutes(1)))
    func stalled() throws {
        let (reader, writer) = try pipe()
        let output = LineOutput(descriptor: writer) { "dropped \($0)\n" }
        let count = 40_000
        for number in 0..<count { output.write("line \(number) \(String(repeating: "x", count: 60))\n") }
        // Nobody has read anything yet. More than the pipe and the queue hold is gone.
        let thread = Collector(reader)
        while !thread.text.contains("dropped") { sched_yield() }
        output.write("the last\n")
        while !thread.text.hasSuffix("the last\n") { sched_yield() }
        close(writer)
        thread.join()
        let lines = thread.text.split(separator: "\n")
        let numbers = lines.compactMap { $0.hasPrefix("line ") ? Int($0.split(separator: " ")[1]) : nil }
        #expect(numbers == Array(0..<numbers.count) && numbers.count > 10_000 && numbers.count < count)
        #expect(lines.suffix(2) == ["dropped \(count - numbers.count)", "the last"])
        close(reader)
    }

    @Test("a line longer than a pipe comes whole", .timeLimit(.minutes(1)))
    func long() throws {
        let (reader, writer) = try pipe()
        let thread = Collector(reader)
        let output = LineOutput(descriptor: writer) { "dropped \($0)\n" }
        let line = String(repeating: "y", count: 100_000) + "\n"
        output.write(line)
        output.write("next\n")
        while !thread.text.hasSuffix("next\n") { sched_yield() }
        #expect(thread.text == line + "next\n")
        close(writer)
        thread.join()
        close(reader)
    }
}

/// Reads on a thread of its own.
private final class Collector: Sendable {
    private let box = NIOLockedValueBox("")
    private let done = NIOLockedValueBox(false)

    init(_ descriptor: CInt) {
        let (box, done) = (box, done)
        Thread.detachNewThread {
            var chunk = [UInt8](repeating: 0, count: 4096)
            while case let count = Glibc.read(descriptor, &chunk, chunk.count), count > 0 {
                let text = String(decoding: chunk.prefix(count), as: UTF8.self)
                box.withLockedValue { $0 += text }
            }
            done.withLockedValue { $0 = true }
        }
    }

    var text: String { box.withLockedValue { $0 } }
    func join() { while !done.withLockedValue({ $0 }) { sched_yield() } }
}
