import NIOCore

/// What a request's host leads to, with the last one remembered: a client seldom asks for a second one on its connection.
final class HostCache {
    private let router: any RequestRouter
    private let coverage: (any HostCoverage)?
    private var field: [UInt8] = []
    private var name: String?
    private var covered: String?

    init(router: any RequestRouter, coverage: (any HostCoverage)?) {
        self.router = router
        self.coverage = coverage
    }

    func resolve(_ request: CheckedRequest) -> HostResolution {
        let isSame = request.section.withBytes(request.authority) { name != nil && $0.elementsEqual(field) }
        if !isSame {
            name = HostName.normalize(request.authorityText)
            field = request.section.withBytes(request.authority) { Array($0) }
        }
        guard let name else { return .invalid }
        let resolution = router.resolve(host: name)
        if let coverage, covered != name {
            switch resolution {
            case .route, .disabled:
                guard coverage.covers(name) else { return .misdirected }
                covered = name
            case .redirect, .unknown: break
            }
        }
        return .resolved(name: name, resolution)
    }
}

/// What became of a request's host.
enum HostResolution {
    case invalid
    /// The connection's certificate does not cover it.
    case misdirected
    case resolved(name: String, RouteResolution)

    var name: String {
        switch self {
        case .invalid, .misdirected: ""
        case .resolved(let name, _): name
        }
    }
}
