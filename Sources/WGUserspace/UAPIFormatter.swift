import Inet
import Noise

extension UAPI {
    /// Text that holds keys: wiped when it goes.
    public struct Text: ~Copyable, Sendable {
        private let buffer: SecretBytes
        /// In bytes.
        public let count: Int

        fileprivate init(_ writer: consuming TextWriter) {
            count = writer.count
            buffer = writer.buffer.copy()
        }

        /// Calls `body` with the text; it is valid only during the call. Wiping copies is the caller's business.
        public func withBytes<Result: ~Copyable, Failure: Error>(_ body: (RawSpan) throws(Failure) -> Result) throws(Failure) -> Result {
            let count = count
            return try buffer.withBytes { bytes throws(Failure) in try body(bytes.extracting(0..<count)) }
        }
    }

    /// The answer to a `set=1`, and the end of the answer to a `get=1`.
    /// - Parameter fault: `nil` for success.
    public static func status(_ fault: Fault?) -> String { "errno=\(fault.map { -Int64($0.errno.magnitude) } ?? 0)\n\n" }
}

extension UAPI.State {
    /// The whole answer to `get=1`, `errno=0` included, with the keys in the order of wireguard-go.
    public func text() -> UAPI.Text {
        var writer = TextWriter(capacity: 256 + peers.reduce(0) { $0 + 640 + 64 * $1.allowedIPs.count })
        if let privateKey { writer.secret(.privateKey) { privateKey.key.writeHex(into: &$0, at: $1) } }
        if listenPort != 0 { writer.line(.listenPort, "\(listenPort)") }
        if fwmark != 0 { writer.line(.fwmark, "\(fwmark)") }
        for peer in peers {
            writer.secret(.publicKey) { peer.publicKey.writeHex(into: &$0, at: $1) }
            if let presharedKey = peer.presharedKey {
                writer.secret(.presharedKey) { presharedKey.key.writeHex(into: &$0, at: $1) }
            } else {
                writer.line(.presharedKey, String(repeating: "0", count: 64))
            }
            writer.line(.protocolVersion, "1")
            if let endpoint = peer.endpoint { writer.line(.endpoint, endpoint.description) }
            writer.line(.lastHandshakeSeconds, "\(peer.lastHandshake?.seconds ?? 0)")
            writer.line(.lastHandshakeNanoseconds, "\(peer.lastHandshake?.nanoseconds ?? 0)")
            writer.line(.sentBytes, "\(peer.sentBytes)")
            writer.line(.receivedBytes, "\(peer.receivedBytes)")
            writer.line(.persistentKeepaliveInterval, "\(UAPI.seconds(peer.persistentKeepalive))")
            for prefix in peer.allowedIPs { writer.line(.allowedIP, prefix.description) }
        }
        writer.text(UAPI.status(nil))
        return UAPI.Text(writer)
    }
}

extension UAPI.SetRequest {
    /// The whole request, `set=1` and the blank line included.
    public func text() -> UAPI.Text {
        var writer = TextWriter(
            capacity: 256 + peers.reduce(0) { $0 + 448 + 64 * ($1.addedAllowedIPs.count + $1.removedAllowedIPs.count) })
        writer.text("set=1\n")
        switch privateKey {
        case .set(let new): writer.secret(.privateKey) { new.key.writeHex(into: &$0, at: $1) }
        case .remove: writer.line(.privateKey, String(repeating: "0", count: 64))
        case nil: break
        }
        if let listenPort { writer.line(.listenPort, "\(listenPort)") }
        if let fwmark { writer.line(.fwmark, "\(fwmark)") }
        if replacePeers { writer.line(.replacePeers, "true") }
        for peer in peers {
            writer.secret(.publicKey) { peer.publicKey.writeHex(into: &$0, at: $1) }
            if peer.remove { writer.line(.remove, "true") }
            if peer.updateOnly { writer.line(.updateOnly, "true") }
            if let presharedKey = peer.presharedKey { writer.secret(.presharedKey) { presharedKey.key.writeHex(into: &$0, at: $1) } }
            if let endpoint = peer.endpoint { writer.line(.endpoint, endpoint.description) }
            if let interval = peer.persistentKeepalive { writer.line(.persistentKeepaliveInterval, "\(UAPI.seconds(interval))") }
            if peer.replaceAllowedIPs { writer.line(.replaceAllowedIPs, "true") }
            for prefix in peer.addedAllowedIPs { writer.line(.allowedIP, prefix.description) }
            for prefix in peer.removedAllowedIPs { writer.line(.allowedIP, "-\(prefix)") }
        }
        writer.text("\n")
        return UAPI.Text(writer)
    }
}

extension UAPI {
    /// The interval as the protocol writes it, 0 to 65,535.
    static func seconds(_ interval: Duration?) -> Int64 { min(max(interval?.components.seconds ?? 0, 0), 65_535) }
}

/// Appends to a buffer that is large enough from the start: one that grew would leave keys behind.
private struct TextWriter: ~Copyable {
    var buffer: SecretBytes
    var count = 0

    init(capacity: Int) { buffer = SecretBytes(count: capacity) }

    mutating func line(_ key: UAPIKey, _ value: String) {
        text(key.rawValue)
        text("=")
        text(value)
        text("\n")
    }

    /// A line whose value of 64 bytes `write` puts at the offset that it is given.
    mutating func secret(_ key: UAPIKey, _ write: (inout MutableRawSpan, Int) -> Void) {
        text(key.rawValue)
        text("=")
        let offset = count
        buffer.withMutableBytes { write(&$0, offset) }
        count += 64
        text("\n")
    }

    mutating func text(_ text: String) {
        let offset = count
        // A byte has no padding that could be read.
        let bytes = unsafe text.utf8Span.span.bytes
        buffer.withMutableBytes { $0.copy(bytes, at: offset) }
        count += bytes.byteCount
    }
}
