import Noise

/// Why a case of a Noise file cannot be run here.
extension NoiseCase {
    /// The first part of the protocol's name that is not known or supported here; `nil` if all are.
    package static func skipReason(_ protocolName: String) -> String? {
        // Before it is split: a file decides how long it is.
        guard protocolName.utf8.count <= 255 else { return "protocol name longer than 255 bytes" }
        guard !protocolName.hasSuffix(":SSK") else { return secondaryKey }
        let parts = protocolName.split(separator: "_", omittingEmptySubsequences: false)
        guard parts[0] == "Noise" else { return "protocol name begins with \(Shown.cut(parts[0])), not with Noise" }
        guard parts.count == 5 else { return "protocol name of \(parts.count) parts, not 5" }
        if let reason = skipReason(ofPattern: parts[1]) { return reason }
        guard parts[2] == "25519" else { return "DH \(Shown.cut(parts[2])) is not supported" }
        guard let cipher = CipherFunction(rawValue: String(parts[3])) else { return "cipher \(Shown.cut(parts[3])) is not known" }
        guard cipher.isAvailable else { return "cipher \(cipher.rawValue) is not there in libcrypto" }
        guard HashFunction(rawValue: String(parts[4])) != nil else { return "hash \(Shown.cut(parts[4])) is not known" }
        return nil
    }

    /// noise-c once had vectors with a second symmetric key that is mixed in at the end; no revision of Noise has it.
    static let secondaryKey = "SSK, an extension of noise-c, is not supported"
    static let fallback = "modifier fallback is not supported"

    private static func skipReason(ofPattern name: Substring) -> String? {
        guard HandshakePattern(String(name)) == nil else { return nil }
        let base = name.prefix { !$0.isLowercase }
        guard HandshakePattern(String(base)) != nil else { return "pattern \(Shown.cut(base)) is not known" }
        var before: [Substring] = []
        for modifier in name[base.endIndex...].split(separator: "+", omittingEmptySubsequences: false) {
            before.append(modifier)
            guard HandshakePattern(base + before.joined(separator: "+")) == nil else { continue }
            guard modifier.hasPrefix("psk") else { return "modifier \(Shown.cut(modifier)) is not supported" }
            return "modifier \(Shown.cut(modifier)) is not one of pattern \(Shown.cut(base))"
        }
        return "pattern \(Shown.cut(name)) is not known"
    }
}
