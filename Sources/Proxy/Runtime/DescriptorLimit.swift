import Glibc

/// How many files and sockets the process may have open.
package enum DescriptorLimit {
    /// Kept for what is not a client's connection: tunnel, state files, certificates, admin socket, event loops.
    package static let reserve = 128

    /// Raises the soft limit to the hard one, which needs no permission: the usual soft limit of 1,024 is smaller than a crowd.
    /// - Returns: the limit in force.
    @discardableResult
    package static func raise() -> Int {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return 1024 }
        let soft = limit.rlim_cur
        if soft < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            if setrlimit(resource, &limit) != 0 { limit.rlim_cur = soft }
        }
        return Int(clamping: limit.rlim_cur)
    }
}

extension ConnectionLimiter {
    /// - Parameters:
    ///   - descriptors: of the process; no client alone may use up more than half of what is left for clients, unless it is told to.
    ///   - connections: as configured; cut to what there is room for.
    ///   - perClient: as configured.
    package convenience init(descriptors: Int, connections: Int? = nil, perClient: Int? = nil) {
        let (maximum, maximumPerClient) = Self.bounds(descriptors: descriptors, connections: connections, perClient: perClient)
        self.init(maximum: maximum, maximumPerClient: maximumPerClient)
    }

    static func bounds(descriptors: Int, connections: Int?, perClient: Int?) -> (maximum: Int, maximumPerClient: Int) {
        let maximum = min(connections ?? defaultMaximum, max(16, descriptors - DescriptorLimit.reserve))
        return (maximum, perClient ?? min(defaultMaximumPerClient, max(1, maximum / 2)))
    }
}
