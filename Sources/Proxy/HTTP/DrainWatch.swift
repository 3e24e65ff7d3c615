import NIOCore

/// Waits until a channel has handed its last bytes to the system. NIO closes a channel whose input has ended without waiting for them,
/// and a reader may take long over what two buffers hold: it is cut off only if it takes nothing at all for a time.
final class DrainWatch: ClockWatcher {
    private let channel: any Channel
    private let clock: ConnectionClock
    private let stall: TimeAmount
    private let onDrained: () -> Void
    private var buffered: Int
    private var stalledAt: NIODeadline
    private(set) var deadline: NIODeadline

    /// - Parameters:
    ///   - stall: the channel is closed when it moves nothing for so long.
    ///   - onDrained: called at once if there is nothing to wait for.
    static func start(_ channel: any Channel, clock: ConnectionClock, stall: TimeAmount, onDrained: @escaping () -> Void) {
        let buffered = Self.buffered(channel)
        if buffered == 0 { onDrained() } else { clock.add(DrainWatch(channel, clock, stall, buffered, onDrained)) }
    }

    private init(_ channel: any Channel, _ clock: ConnectionClock, _ stall: TimeAmount, _ buffered: Int, _ onDrained: @escaping () -> Void)
    {
        self.channel = channel
        self.clock = clock
        self.stall = stall
        self.buffered = buffered
        self.onDrained = onDrained
        stalledAt = clock.deadline(after: stall)
        deadline = clock.deadline(after: .zero)
    }

    func deadlineReached() {
        let left = Self.buffered(channel)
        if left != buffered { stalledAt = clock.deadline(after: stall) }
        buffered = left
        if left == 0 || !channel.isActive {
            clock.remove(self)
            onDrained()
        } else if stalledAt <= clock.now {
            clock.remove(self)
            channel.close(promise: nil)
        } else {
            deadline = clock.deadline(after: .zero)
        }
    }

    /// Bytes that the system has not taken yet.
    static func buffered(_ channel: (any Channel)?) -> Int {
        (try? channel?.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }
}
