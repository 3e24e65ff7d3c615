import Inet
import Noise

/// What a wg-quick `.conf` file says, as far as it means something in user space.
///
/// Reading is all or nothing, and every fault of the file is reported at once. Keys and values that `wg-quick` knows but a user-space
/// interface has no use for become warnings; commands (`PostUp` and the like) are never run.
///
/// Source: wg(8) "CONFIGURATION FILE FORMAT", wg-quick(8) "CONFIGURATION".
public struct WGQuickFile: Sendable {
    /// One `Address`: the interface's own address and the block it lies in.
    public struct Address: Hashable, Sendable, CustomStringConvertible {
        public let address: IPAddress
        public let prefix: IPPrefix

        /// Parses `10.1.0.2/24`; without a length the block is the address alone.
        public init?(_ text: String) {
            let host = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).first ?? ""
            guard let prefix = IPPrefix(text), let address = IPAddress(String(host)), address.isUnicastInsideTunnel else { return nil }
            self.address = address
            self.prefix = prefix
        }

        public var description: String { "\(address)/\(prefix.length)" }
    }

    /// Where a peer is reached. A name is resolved by whoever opens the socket, and again when a handshake goes unanswered.
    public enum Endpoint: Hashable, Sendable, CustomStringConvertible {
        case address(SocketEndpoint)
        case name(String, port: UInt16)

        /// Parses `192.0.2.1:51820`, `[2001:db8::1]:51820` or `vpn.example.com:51820`. Port 0 is refused.
        public init?(_ text: String) {
            if let endpoint = SocketEndpoint(text) {
                guard endpoint.port > 0, !endpoint.address.isUnspecified else { return nil }
                self = .address(endpoint)
                return
            }
            guard let colon = text.lastIndex(of: ":") else { return nil }
            let host = text[..<colon].utf8
            guard let port = WGQuickParser.integer(text[text.index(after: colon)...], in: 1...65535), (1...253).contains(host.count),
                host.allSatisfy({ isLetterOrDigit($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x5F }), host.contains(where: { isLetter($0) })
            else { return nil }
            self = .name(String(text[..<colon]), port: UInt16(port))
        }

        public var description: String {
            switch self {
            case .address(let endpoint): endpoint.description
            case .name(let host, let port): "\(host):\(port)"
            }
        }
    }

    /// One `[Peer]` section.
    public struct Peer: Sendable {
        public var publicKey: PublicKey
        public var presharedKey: StoredPresharedKey?
        public var allowedIPs: [IPPrefix]
        public var endpoint: Endpoint?
        /// `nil` if the file does not say; zero is `off`.
        public var persistentKeepalive: Duration?
        /// Where the section begins; the first line is 1.
        public var line: Int

        public init(
            publicKey: PublicKey, presharedKey: StoredPresharedKey? = nil, allowedIPs: [IPPrefix], endpoint: Endpoint? = nil,
            persistentKeepalive: Duration? = nil, line: Int = 1
        ) {
            self.publicKey = publicKey
            self.presharedKey = presharedKey
            self.allowedIPs = allowedIPs
            self.endpoint = endpoint
            self.persistentKeepalive = persistentKeepalive
            self.line = line
        }
    }

    public var privateKey: StoredPrivateKey?
    public var addresses: [Address] = []
    /// The UDP port; `nil` or 0 lets the system choose.
    public var listenPort: UInt16?
    /// Bytes of an inner packet.
    public var mtu: Int?
    /// The mark that firewalls and routing rules see (SO_MARK); 0 is none. Only `wg setconf` and its like apply it.
    public var fwmark: UInt32?
    public var peers: [Peer] = []
    /// What was read and has no effect, each key once.
    public var warnings: [WGQuickFault] = []
    /// Where `[Interface]` begins; the first line is 1.
    public var interfaceLine = 1

    /// `off` is 0; decimal, or hexadecimal behind `0x`.
    public static func mark(_ text: String) -> UInt32? {
        if text.lowercased() == "off" { return 0 }
        return text.hasPrefix("0x") ? UInt32(text.dropFirst(2), radix: 16) : UInt32(text)
    }

    /// The largest file that is read, in bytes: about 100,000 peers.
    public static let maximumSize = 16 << 20
    /// Inner packets smaller than this cannot carry what every IPv4 host must accept (RFC 791 §3.1).
    public static let mtuRange = 576...9200
    /// Reading stops after this many faults.
    public static let maximumFaults = 100

    /// Reads a whole file.
    /// - Parameter bytes: UTF-8 text, at most `maximumSize` bytes.
    /// - Throws: every fault found, in the order of the file.
    public init(_ bytes: RawSpan) throws(WGQuickError) {
        var parser = WGQuickParser()
        parser.parse(bytes)
        guard parser.faults.isEmpty else { throw WGQuickError(faults: parser.faults) }
        self = parser.file
    }

    init() {}
}

/// A private key that several configurations may refer to; wiped with the last reference.
public final class StoredPrivateKey: Sendable {
    public let key: PrivateKey
    public init(_ key: consuming PrivateKey) { self.key = key }
}

/// A preshared key that several configurations may refer to; wiped with the last reference.
public final class StoredPresharedKey: Sendable {
    public let key: PresharedKey
    public init(_ key: consuming PresharedKey) { self.key = key }
}

struct WGQuickParser {
    static let interfaceKeys = ["PrivateKey", "Address", "ListenPort", "MTU"]
    static let peerKeys = ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"]
    static let keysWithoutEffect = ["dns", "table", "saveconfig"]
    static let commands = ["preup", "postup", "predown", "postdown"]

    enum Section { case none, interface, peer, unknown }

    struct Line {
        var number: Int
        var column: Int
        var name: String?
    }

    var file = WGQuickFile()
    var faults: [WGQuickFault] = []
    var section = Section.none
    var sectionLine = 0
    var hasInterface = false
    var isStopped = false
    /// The lines of the single-valued keys of this section.
    var seen: [String: Int] = [:]
    var peer = PartialPeer()
    var warned: Set<String> = []
    /// The line of the `[Peer]` that has the key or the block.
    var peerLines: [PublicKey: Int] = [:]
    var prefixLines: [IPPrefix: Int] = [:]
    var knownAddresses: Set<WGQuickFile.Address> = []

    struct PartialPeer {
        var publicKey: PublicKey?
        var presharedKey: StoredPresharedKey?
        var allowedIPs: [IPPrefix] = []
        var endpoint: WGQuickFile.Endpoint?
        var persistentKeepalive: Duration?
    }

    mutating func parse(_ bytes: RawSpan) {
        guard bytes.byteCount <= WGQuickFile.maximumSize else { return fault(.tooLarge, at: Line(number: 1, column: 1)) }
        var number = 1
        var start = hasByteOrderMark(bytes) ? 3 : 0
        while start <= bytes.byteCount, !isStopped {
            var end = start
            while end < bytes.byteCount, bytes.byte(at: end) != UInt8(ascii: "\n") { end += 1 }
            var line: [UInt8] = []
            line.reserveCapacity(end - start)
            for index in start..<end { line.append(bytes.byte(at: index)) }
            parse(line: line[...], number: number)
            number += 1
            start = end + 1
        }
        finishSection()
        if !hasInterface, faults.isEmpty { fault(.noInterface, at: Line(number: 1, column: 1)) }
    }

    private mutating func parse(line: ArraySlice<UInt8>, number: Int) {
        let content = trimmed(line.prefix { $0 != UInt8(ascii: "#") })
        guard let first = content.first else { return }
        var place = Line(number: number, column: content.startIndex + 1)
        guard String(validating: content, as: UTF8.self) != nil else { return fault(.notUTF8, at: place) }
        if first == UInt8(ascii: "[") { return begin(section: lowercased(content), at: place) }
        guard let equals = content.firstIndex(of: UInt8(ascii: "=")) else {
            if section != .unknown { fault(section == .none ? .outsideSection : .noEqualsSign, at: place) }
            if section == .none { section = .unknown }
            return
        }
        let name = trimmed(content[..<equals])
        let value = trimmed(content[(equals + 1)...])
        // A key pasted alone on a line ends in "=": what is not a plain word is never shown.
        place.name = (1...24).contains(name.count) && name.allSatisfy(isLetter) ? string(name) : nil
        let key = lowercased(name)
        switch section {
        case .none:
            // Once for all lines up to the first section.
            section = .unknown
            fault(.outsideSection, at: place)
        case .unknown: break
        case .interface: interface(key, value, place)
        case .peer: peer(key, value, place)
        }
    }

    private mutating func begin(section name: String, at place: Line) {
        finishSection()
        seen = [:]
        sectionLine = place.number
        switch name {
        case "[interface]":
            section = .interface
            if hasInterface { return fault(.secondInterface(firstLine: file.interfaceLine), at: place) }
            hasInterface = true
            file.interfaceLine = place.number
        case "[peer]":
            section = .peer
            peer = PartialPeer()
        default:
            section = .unknown
            fault(.unknownSection, at: place)
        }
    }

    private mutating func interface(_ key: String, _ value: ArraySlice<UInt8>, _ place: Line) {
        var place = place
        if Self.keysWithoutEffect.contains(key) { return warn(.notApplied, key, at: place) }
        if Self.commands.contains(key) { return warn(.neverRun, key, at: place) }
        guard key == "address" || isFirst(key, at: place) else { return }
        switch key {
        case "privatekey":
            guard let decoded = PrivateKey(base64: string(value)) else { return fault(.malformedKey, at: place) }
            file.privateKey = StoredPrivateKey(decoded)
        case "address":
            for (text, column) in list(value) {
                place.column = column
                if let address = WGQuickFile.Address(text) {
                    if knownAddresses.insert(address).inserted { file.addresses.append(address) }
                } else {
                    malformed(text, "an address with its prefix length, such as 10.1.0.2/24 or fd00::2/64", at: place)
                }
            }
        case "listenport":
            if let port = number(value, in: 0...65535, at: place) { file.listenPort = UInt16(port) }
        case "mtu": file.mtu = number(value, in: WGQuickFile.mtuRange, at: place)
        case "fwmark":
            file.fwmark = WGQuickFile.mark(string(value))
            if file.fwmark == nil { malformed(string(value), "a number, also as 0x…, or off", at: place) }
            // Whoever can set it says so for itself: it needs a privilege.
            warn(.notApplied, key, at: place)
        default: fault(.unknownKey(section: "Interface"), at: place)
        }
    }

    private mutating func peer(_ key: String, _ value: ArraySlice<UInt8>, _ place: Line) {
        var place = place
        guard key == "allowedips" || isFirst(key, at: place) else { return }
        switch key {
        case "publickey":
            guard let publicKey = PublicKey(base64: string(value)) else { return fault(.malformedKey, at: place) }
            peer.publicKey = publicKey
            if let first = peerLines.updateValue(sectionLine, forKey: publicKey) { fault(.repeatedPeer(firstLine: first), at: place) }
        case "presharedkey":
            guard let decoded = PresharedKey(base64: string(value)) else { return fault(.malformedKey, at: place) }
            peer.presharedKey = StoredPresharedKey(decoded)
        case "allowedips":
            for (text, column) in list(value) {
                place.column = column
                guard let prefix = IPPrefix(text) else {
                    malformed(text, "an address block, such as 10.1.0.0/24 or fd00::/64", at: place)
                    continue
                }
                let first = prefixLines.updateValue(sectionLine, forKey: prefix)
                if first != sectionLine { peer.allowedIPs.append(prefix) }
                if let first, first != sectionLine { append(warning: .allowedIPsTaken(prefix: prefix, firstLine: first), at: place) }
            }
        case "endpoint":
            peer.endpoint = WGQuickFile.Endpoint(string(value))
            if peer.endpoint == nil {
                malformed(string(value), "HOST:PORT, such as vpn.example.com:51820 or [2001:db8::1]:51820", at: place)
            }
        case "persistentkeepalive":
            let isOff = lowercased(value) == "off"
            let seconds = isOff ? 0 : number(value, in: 0...65535, orElse: "seconds from 1 to 65535, or off", at: place)
            if let seconds { peer.persistentKeepalive = .seconds(seconds) }
        default: fault(.unknownKey(section: "Peer"), at: place)
        }
    }

    private mutating func finishSection() {
        guard section == .peer else { return }
        section = .none
        guard let publicKey = peer.publicKey else {
            if seen["publickey"] == nil { fault(.peerWithoutPublicKey, at: Line(number: sectionLine, column: 1)) }
            return
        }
        file.peers.append(
            WGQuickFile.Peer(
                publicKey: publicKey, presharedKey: peer.presharedKey, allowedIPs: peer.allowedIPs, endpoint: peer.endpoint,
                persistentKeepalive: peer.persistentKeepalive, line: sectionLine))
    }

    private mutating func isFirst(_ key: String, at place: Line) -> Bool {
        if let first = seen[key] {
            fault(.repeatedKey(firstLine: first), at: place)
            return false
        }
        seen[key] = place.number
        return true
    }

    private mutating func number(
        _ value: ArraySlice<UInt8>, in range: ClosedRange<Int>, orElse expected: String? = nil, at place: Line
    ) -> Int? {
        if let result = Self.integer(Substring(string(value)), in: range) { return result }
        malformed(string(value), expected ?? "an integer from \(range.lowerBound) to \(range.upperBound)", at: place)
        return nil
    }

    private mutating func malformed(_ text: String, _ expected: String, at place: Line) {
        // Whatever could be a key, put in the wrong line by mistake, stays out of the message.
        let mayShow = text.utf8.count <= 40 && text.utf8.allSatisfy { (0x20..<0x7F).contains($0) }
        fault(.malformedValue(shown: mayShow ? "\"\(text)\"" : "the value", expected: expected), at: place)
    }

    private mutating func fault(_ problem: WGQuickFault.Problem, at place: Line) {
        guard !isStopped else { return }
        isStopped = faults.count >= WGQuickFile.maximumFaults
        faults.append(
            WGQuickFault(line: place.number, column: place.column, key: place.name, problem: isStopped ? .tooManyFaults : problem))
    }

    private mutating func warn(_ problem: WGQuickFault.Problem, _ key: String, at place: Line) {
        if warned.insert(key).inserted { append(warning: problem, at: place) }
    }

    private mutating func append(warning: WGQuickFault.Problem, at place: Line) {
        guard file.warnings.count < WGQuickFile.maximumFaults else { return }
        file.warnings.append(WGQuickFault(line: place.number, column: place.column, key: place.name, problem: warning))
    }

    /// The parts between commas with the column of each. An empty value is an empty list, as for `wg`.
    private func list(_ value: ArraySlice<UInt8>) -> [(text: String, column: Int)] {
        if value.isEmpty { return [] }
        return value.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false).map {
            let part = trimmed($0)
            return (string(part), part.startIndex + 1)
        }
    }

    /// Decimal digits only; `nil` outside the range.
    static func integer(_ text: Substring, in range: ClosedRange<Int>) -> Int? {
        guard (1...9).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let value = Int(text) else {
            return nil
        }
        return range.contains(value) ? value : nil
    }

    private func hasByteOrderMark(_ bytes: RawSpan) -> Bool {
        bytes.byteCount >= 3 && bytes.byte(at: 0) == 0xEF && bytes.byte(at: 1) == 0xBB && bytes.byte(at: 2) == 0xBF
    }

    private func trimmed(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        guard let first = bytes.firstIndex(where: { !isBlank($0) }), let last = bytes.lastIndex(where: { !isBlank($0) }) else {
            return bytes[bytes.startIndex..<bytes.startIndex]
        }
        return bytes[first...last]
    }

    private func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
    private func string(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }
    private func lowercased(_ bytes: ArraySlice<UInt8>) -> String {
        String(decoding: bytes.map { (0x41...0x5A).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
    }
}

private func isLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte | 0x20) }
private func isLetterOrDigit(_ byte: UInt8) -> Bool { isLetter(byte) || (0x30...0x39).contains(byte) }
