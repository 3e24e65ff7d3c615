import Inet
import Noise

extension UAPI {
    /// Why an answer cannot be used.
    public enum AnswerError: Error, Hashable, Sendable, CustomStringConvertible {
        /// The other side refused; a positive number of `errno.h`.
        case refused(errno: Int32)
        /// It is not text of this protocol; the first line is 1.
        case malformed(line: Int)
        /// It ends before `errno=`.
        case incomplete

        public var description: String {
            switch self {
            case .refused(let errno): Fault(errno: errno).description
            case .malformed(let line): "line \(line) of the answer is not understood"
            case .incomplete: "the answer is cut off"
            }
        }
    }

    /// Reads the number in the answer to a `set=1`.
    public static func readStatus(_ answer: RawSpan) throws(AnswerError) {
        var reader = AnswerReader()
        try reader.read(answer)
    }
}

extension UAPI.State {
    /// Reads a whole answer to `get=1`. Keys that are not known are skipped, as `wg` does.
    public init(answer: RawSpan) throws(UAPI.AnswerError) {
        var reader = AnswerReader()
        try reader.read(answer)
        self = reader.state
    }
}

private struct AnswerReader {
    var state = UAPI.State()
    private var peer: UAPI.State.Peer?

    mutating func read(_ answer: RawSpan) throws(UAPI.AnswerError) {
        var (start, number) = (0, 1)
        while start < answer.byteCount {
            var end = start
            while end < answer.byteCount, answer.byte(at: end) != UInt8(ascii: "\n") { end += 1 }
            guard end < answer.byteCount else { throw .incomplete }
            let line = answer.extracting(start..<end)
            guard let equals = (0..<line.byteCount).first(where: { line.byte(at: $0) == UInt8(ascii: "=") }) else {
                throw .malformed(line: number)
            }
            let value = line.extracting(equals + 1..<line.byteCount)
            if let key = UAPIKey(line.extracting(0..<equals)) {
                if key == .errno { return try finish(value, number) }
                guard receive(key, value) else { throw .malformed(line: number) }
            }
            start = end + 1
            number += 1
        }
        throw .incomplete
    }

    private mutating func finish(_ value: RawSpan, _ line: Int) throws(UAPI.AnswerError) {
        // wireguard-go's numbers are negative, others' positive.
        let isNegative = value.byteCount > 0 && value.byte(at: 0) == UInt8(ascii: "-")
        guard let errno = UAPIValue.number(isNegative ? value.extracting(1..<value.byteCount) : value, Int32.self) else {
            throw .malformed(line: line)
        }
        guard errno == 0 else { throw .refused(errno: errno) }
        if let peer { state.peers.append(peer) }
        peer = nil
    }

    private mutating func receive(_ key: UAPIKey, _ value: RawSpan) -> Bool {
        switch key {
        case .privateKey:
            guard let new = PrivateKey(hex: value) else { return false }
            if !new.isZero { state.privateKey = StoredPrivateKey(new) }
        case .listenPort: return assign(UAPIValue.number(value, UInt16.self)) { $0.state.listenPort = $1 }
        case .fwmark: return assign(UAPIValue.number(value, UInt32.self)) { $0.state.fwmark = $1 }
        case .publicKey:
            guard let publicKey = PublicKey(hex: value) else { return false }
            if let peer { state.peers.append(peer) }
            peer = UAPI.State.Peer(publicKey: publicKey)
        case .presharedKey:
            guard let new = PresharedKey(hex: value) else { return false }
            if !new.isZero { peer?.presharedKey = StoredPresharedKey(new) }
        case .endpoint:
            return assign(UAPIValue.text(value).flatMap { SocketEndpoint(withoutScope($0)) }) { $0.peer?.endpoint = $1 }
        case .allowedIP: return assign(UAPIValue.text(value).flatMap { IPPrefix($0) }) { $0.peer?.allowedIPs.append($1) }
        case .persistentKeepaliveInterval:
            return assign(UAPIValue.number(value, UInt16.self)) { $0.peer?.persistentKeepalive = $1 > 0 ? .seconds(Int($1)) : nil }
        case .lastHandshakeSeconds:
            return assign(UAPIValue.number(value, UInt64.self)) { $0.setLastHandshake(seconds: $1) }
        case .lastHandshakeNanoseconds:
            return assign(UAPIValue.number(value, UInt32.self)) { $0.setLastHandshake(nanoseconds: $1) }
        case .receivedBytes: return assign(UAPIValue.number(value, UInt64.self)) { $0.peer?.receivedBytes = $1 }
        case .sentBytes: return assign(UAPIValue.number(value, UInt64.self)) { $0.peer?.sentBytes = $1 }
        case .protocolVersion: return UAPIValue.number(value, UInt8.self) == 1
        case .replacePeers, .remove, .updateOnly, .replaceAllowedIPs, .errno: break
        }
        return true
    }

    /// `[fe80::1%eth0]:1` without the scope, which has no place in an address here.
    private func withoutScope(_ text: String) -> String {
        guard let percent = text.firstIndex(of: "%"), let end = text[percent...].firstIndex(of: "]") else { return text }
        return String(text[..<percent] + text[end...])
    }

    private mutating func assign<Value>(_ value: Value?, _ body: (inout AnswerReader, Value) -> Void) -> Bool {
        guard let value else { return false }
        body(&self, value)
        return true
    }

    /// Both zero stands for never.
    private mutating func setLastHandshake(seconds: UInt64? = nil, nanoseconds: UInt32? = nil) {
        let old = peer?.lastHandshake
        let new = WallTime(seconds: seconds ?? old?.seconds ?? 0, nanoseconds: nanoseconds ?? old?.nanoseconds ?? 0)
        peer?.lastHandshake = new.seconds == 0 && new.nanoseconds == 0 ? nil : new
    }
}
