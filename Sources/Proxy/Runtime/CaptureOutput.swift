import Glibc

/// Where the command writes a capture: a new file of its owner's alone, or standard output.
package final class CaptureOutput: @unchecked Sendable {
    package let name: String
    package private(set) var byteCount: UInt64 = 0
    let descriptor: CInt
    private let isFile: Bool

    /// Makes the file; it must not exist, and nothing is followed to another place.
    /// - Parameter path: `-` is standard output, which must not be a terminal.
    package init(_ path: String) throws {
        guard path != "-" else {
            guard isatty(STDOUT_FILENO) == 0 else {
                throw CommandFailure("a capture is not for a terminal; pipe it into tshark -r -, or give --out a file")
            }
            (name, descriptor, isFile) = ("standard output", STDOUT_FILENO, false)
            return
        }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError(path: path, problem: errno == EEXIST ? .exists : .system(.writing, errno)) }
        (name, self.descriptor, isFile) = (LogText.escape(path), descriptor, true)
    }

    deinit { if isFile { close(descriptor) } }

    /// Writes whole blocks, or leaves none of them in a file.
    /// - Parameter isEnding: whether to give up on a reader that does not read; asked again and again.
    package func write(_ blocks: [UInt8], isEnding: () -> Bool) throws {
        var offset = 0
        while offset < blocks.count {
            if !isFile, !waitForRoom() {
                if isEnding() { return }
                continue
            }
            // What a pipe takes at once if it takes anything.
            let length = isFile ? blocks.count - offset : min(Self.pipeBuffer, blocks.count - offset)
            let count = blocks.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress.map { $0 + offset }, length) }
            if count < 0, errno == EINTR || errno == EAGAIN { continue }
            guard count > 0 else {
                let code = errno
                if isFile { ftruncate(descriptor, off_t(clamping: byteCount)) }
                throw FileError(path: name, problem: .system(.writing, code))
            }
            offset += count
        }
        byteCount += UInt64(blocks.count)
    }

    private func waitForRoom() -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        return poll(&entry, 1, 200) > 0
    }

    /// PIPE_BUF of Linux.
    private static let pipeBuffer = 4096
}
