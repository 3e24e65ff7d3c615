import Inet

/// Everything that is wrong with a file.
public struct WGQuickError: Error, Hashable, CustomStringConvertible {
    public var faults: [WGQuickFault]
    public var description: String { faults.map(\.description).joined(separator: "\n") }
}

/// One fault or warning, with the place and what to write instead. It never holds the value of a key line.
public struct WGQuickFault: Error, Hashable, CustomStringConvertible {
    public enum Problem: Hashable, Sendable {
        case tooLarge
        case notUTF8
        case tooManyFaults
        case noEqualsSign
        case unknownSection
        case unknownKey(section: String)
        case outsideSection
        case secondInterface(firstLine: Int)
        case noInterface
        case repeatedKey(firstLine: Int)
        case malformedKey
        case malformedValue(shown: String, expected: String)
        case peerWithoutPublicKey
        case repeatedPeer(firstLine: Int)
        /// A warning: the key has no meaning in user space.
        case notApplied
        /// A warning: the command is not run.
        case neverRun
        /// A warning: an earlier peer has the same block, and the later one gets its packets.
        case allowedIPsTaken(prefix: IPPrefix, firstLine: Int)
    }

    /// The first line is 1.
    public var line: Int
    /// In bytes; the first is 1.
    public var column: Int
    /// The key's name if it is safe to show.
    public var key: String?
    public var problem: Problem

    /// A warning that `FwMark` is not applied, which those do not need who apply it.
    public var isAboutMark: Bool { problem == .notApplied && key?.lowercased() == "fwmark" }

    /// `line:column: key: what is wrong; what to write instead`
    public var description: String { "\(line):\(column): \(message)" }

    /// The description without the place.
    public var message: String {
        let name = key.map { "\($0): " } ?? ""
        switch problem {
        case .tooLarge: return "the file is larger than \(WGQuickFile.maximumSize) bytes; a wg-quick file is a few lines of text"
        case .notUTF8: return "the line is not UTF-8 text; write the file as plain text"
        case .tooManyFaults: return "more than \(WGQuickFile.maximumFaults) faults; the rest of the file was not read"
        case .outsideSection: return name + "stands before the first section; write [Interface] or [Peer] above it"
        case .noEqualsSign: return "the line is neither a section nor \"Key = value\"; write a # before a comment"
        case .unknownSection: return "no such section; write [Interface] or [Peer]"
        case .unknownKey(let section):
            let known = section == "Peer" ? WGQuickParser.peerKeys : WGQuickParser.interfaceKeys
            return name + "no such key in [\(section)]; write one of \(known.joined(separator: ", "))"
        case .secondInterface(let first):
            return "a second [Interface] section (the first is in line \(first)); write one file for each interface"
        case .noInterface: return "there is no [Interface] section; write [Interface] with PrivateKey and Address"
        case .repeatedKey(let first): return name + "is given twice (first in line \(first)); remove one of them"
        case .malformedKey: return name + "is not a key; write the 44 characters that `wg genkey`, `wg pubkey` or `kakuremichi keys` prints"
        case .malformedValue(let shown, let expected): return name + "\(shown) is not valid; write \(expected)"
        case .peerWithoutPublicKey: return "a [Peer] without PublicKey; write PublicKey = the peer's public key"
        case .repeatedPeer(let first): return name + "the same peer as in line \(first); join the two [Peer] sections"
        case .notApplied: return name + "does not apply in user space and is ignored"
        case .neverRun: return name + "is ignored: commands are never run"
        case .allowedIPsTaken(let prefix, let first):
            return name + "\(prefix) is also given to the peer of line \(first); packets to it go to the later peer"
        }
    }
}
