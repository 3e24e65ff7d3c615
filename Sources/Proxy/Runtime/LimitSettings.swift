import NIOCore

/// What `[limits]` says.
package struct LimitSettings: Sendable, Equatable {
    package var proxy: ProxyLimits
    /// Connections of all clients at once; nil is as many as there is room for. Of a gateway.
    package var connections: Int?
    /// Connections of one IPv4 address or IPv6 /64. Of a gateway.
    package var connectionsPerClient: Int?

    package init(proxy: ProxyLimits, connections: Int? = nil, connectionsPerClient: Int? = nil) {
        self.proxy = proxy
        self.connections = connections
        self.connectionsPerClient = connectionsPerClient
    }
}

extension ConfigurationReader {
    /// A key of `[limits]` and what it does with its value.
    private struct LimitKey {
        typealias Apply = (inout LimitSettings, Setting) throws(ConfigurationFault) -> Void
        let name: String
        let apply: Apply

        init(_ name: String, _ apply: @escaping Apply) {
            self.name = name
            self.apply = apply
        }

        static func duration(_ name: String, _ path: WritableKeyPath<ProxyLimits, TimeAmount>, _ range: ClosedRange<TimeAmount>) -> LimitKey
        {
            LimitKey(name) { limits, setting throws(ConfigurationFault) in
                limits.proxy[keyPath: path] = try setting.duration(in: range)
            }
        }

        static func count(_ name: String, _ path: WritableKeyPath<ProxyLimits, Int>, _ range: ClosedRange<Int>) -> LimitKey {
            LimitKey(name) { limits, setting throws(ConfigurationFault) in
                limits.proxy[keyPath: path] = try setting.integer(in: range)
            }
        }

        static func size(_ name: String, _ path: WritableKeyPath<ProxyLimits, Int>, _ range: ClosedRange<Int>) -> LimitKey {
            LimitKey(name) { limits, setting throws(ConfigurationFault) in
                limits.proxy[keyPath: path] = try setting.size(in: range)
            }
        }

        /// `"off"` is no limit.
        static func bound(_ name: String, _ path: WritableKeyPath<ProxyLimits, Int>, _ range: ClosedRange<Int>) -> LimitKey {
            LimitKey(name) { limits, setting throws(ConfigurationFault) in
                limits.proxy[keyPath: path] = setting.isOff ? .max : try setting.integer(in: range)
            }
        }
    }

    /// - Parameter standard: of the role, where the table says nothing.
    mutating func limits(_ standard: ProxyLimits) -> LimitSettings {
        var result = LimitSettings(proxy: standard)
        guard let entry = document.entry("limits") else { return result }
        guard case .table(let table) = entry.value.kind else {
            fault(ConfigurationFault(.file(documentPath ?? "", entry.keyPosition), key: "limits", "not a table", fix: "write [limits]"))
            return result
        }
        let keys = Self.limitKeys + (role == .gateway ? Self.gatewayLimitKeys : [])
        refuseUnknownKeys(of: table, known: keys.map(\.name), section: "limits")
        for key in keys {
            _ = value(setting(key.name, in: table)) { setting throws(ConfigurationFault) in try key.apply(&result, setting) }
        }
        return result
    }

    private static var limitKeys: [LimitKey] {
        [
            .duration("header-timeout", \.header, .milliseconds(100)...(.hours(1))),
            .duration("body-idle-timeout", \.bodyIdle, .milliseconds(100)...(.hours(24))),
            LimitKey("minimum-body-rate") { limits, setting throws(ConfigurationFault) in
                limits.proxy.minimumBodyRate = setting.isOff ? 0 : try setting.size(in: 0...(1 << 30))
            },
            .duration("body-rate-grace", \.bodyRateGrace, .seconds(1)...(.hours(1))),
            .duration("connect-timeout", \.connect, .milliseconds(100)...(.minutes(5))),
            .duration("response-timeout", \.responseHead, .milliseconds(100)...(.hours(24))),
            .duration("keep-alive-timeout", \.keepAliveIdle, .milliseconds(100)...(.hours(24))),
            .duration("pool-idle-timeout", \.poolIdle, .milliseconds(100)...(.hours(24))),
            .duration("linger-timeout", \.linger, .milliseconds(100)...(.minutes(1))),
            LimitKey("upgraded-idle-timeout") { limits, setting throws(ConfigurationFault) in
                limits.proxy.upgradedIdle = setting.isOff ? nil : try setting.duration(in: .seconds(1)...(.hours(24)))
            },
            .duration("clock-interval", \.clockInterval, .milliseconds(10)...(.seconds(10))),
            .size("request-line-size", \.requestLineSize, 256...(1 << 20)),
            .size("header-field-size", \.headerFieldSize, 256...(1 << 20)),
            .size("header-list-size", \.headerListSize, 1024...(16 << 20)),
            .count("header-field-count", \.headerFieldCount, 16...10_000),
            .bound("requests-per-connection", \.requestsPerConnection, 1...1_000_000_000),
            .count("streams-per-connection", \.streamsPerConnection, 1...10_000),
            .size("stream-window", \.streamWindow, (64 << 10)...(64 << 20)),
            .size("connection-window", \.connectionWindow, (64 << 10)...(256 << 20)),
            .count("pool-size-per-target", \.poolIdlePerTarget, 0...65_536),
            .count("pool-size", \.poolIdleTotal, 0...65_536),
            .count("informational-responses", \.informationalResponses, 0...1000),
        ]
    }

    private static var gatewayLimitKeys: [LimitKey] {
        [
            .bound("requests-in-flight-per-client", \.requestsInFlightPerClient, 1...1_000_000),
            LimitKey("retry-after") { limits, setting throws(ConfigurationFault) in
                limits.proxy.retryAfter = Int(try setting.duration(in: .seconds(1)...(.hours(24))).nanoseconds / 1_000_000_000)
            },
            LimitKey("connections") { limits, setting throws(ConfigurationFault) in
                limits.connections = try setting.integer(in: 16...1_000_000)
            },
            LimitKey("connections-per-client") { limits, setting throws(ConfigurationFault) in
                limits.connectionsPerClient = try setting.integer(in: 1...1_000_000)
            },
        ]
    }
}
