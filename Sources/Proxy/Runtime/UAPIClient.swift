import Glibc
import Noise
import WGUserspace

/// Asks interfaces over their UAPI sockets, ours or any other implementation's. It waits for answers, so it is for commands.
package struct UAPIClient: Sendable {
    /// Bytes of an answer, at most: more than 10,000 peers with 100 blocks each.
    package static let maximumAnswer = 64 << 20
    /// Seconds of silence.
    static let patience = 30

    /// Where sockets are looked for, in this order.
    package var directories: [String]

    package init(directories: [String]) { self.directories = directories }

    /// Why an interface cannot be asked, in the system's words.
    package enum Failure: Error, Equatable, CustomStringConvertible {
        case system(CInt)
        case answer(UAPI.AnswerError)

        package var description: String {
            switch self {
            case .system(let code): systemMessage(code)
            case .answer(.refused(let errno)): systemMessage(errno)
            case .answer(let error): error.description
            }
        }
    }

    /// The names of the interfaces that answer, those of one directory in alphabetical order; a name is there once.
    package func interfaces() -> [String] {
        var names: [String] = []
        for directory in directories {
            for name in Self.sockets(in: directory).sorted() where !names.contains(name) {
                guard let descriptor = try? Self.connect("\(directory)/\(name).sock") else { continue }
                close(descriptor)
                names.append(name)
            }
        }
        return names
    }

    package func state(of name: String) throws(Failure) -> UAPI.State {
        let request: StaticString = "get=1\n\n"
        let answer = try ask(name, UnsafeRawBufferPointer(start: request.utf8Start, count: request.utf8CodeUnitCount))
        return try answer.withBytes { bytes throws(Failure) in
            do throws(UAPI.AnswerError) { return try UAPI.State(answer: bytes) } catch { throw .answer(error) }
        }
    }

    package func apply(_ request: UAPI.SetRequest, to name: String) throws(Failure) {
        let answer = try request.text().withBytes { bytes throws(Failure) in
            try bytes.withUnsafeBytes { bytes throws(Failure) in try ask(name, bytes) }
        }
        try answer.withBytes { bytes throws(Failure) in
            do throws(UAPI.AnswerError) { try UAPI.readStatus(bytes) } catch { throw .answer(error) }
        }
    }

    private func ask(_ name: String, _ request: UnsafeRawBufferPointer) throws(Failure) -> Answer {
        guard UAPIDirectory.isName(name) else { throw .system(ENODEV) }
        var failure = Failure.system(ENODEV)
        for directory in directories {
            let descriptor: CInt
            do throws(Failure) {
                descriptor = try Self.connect("\(directory)/\(name).sock")
            } catch {
                // A socket that may not be used says more than one that is not there.
                if error != .system(ENOENT), error != .system(ECONNREFUSED) { failure = error }
                continue
            }
            defer { close(descriptor) }
            try Self.write(request, to: descriptor)
            // What answers one request and then looks for the next one finds the end.
            shutdown(descriptor, CInt(SHUT_WR))
            return try Self.read(descriptor)
        }
        throw failure
    }

    private static func sockets(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            guard name.hasSuffix(".sock"), UAPIDirectory.isName(String(name.dropLast(5))) else { continue }
            names.append(String(name.dropLast(5)))
        }
        return names
    }

    static func connect(_ path: String) throws(Failure) -> CInt {
        guard path.utf8.count <= OwnerSocket.maximumPath else { throw .system(ENAMETOOLONG) }
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw .system(errno) }
        var limit = timeval(tv_sec: patience, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else {
            let code = errno
            close(descriptor)
            throw .system(code)
        }
        return descriptor
    }

    private static func write(_ bytes: UnsafeRawBufferPointer, to descriptor: CInt) throws(Failure) {
        var offset = 0
        while offset < bytes.count {
            let count = send(descriptor, bytes.baseAddress.map { $0 + offset }, bytes.count - offset, CInt(MSG_NOSIGNAL))
            if count < 0, errno == EINTR { continue }
            // It may have answered already and closed.
            if count < 0, errno == EPIPE { return }
            guard count > 0 else { throw .system(errno == EAGAIN ? ETIMEDOUT : errno) }
            offset += count
        }
    }

    private static func read(_ descriptor: CInt) throws(Failure) -> Answer {
        var answer = Answer()
        while true {
            if answer.isFull, !answer.grow() { throw .system(EMSGSIZE) }
            let count = answer.withRoom { recv(descriptor, $0.baseAddress, $0.count, 0) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw .system(errno == EAGAIN ? ETIMEDOUT : errno) }
            if count == 0 { return answer }
            answer.count += count
        }
    }

    /// Grows as it needs and is wiped wherever it was.
    private struct Answer: ~Copyable {
        private var buffer = SecretBytes(count: 64 * 1024)
        var count = 0

        var isFull: Bool { count == buffer.count }

        mutating func grow() -> Bool {
            guard buffer.count < UAPIClient.maximumAnswer else { return false }
            var larger = SecretBytes(count: buffer.count * 2)
            let count = count
            buffer.withBytes { old in
                old.withUnsafeBytes { old in
                    larger.withMutableBytes { new in
                        new.withUnsafeMutableBytes { $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: old[..<count])) }
                    }
                }
            }
            buffer = larger
            return true
        }

        mutating func withRoom<Result>(_ body: (UnsafeMutableRawBufferPointer) -> Result) -> Result {
            let count = count
            return buffer.withMutableBytes { bytes in
                bytes.withUnsafeMutableBytes { body(UnsafeMutableRawBufferPointer(rebasing: $0[count...])) }
            }
        }

        func withBytes<Value>(_ body: (RawSpan) throws(Failure) -> Value) throws(Failure) -> Value {
            let count = count
            return try buffer.withBytes { bytes throws(Failure) in try body(bytes.extracting(0..<count)) }
        }
    }
}
