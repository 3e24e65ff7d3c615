import NIOConcurrencyHelpers
import NIOCore

/// A queue into one event loop. However many messages are posted before the loop comes round, it is woken once.
/// The bound is the sender's: a channel posts no more bytes than its write mark, no more reads than one.
final class Mailbox<Message: Sendable>: Sendable {
    private struct State {
        var messages: [Message] = []
        var isScheduled = false
    }

    private let state = NIOLockedValueBox(State())
    private let eventLoop: any EventLoop

    init(into eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    /// Queues `message`; `deliver` runs on the mailbox's loop for every queued message, in order.
    func post(_ message: Message, deliver: @escaping @Sendable (Message) -> Void) {
        let mustWake = state.withLockedValue { state in
            state.messages.append(message)
            defer { state.isScheduled = true }
            return !state.isScheduled
        }
        guard mustWake else { return }
        eventLoop.execute {
            let messages = self.state.withLockedValue { state in
                state.isScheduled = false
                defer { state.messages = [] }
                return state.messages
            }
            for message in messages { deliver(message) }
        }
    }
}
