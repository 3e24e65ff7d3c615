import Synchronization

/// What became of alerts, by channel.
package struct AlertCounters: Sendable, Equatable {
    package enum Outcome: String, CaseIterable, Sendable {
        case sent
        /// One attempt in vain; there may be more.
        case retried
        /// The last attempt in vain.
        case failed
        /// There was no room, or no time at the end.
        case dropped
    }

    private var counts: [AlertChannelKind: [Outcome: UInt64]] = [:]
    /// The channels that there are.
    package private(set) var channels: [AlertChannelKind]

    package init(channels: [AlertChannelKind]) { self.channels = channels }

    package subscript(channel: AlertChannelKind, outcome: Outcome) -> UInt64 { counts[channel]?[outcome] ?? 0 }

    mutating func count(_ channel: AlertChannelKind, _ outcome: Outcome) { counts[channel, default: [:]][outcome, default: 0] &+= 1 }
}

extension MetricsText {
    package mutating func add(alerts: AlertCounters) {
        guard !alerts.channels.isEmpty else { return }
        family(
            "kakuremichi_alerts_total", .counter,
            "Alerts about certificates by channel: sent, attempts that were repeated, given up, without room to wait.")
        for channel in alerts.channels {
            for outcome in AlertCounters.Outcome.allCases {
                sample(
                    "kakuremichi_alerts_total", [("channel", channel.rawValue), ("outcome", outcome.rawValue)], alerts[channel, outcome])
            }
        }
    }
}

/// Counters that several queues count in.
final class AlertCounterBox: Sendable {
    private let counters: Mutex<AlertCounters>

    init(channels: [AlertChannelKind]) { counters = Mutex(AlertCounters(channels: channels)) }

    var snapshot: AlertCounters { counters.withLock { $0 } }
    func count(_ channel: AlertChannelKind, _ outcome: AlertCounters.Outcome) { counters.withLock { $0.count(channel, outcome) } }
}
