import FoundationEssentials
import Glibc
import NIOWireGuard

/// The asking side of the verb `capture`: it waits and blocks, so it is for a command's own thread.
package struct CaptureClient {
    package struct Summary: Equatable {
        package var packets: UInt64 = 0
        package var bytes: UInt64 = 0
        package var dropped: UInt64 = 0
        /// Why it ended; `nil` if the process went away.
        package var end: String?
        /// Whether nobody reads the output any more.
        package var isOutputGone = false
    }

    private let socket: CInt
    private var blocks = CaptureBlocks()

    /// Asks the process that holds `path`. The capture runs once this has returned.
    /// - Throws: `AdminFault`, or what the system says.
    package init(_ options: PacketCapture.Options, at path: String) throws {
        do throws(UAPIClient.Failure) {
            socket = try UAPIClient.connect(path)
        } catch {
            throw AdminFault(error: "cannot be reached: \(error)")
        }
        var bytes = Array(try JSONEncoder().encode(AdminRequest(verb: CaptureVerb.name, arguments: CaptureVerb.arguments(options))))
        bytes.append(0x0A)
        do {
            guard send(socket, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count else { throw Self.gone }
            try readHeader()
        } catch {
            close(socket)
            throw error
        }
    }

    /// The line before the stream: a fault, or that it begins.
    private mutating func readHeader() throws {
        var line: [UInt8] = []
        while !line.contains(0x0A) {
            guard line.count <= AdminSocket.maximumRequest, let bytes = receive(), !bytes.isEmpty else { throw Self.gone }
            line += bytes
        }
        let end = line.firstIndex(of: 0x0A) ?? line.endIndex
        if let fault = try? JSONDecoder().decode(AdminFault.self, from: Data(line[..<end])) { throw fault }
        blocks.append(line[(end + 1)...])
    }

    /// Writes what comes until one side ends it.
    /// - Parameters:
    ///   - stop: a descriptor that becomes readable when the user has had enough.
    ///   - onProgress: called at least every two seconds.
    package consuming func run(to output: CaptureOutput, stop: CInt, onProgress: (Summary) -> Void) throws -> Summary {
        defer { close(socket) }
        var deadline: time_t?
        func isOver() -> Bool { deadline.map { Self.seconds > $0 } ?? false }
        func askToEnd() {
            guard deadline == nil else { return }
            deadline = Self.seconds + Self.patience
            send(socket, "\n", 1, CInt(MSG_NOSIGNAL))
        }
        func isStopAsked(_ entry: inout pollfd, wait: CInt) -> Bool { poll(&entry, 1, wait) > 0 }
        var shown = Self.seconds
        var isOutputGone = false
        while true {
            try output.write(try blocks.take()) {
                var entry = pollfd(fd: stop, events: Int16(POLLIN), revents: 0)
                if isStopAsked(&entry, wait: 0) { askToEnd() }
                return isOver()
            }
            if shown + Self.progress <= Self.seconds {
                shown = Self.seconds
                onProgress(summary(output))
            }
            var entries = [
                pollfd(fd: socket, events: Int16(POLLIN), revents: 0),
                pollfd(fd: deadline == nil ? stop : -1, events: Int16(POLLIN), revents: 0),
                // Tells when the reader of a pipe is gone.
                pollfd(fd: output.descriptor, events: 0, revents: 0),
            ]
            guard poll(&entries, nfds_t(entries.count), 1000) >= 0 || errno == EINTR else { throw Self.gone }
            if entries[1].revents != 0 { askToEnd() }
            isOutputGone = entries[2].revents & Int16(POLLERR) != 0
            if isOutputGone || isOver() { break }
            guard entries[0].revents != 0 else { continue }
            guard let bytes = receive(), !bytes.isEmpty else { break }
            blocks.append(bytes)
        }
        var summary = summary(output)
        summary.isOutputGone = isOutputGone
        return summary
    }

    private func summary(_ output: CaptureOutput) -> Summary {
        Summary(packets: blocks.packets, bytes: output.byteCount, dropped: blocks.dropped, end: blocks.end)
    }

    /// `nil` after an error, nothing at the end.
    private func receive() -> [UInt8]? {
        var failed = false
        let bytes = [UInt8](unsafeUninitializedCapacity: 256 * 1024) { buffer, count in
            while true {
                let received = recv(socket, buffer.baseAddress, buffer.count, 0)
                if received < 0, errno == EINTR { continue }
                failed = received < 0
                count = max(0, received)
                return
            }
        }
        return failed ? nil : bytes
    }

    private static var gone: AdminFault { AdminFault(error: "the process closed the connection without an answer") }

    private static var seconds: time_t {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return now.tv_sec
    }

    /// Seconds for what is left after the user has had enough.
    private static let patience = 3
    /// Seconds between two words on how far it is.
    private static let progress = 2
}
