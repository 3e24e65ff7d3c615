import Inet

/// The addresses of one host name, and which of them its peer is tried at.
///
/// A peer stays where it is heard from as long as anything comes from there. When an initiation is answered by silence, each retry goes
/// to the name's next address, and an address that the name has no more is left at once.
package struct NameAddresses: Equatable, Sendable {
    private(set) var addresses: [SocketEndpoint] = []

    package init() {}

    /// Where the retry of a handshake goes that nobody answered at `current`; `nil` if it stays there.
    package func next(after current: SocketEndpoint?) -> SocketEndpoint? {
        guard let current, let index = addresses.firstIndex(of: current) else { return addresses.first }
        return addresses.count > 1 ? addresses[(index + 1) % addresses.count] : nil
    }

    /// Takes the answer to a look-up.
    ///
    /// - Parameters:
    ///   - found: not empty, best first.
    ///   - current: where the peer is reached now.
    ///   - isSilent: whether an initiation is unanswered, and nothing else came, now that the answer is there.
    /// - Returns: where the peer is to be tried at once; `nil` if it stays where it is.
    package mutating func update(_ found: [SocketEndpoint], current: SocketEndpoint?, isSilent: Bool) -> SocketEndpoint? {
        let isNew = Set(found) != Set(addresses)
        addresses = found
        guard let current else { return found.first }
        return isNew && isSilent && !found.contains(current) ? found.first : nil
    }
}
