import Glibc
import Inet
import Logging
import NIOCore
import Noise
import Synchronization

/// Remembers WireGuard's timestamps across restarts: the last one that we sent, so that peers do not take our next initiation for a
/// replay when the clock went back meanwhile; and the last one accepted of each peer, so that an old initiation cannot be replayed to
/// move the peer's endpoint. One line each, `sent @TAI64N` and `PUBLICKEY @TAI64N` with 24 hexadecimal digits.
///
/// Initiations go out in between two writes. What is stored as sent is therefore ``reserve`` ahead, and stored anew at once when an
/// initiation passes it: a crash loses nothing, and there is at most one such write in ten seconds.
///
/// Source: WG §5.1.
package final class TimestampStore: Sendable {
    package static let delay = TimeAmount.seconds(5)
    /// Seconds beyond our clock that are stored as sent.
    static let reserve: UInt64 = 10
    /// Timestamps further ahead of our clock (seconds) are not stored: nobody shall be locked out for years by a wrong clock.
    package static let farAhead: UInt64 = 86_400
    /// Peers in the file; those added at run time are bounded by it, too.
    static let maximumPeers = 65_536
    static let maximumSize = 8 << 20

    package struct Timestamps: Equatable, Sendable {
        package var sent: TAI64N?
        package var accepted: [PublicKey: TAI64N] = [:]

        package init(sent: TAI64N? = nil, accepted: [PublicKey: TAI64N] = [:]) {
            self.sent = sent
            self.accepted = accepted
        }
    }

    private let file: PeerStateFile
    private let state: Mutex<Timestamps>
    private let wallTime: @Sendable () -> WallTime
    private let delay: TimeAmount

    /// Reads what was stored. Peers that are not configured any more are dropped. A damaged file is put aside with a warning, and
    /// those of its lines that are whole count.
    /// - Parameter delay: after the first change, until what was accepted is written.
    package init(
        path: String, peers: Set<PublicKey>, eventLoop: any EventLoop, logger: Logger, delay: TimeAmount = TimestampStore.delay,
        wallTime: @escaping @Sendable () -> WallTime
    ) {
        self.delay = delay
        file = PeerStateFile(path: path, failure: "WireGuard's timestamps cannot be stored", eventLoop: eventLoop, logger: logger)
        self.wallTime = wallTime
        var timestamps = Timestamps()
        do throws(FileError) {
            let (read, isWhole) = Self.parse(try SystemFiles.read(path, limit: Self.maximumSize, isRegular: true).bytes)
            timestamps = read
            if !isWhole { Self.putAside(path, reason: "a line is damaged", logger) }
        } catch {
            if case .system(_, ENOENT) = error.problem {} else { Self.putAside(path, reason: error.message, logger) }
        }
        let readCount = timestamps.accepted.count
        timestamps.accepted = timestamps.accepted.filter { peers.contains($0.key) }
        let hasForgotten = timestamps.accepted.count < readCount
        // Kept nevertheless: it may well be our clock that is wrong, and then the way would be open for replays.
        let limit = wallTime().seconds &+ Self.farAhead
        let count = timestamps.accepted.values.count { $0.wallTime.seconds > limit }
        if count > 0 || (timestamps.sent?.wallTime.seconds ?? 0) > limit {
            logger.warning(
                "Stored timestamps are more than a day ahead of this machine's clock; check it",
                metadata: ["peers": .stringConvertible(count)])
        }
        state = Mutex(timestamps)
        // A peer that is configured again begins anew.
        if hasForgotten { changed(writingIn: .zero) }
    }

    package var timestamps: Timestamps { state.withLock { $0 } }

    /// An initiation of ours bears it. From any thread.
    package func recordSent(_ timestamp: TAI64N) {
        let ahead = wallTime().seconds &+ Self.reserve
        let mustWrite = state.withLock { state in
            if let sent = state.sent, timestamp <= sent { return false }
            // A clock that is behind what was sent must not push the reserve further and further: a second is 59 steps.
            let seconds = max(ahead, timestamp.wallTime.seconds &+ 1)
            state.sent = TAI64N(WallTime(seconds: seconds, nanoseconds: 0))
            return true
        }
        if mustWrite { changed(writingIn: .zero) }
    }

    /// An initiation of the peer with this timestamp was accepted. From any thread.
    /// - Returns: whether it is stored: not if it is more than a day ahead of our clock.
    @discardableResult
    package func recordAccepted(_ timestamp: TAI64N, of peer: PublicKey) -> Bool {
        guard timestamp.wallTime.seconds <= wallTime().seconds &+ Self.farAhead else { return false }
        let isNew = state.withLock { state in
            guard state.accepted[peer] != timestamp, state.accepted[peer] != nil || state.accepted.count < Self.maximumPeers else {
                return false
            }
            state.accepted[peer] = timestamp
            return true
        }
        if isNew { changed(writingIn: delay) }
        return true
    }

    /// The peer's next initiation is accepted whatever its timestamp, after a restart too.
    package func forget(_ peer: PublicKey) {
        if state.withLock({ $0.accepted.removeValue(forKey: peer) }) != nil { changed(writingIn: .zero) }
    }

    /// Peers were removed while we run: a removed one that is added again begins anew, after a restart too.
    package func forgetAll(but peers: Set<PublicKey>) {
        let hasForgotten = state.withLock { state in
            let former = state.accepted.count
            state.accepted = state.accepted.filter { peers.contains($0.key) }
            return state.accepted.count < former
        }
        if hasForgotten { changed(writingIn: .zero) }
    }

    /// Writes what has changed since the last time. Blocks: not on an event loop.
    package func save() { file.save { Self.format(self.timestamps) } }

    private func changed(writingIn delay: TimeAmount) { file.change(writingIn: delay) { Self.format(self.timestamps) } }

    private static func putAside(_ path: String, reason: String, _ logger: Logger) {
        let damaged = path + ".damaged"
        let isMoved = rename(path, damaged) == 0
        logger.warning(
            "WireGuard's stored timestamps are damaged; old handshakes of peers that are missing could be replayed once",
            metadata: ["file": "\(LogText.escape(isMoved ? damaged : path))", "error": "\(reason)"])
    }

    // MARK: The file

    package static func format(_ timestamps: Timestamps) -> [UInt8] {
        var lines = timestamps.accepted.map { "\($0.key.base64) \(label($0.value))\n" }.sorted()
        if let sent = timestamps.sent { lines.insert("sent \(label(sent))\n", at: 0) }
        return Array(lines.joined().utf8)
    }

    /// Never fails: lines that are not understood are skipped and told of.
    package static func parse(_ bytes: [UInt8]) -> (timestamps: Timestamps, isWhole: Bool) {
        var result = Timestamps()
        // Atomic replacement leaves no half a line, other things may.
        var isWhole = bytes.isEmpty || bytes.last == 0x0A
        for line in bytes.split(separator: 0x0A) {
            let parts = line.split(separator: 0x20)
            guard parts.count == 2, let timestamp = timestamp(Array(parts[1])) else {
                isWhole = false
                continue
            }
            let name = String(decoding: parts[0], as: UTF8.self)
            if name == "sent" {
                result.sent = timestamp
            } else if let peer = PublicKey(base64: name), result.accepted.count < maximumPeers {
                result.accepted[peer] = timestamp
            } else {
                isWhole = false
            }
        }
        return (result, isWhole)
    }

    private static func label(_ timestamp: TAI64N) -> String {
        var bytes = [UInt8](repeating: 0, count: TAI64N.byteCount)
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        timestamp.write(into: &raw, at: 0)
        return "@" + bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    private static func timestamp(_ label: [UInt8]) -> TAI64N? {
        guard label.count == 1 + 2 * TAI64N.byteCount, label[0] == UInt8(ascii: "@") else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 1, to: label.count, by: 2) {
            guard let high = nibble(label[index]), let low = nibble(label[index + 1]) else { return nil }
            bytes.append(high << 4 | low)
        }
        return TAI64N(bytes.span.bytes)
    }

    private static func nibble(_ character: UInt8) -> UInt8? {
        switch character {
        case 0x30...0x39: character - 0x30
        case 0x61...0x66: character - 0x61 + 10
        default: nil
        }
    }
}
