import NIOConcurrencyHelpers
import NIOCore

/// A queue into one event loop with room for so many messages; what finds none is refused. However many are posted before the loop
/// comes round, it is woken once.
package final class BoundedMailbox<Message: Sendable>: Sendable {
    private let messages = NIOLockedValueBox<[Message]>([])
    private let eventLoop: any EventLoop
    private let capacity: Int

    /// - Parameter capacity: messages that wait, at most.
    package init(into eventLoop: any EventLoop, capacity: Int) {
        self.eventLoop = eventLoop
        self.capacity = capacity
    }

    /// Queues `message`; `deliver` runs on the mailbox's loop with all that are queued, in order.
    /// - Returns: `false` if there was no room.
    package func post(_ message: Message, deliver: @escaping @Sendable ([Message]) -> Void) -> Bool {
        let count = messages.withLockedValue { messages in
            guard messages.count < capacity else { return 0 }
            messages.append(message)
            return messages.count
        }
        // The first one wakes the loop; the others are there when it comes.
        if count == 1 {
            eventLoop.execute {
                deliver(
                    self.messages.withLockedValue { messages in
                        defer { messages = [] }
                        return messages
                    })
            }
        }
        return count > 0
    }
}
