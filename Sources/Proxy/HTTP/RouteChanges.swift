/// How many tunnels differ between two configurations.
package struct RouteChanges: Sendable, Equatable, CustomStringConvertible {
    package var added: [String] = []
    package var removed: [String] = []
    package var changed: [String] = []
    package var unchanged = 0

    /// - Parameters:
    ///   - old: what was configured for each domain.
    ///   - new: what is configured now.
    package init<Value: Equatable>(from old: [String: Value], to new: [String: Value]) {
        for (domain, value) in new {
            switch old[domain] {
            case nil: added.append(domain)
            case value?: unchanged += 1
            case .some: changed.append(domain)
            }
        }
        removed = old.keys.filter { new[$0] == nil }.sorted()
        added.sort()
        changed.sort()
    }

    package var description: String {
        "\(added.count) \(added.count == 1 ? "tunnel" : "tunnels") added, \(removed.count) removed, \(changed.count) changed, "
            + "\(unchanged) unchanged"
    }
}
