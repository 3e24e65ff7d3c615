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
    /// - Parameter descriptors: of the process; no client alone may use up more than half of what is left for clients.
    package convenience init(descriptors: Int) {
        let room = max(16, descriptors - DescriptorLimit.reserve)
        let maximum = min(Self.defaultMaximum, room)
        self.init(maximum: maximum, maximumPerClient: min(Self.defaultMaximumPerClient, maximum / 2))
    }
}
