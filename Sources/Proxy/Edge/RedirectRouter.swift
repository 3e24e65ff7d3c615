/// The plain HTTP port: everything that has a tunnel is redirected to HTTPS.
package struct RedirectRouter: RequestRouter {
    private let router: Router
    private let suffix: String

    /// - Parameter publicHTTPSPort: as clients see it, which is not the bound one if a port is mapped.
    package init(router: Router, publicHTTPSPort: UInt16) {
        self.router = router
        suffix = publicHTTPSPort == 443 ? "" : ":\(publicHTTPSPort)"
    }

    package func resolve(host: String) -> RouteResolution {
        router.snapshot.knows(host: host) ? .redirect(origin: "https://\(host)\(suffix)") : .unknown
    }
}
