import FoundationEssentials

/// What a gateway's admin socket answers about routes.
package enum RouteVerbs {
    package static let list = "routes"
    package static let add = "route-add"
    package static let remove = "route-remove"

    package static func register(on admin: AdminSocket, routes: PublishedRoutes) {
        admin.register(list) { _ in try encode(await routes.list) }
        admin.register(add) { request in
            var options = RouteOptions()
            if let text = request.arguments?["protocol"] {
                options.upstreamProtocol = try Setting(value: .text(text), origin: .builtIn, key: "protocol").upstreamProtocol()
            }
            return try encode(try await routes.add(request.arguments?["route"] ?? "", options: options))
        }
        admin.register(remove) { request in try encode(try await routes.remove(request.arguments?["domain"] ?? "")) }
    }

    private static func encode(_ answer: some Encodable) throws -> [UInt8] { Array(try JSONEncoder().encode(answer)) }
}
