import NIOSSL
import Synchronization

/// The challenges that this process answers now: key authorizations by token, and certificates by name. Thread-safe; event loops look here.
package final class ChallengeBoard: Sendable {
    private struct State: Sendable {
        var keyAuthorizations: [String: String] = [:]
        var contexts: [String: (keyAuthorization: String, context: NIOSSLContext)] = [:]
    }

    private let state = Mutex(State())

    package init() {}

    /// RFC 8555 §8.3.
    package func keyAuthorization(forToken token: String) -> String? { state.withLock { $0.keyAuthorizations[token] } }

    package func set(keyAuthorization: String?, forToken token: String) {
        state.withLock { $0.keyAuthorizations[token] = keyAuthorization }
    }

    /// RFC 8737 §3: what a validation of this name is shown; the name is normalised.
    package func context(for name: String) -> NIOSSLContext? { state.withLock { $0.contexts[name]?.context } }

    package func set(context: NIOSSLContext, of keyAuthorization: String, for name: String) {
        state.withLock { $0.contexts[name] = (keyAuthorization, context) }
    }

    /// - Returns: whether it was still this one; another order's stays.
    @discardableResult
    package func removeContext(of keyAuthorization: String, for name: String) -> Bool {
        state.withLock { state in
            guard state.contexts[name]?.keyAuthorization == keyAuthorization else { return false }
            state.contexts[name] = nil
            return true
        }
    }
}
