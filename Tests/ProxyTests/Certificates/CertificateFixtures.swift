import FoundationEssentials
import Proxy
import X509

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

let testNow = Date(timeIntervalSince1970: 1_800_000_000)
let day: TimeInterval = 86_400

struct FixtureError: Error { var text: String }

/// A directory that is gone after the test.
final class ScratchDirectory: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/kakuremichi-test-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw FixtureError(text: "mkdtemp") }
        path = String(cString: made)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    func write(_ text: String, to name: String, mode: mode_t = 0o600) throws {
        guard let file = fopen(self.file(name), "w") else { throw FixtureError(text: name) }
        fputs(text, file)
        fclose(file)
        chmod(self.file(name), mode)
    }

    func read(_ name: String) throws -> String { try String(contentsOfFile: file(name), encoding: .utf8) }

    func mode(_ name: String) -> UInt32 {
        var status = stat()
        return stat(file(name), &status) == 0 ? UInt32(status.st_mode) & 0o7777 : 0
    }

    var names: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted() }
}

func patterns(_ names: String...) throws -> [DomainPattern] {
    try names.map { name in
        guard let pattern = DomainPattern(name) else { throw FixtureError(text: name) }
        return pattern
    }
}

/// A moment that a test moves by hand.
final class TestClock: @unchecked Sendable {
    // Guarded by the lock: the selector asks from event loops.
    private var value = testNow
    private var lock = pthread_mutex_t()

    init() { pthread_mutex_init(&lock, nil) }

    var now: Date {
        pthread_mutex_lock(&lock)
        defer { pthread_mutex_unlock(&lock) }
        return value
    }

    func advance(by interval: TimeInterval) {
        pthread_mutex_lock(&lock)
        value += interval
        pthread_mutex_unlock(&lock)
    }
}

/// A ClientHello as bytes, cut into records of at most `recordSize` payload bytes.
func clientHello(serverName: [UInt8]?, padding: Int = 0, recordSize: Int = 16_384, extra: [UInt8] = []) -> [UInt8] {
    func length16(_ count: Int) -> [UInt8] { [UInt8(count >> 8 & 0xff), UInt8(count & 0xff)] }
    var extensions: [UInt8] = [0x0a, 0x0a, 0, 0]
    if let serverName {
        let entry = [0] + length16(serverName.count) + serverName
        extensions += [0, 0] + length16(entry.count + 2) + length16(entry.count) + entry
    }
    extensions += extra
    extensions += [0, 21] + length16(padding) + [UInt8](repeating: 0, count: padding)
    var body: [UInt8] = [3, 3] + [UInt8](repeating: 7, count: 32) + [4, 1, 2, 3, 4] + [0, 4, 0x13, 1, 0x13, 2] + [1, 0]
    body += length16(extensions.count) + extensions
    let message = [1, 0] + length16(body.count) + body
    var records: [UInt8] = []
    var rest = message[...]
    while !rest.isEmpty {
        let part = rest.prefix(recordSize)
        records += [22, 3, 1] + length16(part.count) + part
        rest = rest.dropFirst(part.count)
    }
    return records
}

/// SplitMix64: a failure repeats from its seed.
struct TestRandom: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
