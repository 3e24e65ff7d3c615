/// What one event loop has seen of HTTP. Touched on that loop only.
final class HTTPCounters {
    enum Connection: Int, CaseIterable { case http1, http2 }
    enum Refusal: Int, CaseIterable { case headerTimeout, bodyTooSlow, clientRequests, malformed }

    private(set) var open = [Int](repeating: 0, count: Connection.allCases.count)
    private(set) var streams = 0
    private(set) var upgrades = 0
    private(set) var refusals = [Int](repeating: 0, count: Refusal.allCases.count)

    func connectionOpened(_ kind: Connection) { open[kind.rawValue] += 1 }
    func connectionClosed(_ kind: Connection) { open[kind.rawValue] -= 1 }
    func connectionUpgraded() { upgrades += 1 }
    func streamOpened() { streams += 1 }
    func streamClosed() { streams -= 1 }
    func refused(_ refusal: Refusal) { refusals[refusal.rawValue] += 1 }
}
