/// Takes over what has changed in the configuration of a running agent, and nothing else. A configuration that cannot be used changes
/// nothing.
actor AgentReload {
    private let reload: Reload<AgentConfiguration>
    private let started: AgentConfiguration
    private var current: AgentConfiguration
    private let running: RunningInterface
    private let front: AgentFront

    init(
        _ configuration: AgentConfiguration, load: @escaping Reload<AgentConfiguration>.Load, running: RunningInterface, front: AgentFront
    ) {
        reload = Reload(load: load, logger: running.logger)
        started = configuration
        current = configuration
        self.running = running
        self.front = front
    }

    func run() async {
        guard var new = await BlockingWork.run({ [reload] in reload.read() }), !Task.isCancelled else { return }
        let kept: String?
        (new.interface, kept) = new.interface.adapted(
            to: started.interface, current: current.interface, key: running.interface.publicKey)
        let old = AgentNode.withKeepalive(current.interface).peers
        let peers = PeerChanges(from: old, to: AgentNode.withKeepalive(new.interface).peers)
        let applied = await running.apply(peers, to: old)
        if let failure = applied.failure {
            // The next reload begins with what runs.
            current.interface.peers = applied.peers
            return reload.keep("\(failure)")
        }
        var changes = ["\(front.update(new.targets, within: AgentNode.drainLimit))"]
        if !peers.isEmpty { changes.append("\(peers)") }
        current = new
        reload.tell(kept.map { [$0] } ?? [])
        reload.finish(changes, fixed: FixedSettings.differences(started, new))
    }
}
