import FoundationEssentials
import NIOCore
import NIOPosix

/// An answer in parts, each of which is one JSON object on a line: what a gateway of 100,000 peers has to say is told whole, and neither
/// side holds all of its text.
package enum AdminParts {
    static let head = Array(#"{"parts":1}"#.utf8)
    static let end = Array(#"{"end":true}"#.utf8)
}

extension AdminClient {
    /// Asks for an answer in parts. A process that knows none gives the whole answer as one.
    /// - Parameters:
    ///   - timeLimit: for the connection, and between two pieces of the answer.
    ///   - body: is given each part.
    /// - Throws: `AdminFault`; if the answer breaks off, too.
    package static func ask(
        _ request: AdminRequest, at path: String, group: any EventLoopGroup, timeLimit: TimeAmount = .seconds(10),
        eachPart body: ([UInt8]) throws -> Void
    ) async throws {
        let bytes = try encode(request, for: path)
        let channel = try await ClientBootstrap(group: group).connectTimeout(timeLimit).connect(unixDomainSocketPath: path) { channel in
            channel.eventLoop.makeCompletedFuture { try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel) }
        }
        do {
            try await receive(channel, timeLimit, sending: bytes, body)
        } catch  where error is IOError || error is ChannelError {
            throw AdminFault(error: "the answer has broken off: \(error)")
        }
    }

    private static func receive(
        _ channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>, _ timeLimit: TimeAmount, sending bytes: [UInt8],
        _ body: ([UInt8]) throws -> Void
    ) async throws {
        let connection = channel.channel
        try await channel.executeThenClose { inbound, outbound in
            @Sendable func limit() -> Scheduled<Void> {
                connection.eventLoop.scheduleTask(in: timeLimit) { connection.close(promise: nil) }
            }
            var lines = Lines()
            var timeout = limit()
            defer { timeout.cancel() }
            try await outbound.write(ByteBuffer(bytes: bytes))
            for try await buffer in inbound {
                timeout.cancel()
                timeout = limit()
                try lines.receive(buffer, body)
                if lines.isOver { return }
            }
            try lines.finish()
        }
    }

    /// What has come of the answer.
    private struct Lines {
        private enum State { case start, parts, whole, over }

        private var state = State.start
        private var line: [UInt8] = []

        var isOver: Bool { state == .over }

        mutating func receive(_ buffer: ByteBuffer, _ body: ([UInt8]) throws -> Void) throws {
            for (index, piece) in buffer.readableBytesView.split(separator: 0x0A, omittingEmptySubsequences: false).enumerated() {
                if index > 0 { try take(body) }
                guard line.count + piece.count <= AdminClient.maximumAnswer else {
                    throw AdminFault(error: "a part of the answer is larger than \(AdminClient.maximumAnswer) bytes")
                }
                line += piece
            }
        }

        private mutating func take(_ body: ([UInt8]) throws -> Void) throws {
            defer { line.removeAll(keepingCapacity: true) }
            switch state {
            case .start:
                if line == AdminParts.head {
                    state = .parts
                    return
                }
                if let fault = try? JSONDecoder().decode(AdminFault.self, from: Data(line)) { throw fault }
                state = .whole
                try body(line)
            case .parts:
                if line == AdminParts.end {
                    state = .over
                    return
                }
                try body(line)
            case .whole, .over: break
            }
        }

        func finish() throws {
            switch state {
            case .start: throw AdminFault(error: "the process closed the connection without an answer")
            case .parts: throw AdminFault(error: "the answer has broken off: the process has ended, or this command was too slow")
            case .whole, .over: break
            }
        }
    }
}
