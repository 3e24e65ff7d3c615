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

    /// Closes once everything is written.
    package func finish() {
        let timeout = channel.eventLoop.scheduleTask(in: timeLimit) { [channel] in channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in timeout.cancel() }
        write([]).whenComplete { [channel] _ in channel.close(promise: nil) }
    }
}
