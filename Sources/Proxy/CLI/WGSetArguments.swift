import Inet
import Noise
import WGUserspace

/// The words behind `wg set NAME`.
///
/// Source: wg(8), "set".
package struct WGSetArguments {
    /// Reads a file that holds a key.
    package var readFile: (String) throws -> [UInt8]
    /// Finds the address of `HOST:PORT`.
    package var resolve: (WGQuickFile.Endpoint) throws -> SocketEndpoint

    package init(
        readFile: @escaping (String) throws -> [UInt8], resolve: @escaping (WGQuickFile.Endpoint) throws -> SocketEndpoint
    ) {
        self.readFile = readFile
        self.resolve = resolve
    }

    package func parse(_ words: [String]) throws -> UAPI.SetRequest {
        var request = UAPI.SetRequest()
        var peer: PeerChange?
        var rest = words[...]
        func finishPeer() {
            if let peer { request.peers.append(peer) }
        }
        while let word = rest.popFirst() {
            if word == "peer" {
                finishPeer()
                let text = try value(of: word, &rest)
                guard let key = PublicKey(base64: text) else { throw fault(word, text, "the 44 characters of a public key") }
                peer = PeerChange(publicKey: key)
            } else if peer == nil {
                try interface(word, &rest, &request)
            } else if word == "remove" {
                peer?.remove = true
            } else {
                let text = try value(of: word, &rest)
                try change(word, text, &peer)
            }
        }
        finishPeer()
        return request
    }

    private func interface(_ word: String, _ rest: inout ArraySlice<String>, _ request: inout UAPI.SetRequest) throws {
        let text = try value(of: word, &rest)
        switch word {
        case "listen-port":
            guard let port = UInt16(text) else { throw fault(word, text, "0 to 65535") }
            request.listenPort = port
        case "fwmark":
            guard let mark = WGQuickFile.mark(text) else { throw fault(word, text, "a number, also as 0x…, or off") }
            request.fwmark = mark
        case "private-key":
            let bytes = try readFile(text)
            if KeyFiles.trimmed(String(decoding: bytes, as: UTF8.self)).isEmpty {
                request.privateKey = .remove
            } else {
                guard let key = PrivateKey(base64: KeyFiles.trimmed(String(decoding: bytes, as: UTF8.self))) else {
                    throw CommandFailure("\(LogText.escape(text)) does not hold a private key; \(KeyFiles.advice)")
                }
                request.privateKey = key.isZero ? .remove : .set(StoredPrivateKey(key))
            }
        default: throw unknown(word)
        }
    }

    private func change(_ word: String, _ text: String, _ peer: inout PeerChange?) throws {
        switch word {
        case "endpoint":
            guard let endpoint = WGQuickFile.Endpoint(text) else { throw fault(word, text, "HOST:PORT") }
            peer?.endpoint = try resolve(endpoint)
        case "persistent-keepalive":
            guard let seconds = text.lowercased() == "off" ? 0 : UInt16(text) else { throw fault(word, text, "0 to 65535 seconds, or off") }
            peer?.persistentKeepalive = .seconds(Int(seconds))
        case "preshared-key":
            let bytes = try readFile(text)
            let trimmed = KeyFiles.trimmed(String(decoding: bytes, as: UTF8.self))
            guard let key = trimmed.isEmpty ? PresharedKey.zero() : PresharedKey(base64: trimmed) else {
                throw CommandFailure("\(LogText.escape(text)) does not hold a preshared key; write what wg genpsk prints")
            }
            peer?.presharedKey = StoredPresharedKey(key)
        case "allowed-ips": try allowedIPs(text, &peer)
        default: throw unknown(word)
        }
    }

    /// `A/L,B/L`: these and no others. `+A/L,-B/L`: the ones more, the others less.
    private func allowedIPs(_ text: String, _ peer: inout PeerChange?) throws {
        let parts = text.split(separator: ",").map { $0.filter { $0 != " " } }
        let isIncremental = !parts.isEmpty && parts.allSatisfy { $0.hasPrefix("+") || $0.hasPrefix("-") }
        if !isIncremental { peer?.replaceAllowedIPs = true }
        for part in parts {
            guard let prefix = IPPrefix(isIncremental ? String(part.dropFirst()) : part) else {
                throw fault("allowed-ips", part, "ADDRESS/LENGTH, several with commas")
            }
            if part.hasPrefix("-") { peer?.removedAllowedIPs.append(prefix) } else { peer?.addedAllowedIPs.append(prefix) }
        }
    }

    private func value(of word: String, _ rest: inout ArraySlice<String>) throws -> String {
        guard let value = rest.popFirst() else { throw CommandFailure("there is nothing behind \(LogText.escape(word, limit: 100))") }
        return value
    }

    private func fault(_ word: String, _ text: String, _ expected: String) -> CommandFailure {
        CommandFailure("\(word): \"\(LogText.escape(text, limit: 100))\" is not valid; write \(expected)")
    }

    private func unknown(_ word: String) -> CommandFailure {
        CommandFailure(
            "\"\(LogText.escape(word, limit: 100))\" is not understood; write listen-port, fwmark, private-key, or peer KEY and then remove, preshared-key, endpoint, persistent-keepalive, allowed-ips"
        )
    }
}

extension UAPI.SetRequest {
    /// What makes an interface be as `file` says.
    package enum Manner {
        /// `setconf`: whatever the file does not mention goes.
        case replace
        /// `addconf`: what the file mentions, and nothing else.
        case add
        /// `syncconf`: like `replace`, but what is the same already is not touched.
        case synchronize(UAPI.State)
    }

    package init(_ file: WGQuickFile, _ manner: Manner, resolve: (WGQuickFile.Endpoint) throws -> SocketEndpoint) throws {
        self.init()
        privateKey = file.privateKey.map { $0.key.isZero ? .remove : .set($0) }
        listenPort = file.listenPort
        fwmark = file.fwmark
        peers = try file.peers.map { peer in
            PeerChange(
                publicKey: peer.publicKey, presharedKey: peer.presharedKey, endpoint: try peer.endpoint.map(resolve),
                persistentKeepalive: peer.persistentKeepalive, replaceAllowedIPs: true, addedAllowedIPs: peer.allowedIPs)
        }
        switch manner {
        case .add: break
        case .replace:
            if privateKey == nil { privateKey = .remove }
            if listenPort == nil { listenPort = 0 }
            fwmark = fwmark ?? 0
            replacePeers = true
        case .synchronize(let state):
            if privateKey == nil { privateKey = .remove }
            if listenPort == nil, state.listenPort != 0 { listenPort = 0 }
            if fwmark ?? 0 == state.fwmark { fwmark = nil } else { fwmark = fwmark ?? 0 }
            synchronize(with: state)
        }
    }

    private mutating func synchronize(with state: UAPI.State) {
        let wanted = Dictionary(peers.map { ($0.publicKey, $0) }, uniquingKeysWith: { $1 })
        var changes: [PeerChange] = []
        var known: Set<PublicKey> = []
        for old in state.peers {
            known.insert(old.publicKey)
            guard var new = wanted[old.publicKey] else {
                changes.append(PeerChange(publicKey: old.publicKey, remove: true))
                continue
            }
            // What the file leaves out is as it would be with a new peer; only where it is stays, as nobody else knows.
            new.persistentKeepalive = new.persistentKeepalive ?? .zero
            new.presharedKey = new.presharedKey ?? StoredPresharedKey(.zero())
            if Set(new.addedAllowedIPs) == Set(old.allowedIPs) {
                new.replaceAllowedIPs = false
                new.addedAllowedIPs = []
            }
            changes.append(new)
        }
        peers = changes + peers.filter { !known.contains($0.publicKey) }
    }
}
