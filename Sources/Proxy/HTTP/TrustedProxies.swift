import Inet

/// Proxies in front of a gateway, whose word on who the client is counts.
package struct TrustedProxies: Sendable, Equatable {
    private let prefixes: [IPPrefix]

    package init(_ prefixes: [IPPrefix] = []) {
        self.prefixes = prefixes.map { prefix in
            let address = prefix.address.unmapped
            guard address.family != prefix.address.family, prefix.length >= 96 else { return prefix }
            return IPPrefix(address, length: prefix.length - 96) ?? prefix
        }
    }

    /// - Parameter address: an IPv4-mapped one is taken for the IPv4 address that it holds.
    package func contains(_ address: IPAddress) -> Bool {
        guard !prefixes.isEmpty else { return false }
        let address = address.unmapped
        return prefixes.contains { $0.contains(address) }
    }
}
