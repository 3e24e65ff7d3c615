import FoundationEssentials
import NIOCore

/// What a verb answers with that does not end at once: a JSON line, then bytes until one side ends it. Thread-safe.
///
/// The client asks for the end by sending anything at all, and still gets what there is; a client that goes away ends it as well.
package final class AdminStream: Sendable {
    /// Succeeds when the client wants no more.
    package let ended: EventLoopFuture<Void>
    /// Succeeds when the client is gone, or everything was said.
    package var closed: EventLoopFuture<Void> { channel.closeFuture }
    private let channel: any Channel
    private let timeLimit: TimeAmount

    /// - Parameters:
    ///   - ended: when the client wants no more.
    ///   - timeLimit: how long a client may take for what is left at the end.
    init(_ channel: any Channel, ended: EventLoopFuture<Void>, timeLimit: TimeAmount) {
        self.channel = channel
        self.ended = ended
        self.timeLimit = timeLimit
    }

    /// Writes behind what was written before.
    /// - Returns: when the kernel has the bytes, or the client is gone.
    @discardableResult
    package func write(_ bytes: [UInt8]) -> EventLoopFuture<Void> {
        channel.writeAndFlush(ByteBuffer(bytes: bytes)).recover { _ in }
    }

    /// Writes the parts of an answer that may be longer than a client holds at once: a line that says so, a line each, and one that
    /// tells that it is all. The next part is made when the kernel has the one before.
    /// - Parameter parts: as JSON at most ``AdminClient/maximumAnswer`` bytes each.
    package func answer(_ parts: some Sequence<some Encodable>) async throws {
        try await deliver(AdminParts.head)
        for part in parts { try await deliver(Array(try JSONEncoder().encode(part))) }
        try await deliver(AdminParts.end)
        finish()
    }

    /// A client that takes nothing for ``timeLimit`` is cut off.
    private func deliver(_ line: [UInt8]) async throws {
        let timeout = channel.eventLoop.scheduleTask(in: timeLimit) { [channel] in channel.close(promise: nil) }
        defer { timeout.cancel() }
        try await channel.writeAndFlush(ByteBuffer(bytes: line + [0x0A])).get()
    }

    /// Closes once everything is written.
    package func finish() {
        let timeout = channel.eventLoop.scheduleTask(in: timeLimit) { [channel] in channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in timeout.cancel() }
        write([]).whenComplete { [channel] _ in channel.close(promise: nil) }
    }
}
