/// Values by domain: an exact name wins over the longest wildcard.
struct DomainMap<Value: Sendable>: Sendable {
    private var exact: [String: Value] = [:]
    /// By suffix with its leading dot.
    private var wildcards: [String: Value] = [:]

    /// Lower case, no trailing dot, `*` only as the first label; nil if that is no domain.
    static func normalized(_ domain: String) -> String? {
        let isWildcard = domain.hasPrefix("*.")
        guard let name = HostName.normalize(isWildcard ? String(domain.dropFirst(2)) : domain), !name.isEmpty else { return nil }
        return isWildcard ? "*." + name : name
    }

    /// The value of this very domain, given in normal form.
    subscript(domain: String) -> Value? {
        get { domain.hasPrefix("*.") ? wildcards[String(domain.dropFirst())] : exact[domain] }
        set { if domain.hasPrefix("*.") { wildcards[String(domain.dropFirst())] = newValue } else { exact[domain] = newValue } }
    }

    func lookUp(_ host: String) -> Value? {
        if let value = exact[host] { return value }
        guard !wildcards.isEmpty else { return nil }
        var rest = host[...]
        while let dot = rest.firstIndex(of: ".") {
            if let value = wildcards[String(rest[dot...])] { return value }
            rest = rest[rest.index(after: dot)...]
        }
        return nil
    }
}
