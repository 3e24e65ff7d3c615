import Inet
import Noise

extension UAPI {
    /// Reads requests line by line as their bytes come in. Nothing that it was given stays readable in it: each line is wiped.
    ///
    /// It holds what a request said, at most `maximumRequest` bytes of it, and one line. A request with a fault is read over to its
    /// end, so that the next one is understood and a client that writes first and reads then gets its answer.
    ///
    ///     idle ── set=1 ──► set ── blank line ──► idle, .set or .refused
    ///       └──── get=1 ──► get ── blank line ──► idle, .get
    ///       └──── other ──► closed, .closed
    public struct Parser: ~Copyable {
        /// What the bytes so far come to.
        public enum Event: Sendable {
            case request(Request)
            /// To be answered with the fault's number; the next request may follow.
            case refused(Fault)
            /// Neither get nor set: nothing after it can be understood, and the connection is closed without an answer.
            case closed
        }

        private enum State {
            case idle
            case get
            case set(SetReader)
            /// Reading over the rest of a bad request.
            case refusing(Fault)
            case closed
        }

        private var state = State.idle
        private var line = SecretBytes(count: UAPI.maximumLine)
        private var lineCount = 0
        private var isLineTooLong = false
        /// Bytes of this request.
        private var requestCount = 0

        public init() {}

        /// Whether a request has begun and not ended.
        public var isInsideRequest: Bool {
            if case .idle = state { return lineCount > 0 || isLineTooLong }
            if case .closed = state { return false }
            return true
        }

        /// Takes bytes from `offset` up to the end of one request.
        /// - Parameters:
        ///   - bytes: as they came in. Wiping them is the caller's business.
        ///   - offset: where to begin, 0 to `bytes.byteCount`; afterwards where the next call begins.
        /// - Returns: `nil` if all bytes were taken and no request is complete.
        public mutating func receive(_ bytes: RawSpan, from offset: inout Int) -> Event? {
            while offset < bytes.byteCount {
                if case .closed = state {
                    offset = bytes.byteCount
                    return .closed
                }
                let byte = bytes.byte(at: offset)
                offset += 1
                if requestCount < UAPI.maximumRequest { requestCount += 1 } else { refuse(.tooLong) }
                guard byte != UInt8(ascii: "\n") else {
                    if let event = finishLine() { return event }
                    continue
                }
                if lineCount == UAPI.maximumLine {
                    isLineTooLong = true
                } else {
                    let index = lineCount
                    line.withMutableBytes { $0.store(byte, at: index) }
                    lineCount += 1
                }
            }
            return nil
        }

        private mutating func refuse(_ fault: Fault) {
            switch state {
            case .idle, .get, .set: state = .refusing(fault)
            case .refusing, .closed: break
            }
        }

        private mutating func finishLine() -> Event? {
            let (count, isTooLong) = (lineCount, isLineTooLong)
            lineCount = 0
            isLineTooLong = false
            defer { line.withMutableBytes { $0.zero(0..<count) } }
            if isTooLong, !isIdle {
                refuse(.tooLong)
                return nil
            }
            guard count > 0 else { return finishRequest() }
            switch state {
            case .idle:
                if !isTooLong, line.withBytes({ Self.isText($0, "get=1", count: count) }) {
                    state = .get
                } else if !isTooLong, line.withBytes({ Self.isText($0, "set=1", count: count) }) {
                    state = .set(SetReader())
                } else {
                    state = .closed
                    return .closed
                }
            case .get: state = .refusing(.invalid)
            case .set(var reader):
                // The placeholder keeps the reader's arrays from having two owners.
                state = .idle
                let fault = line.withBytes { reader.receive($0.extracting(0..<count)) }
                state = fault.map { .refusing($0) } ?? .set(reader)
            case .refusing, .closed: break
            }
            return nil
        }

        private var isIdle: Bool {
            if case .idle = state { return true }
            return false
        }

        private mutating func finishRequest() -> Event? {
            let ended = state
            requestCount = 0
            switch ended {
            case .idle:
                state = .closed
                return .closed
            case .get:
                state = .idle
                return .request(.get)
            case .set(var reader):
                state = .idle
                return .request(.set(reader.finish()))
            case .refusing(let fault):
                state = .idle
                return .refused(fault)
            case .closed: return .closed
            }
        }

        static func isText(_ bytes: RawSpan, _ text: StaticString, count: Int) -> Bool {
            guard count == text.utf8CodeUnitCount else { return false }
            // A static string has `utf8CodeUnitCount` bytes.
            return (0..<count).allSatisfy { index in unsafe bytes.byte(at: index) == text.utf8Start[index] }
        }
    }
}

/// Collects the lines of one `set=1`.
struct SetReader: Sendable {
    private var request = UAPI.SetRequest()
    private var peer: PeerChange?
    /// The peer's `allowed_ip` lines.
    private var allowedIPs: [(prefix: IPPrefix, isRemoved: Bool)] = []
    private var removesAllowedIPs = false

    /// Takes one line without its end, not empty.
    mutating func receive(_ line: RawSpan) -> UAPI.Fault? {
        guard let equals = (0..<line.byteCount).first(where: { line.byte(at: $0) == UInt8(ascii: "=") }) else { return .notKeyAndValue }
        let name = line.extracting(0..<equals)
        let value = line.extracting(equals + 1..<line.byteCount)
        guard let key = UAPIKey(name) else { return .invalid }
        if key == .publicKey {
            guard let publicKey = PublicKey(hex: value) else { return .invalid }
            finishPeer()
            peer = PeerChange(publicKey: publicKey)
            return nil
        }
        return (peer == nil ? receiveDevice(key, value) : receivePeer(key, value)) ? nil : .invalid
    }

    mutating func finish() -> UAPI.SetRequest {
        finishPeer()
        return request
    }

    private mutating func finishPeer() {
        guard var done = peer else { return }
        peer = nil
        if removesAllowedIPs {
            var seen: Set<IPPrefix> = []
            for (prefix, isRemoved) in allowedIPs.reversed() where seen.insert(prefix).inserted {
                if isRemoved { done.removedAllowedIPs.append(prefix) } else { done.addedAllowedIPs.append(prefix) }
            }
            done.removedAllowedIPs.reverse()
            done.addedAllowedIPs.reverse()
        } else {
            done.addedAllowedIPs = allowedIPs.map(\.prefix)
        }
        allowedIPs = []
        removesAllowedIPs = false
        request.peers.append(done)
    }

    private mutating func receiveDevice(_ key: UAPIKey, _ value: RawSpan) -> Bool {
        switch key {
        case .privateKey:
            guard let new = PrivateKey(hex: value) else { return false }
            request.privateKey = new.isZero ? .remove : .set(StoredPrivateKey(new))
        case .listenPort:
            guard let port = UAPIValue.number(value, UInt16.self) else { return false }
            request.listenPort = port
        case .fwmark:
            guard let mark = UAPIValue.number(value, UInt32.self) else { return false }
            request.fwmark = mark
        case .replacePeers:
            guard UAPIValue.isTrue(value) else { return false }
            request.replacePeers = true
        default: return false
        }
        return true
    }

    private mutating func receivePeer(_ key: UAPIKey, _ value: RawSpan) -> Bool {
        switch key {
        case .remove:
            guard UAPIValue.isTrue(value) else { return false }
            peer?.remove = true
        case .updateOnly:
            guard UAPIValue.isTrue(value) else { return false }
            peer?.updateOnly = true
        case .presharedKey:
            guard let new = PresharedKey(hex: value) else { return false }
            peer?.presharedKey = StoredPresharedKey(new)
        case .endpoint:
            guard let endpoint = UAPIValue.text(value).flatMap(SocketEndpoint.init) else { return false }
            peer?.endpoint = endpoint
        case .persistentKeepaliveInterval:
            guard let seconds = UAPIValue.number(value, UInt16.self) else { return false }
            peer?.persistentKeepalive = .seconds(Int(seconds))
        case .replaceAllowedIPs:
            guard UAPIValue.isTrue(value) else { return false }
            peer?.replaceAllowedIPs = true
        case .allowedIP: return receiveAllowedIP(value)
        case .protocolVersion: return UAPIValue.number(value, UInt8.self) == 1
        default: return false
        }
        return true
    }

    /// `ADDRESS/LENGTH` gives the block to the peer, `-ADDRESS/LENGTH` takes it; of several lines about one block the last one counts.
    private mutating func receiveAllowedIP(_ value: RawSpan) -> Bool {
        let isRemoved = value.byteCount > 0 && value.byte(at: 0) == UInt8(ascii: "-")
        let text = UAPIValue.text(isRemoved ? value.extracting(1..<value.byteCount) : value)
        guard let text, text.utf8.contains(UInt8(ascii: "/")), let prefix = IPPrefix(text) else { return false }
        allowedIPs.append((prefix, isRemoved))
        removesAllowedIPs = removesAllowedIPs || isRemoved
        return true
    }
}

/// The keys of the protocol.
enum UAPIKey: String, CaseIterable {
    case privateKey = "private_key"
    case listenPort = "listen_port"
    case fwmark
    case replacePeers = "replace_peers"
    case publicKey = "public_key"
    case remove
    case updateOnly = "update_only"
    case presharedKey = "preshared_key"
    case endpoint
    case persistentKeepaliveInterval = "persistent_keepalive_interval"
    case replaceAllowedIPs = "replace_allowed_ips"
    case allowedIP = "allowed_ip"
    case protocolVersion = "protocol_version"
    case lastHandshakeSeconds = "last_handshake_time_sec"
    case lastHandshakeNanoseconds = "last_handshake_time_nsec"
    case receivedBytes = "rx_bytes"
    case sentBytes = "tx_bytes"
    case errno

    init?(_ name: RawSpan) {
        guard name.byteCount <= 32, let text = UAPIValue.text(name) else { return nil }
        self.init(rawValue: text)
    }
}

/// The values that are not keys.
enum UAPIValue {
    /// Printable ASCII, at most 64 characters; for values that are no secrets.
    static func text(_ bytes: RawSpan) -> String? {
        guard (1...64).contains(bytes.byteCount) else { return nil }
        var text = ""
        for index in 0..<bytes.byteCount {
            let byte = bytes.byte(at: index)
            guard (0x21...0x7E).contains(byte) else { return nil }
            text.unicodeScalars.append(Unicode.Scalar(byte))
        }
        return text
    }

    /// Decimal digits that fit.
    static func number<Number: FixedWidthInteger>(_ bytes: RawSpan, _: Number.Type) -> Number? {
        guard (1...20).contains(bytes.byteCount) else { return nil }
        var result: Number = 0
        for index in 0..<bytes.byteCount {
            let byte = bytes.byte(at: index)
            guard (0x30...0x39).contains(byte) else { return nil }
            let (product, overflow) = result.multipliedReportingOverflow(by: 10)
            let (sum, overflowed) = product.addingReportingOverflow(Number(byte - 0x30))
            guard !overflow, !overflowed else { return nil }
            result = sum
        }
        return result
    }

    static func isTrue(_ bytes: RawSpan) -> Bool { UAPI.Parser.isText(bytes, "true", count: bytes.byteCount) }
}
