import Inet
import Noise

/// A peer's sessions: the one in use, the one before it (for what is still under way), and one that we answered for and that
/// the initiator has not confirmed with its first data.
///
/// ```
///                 we are the initiator:  response ──► current        (the old current becomes previous)
///   we are the responder:  initiation ──► next ──first data──► current    (the same)
/// ```
/// Each new keypair drops `previous`. When two initiations cross, both sides end up with both keypairs, and both must choose
/// the same one: that of the side with the greater public key. The loser leaves the other's in `next` and moves to it with
/// the winner's first data; the winner marks the loser's as superseded. So no packet under way is lost, and later on there is
/// one initiator again, not two.
///
/// It does not know about timers or about who may use the keys.
///
/// Source: WG §6.2, §6.3; Linux `noise.c` add_new_keypair.
struct KeypairSlots: ~Copyable {
    enum Slot: Equatable {
        case previous
        case current
        case next
    }

    /// What the first data of a keypair in `next` brought about.
    enum OnConfirmation: Equatable {
        /// It is in use now.
        case promoted
        /// It is in `previous`: a better one is in use.
        case superseded
    }

    private var previous: Keypair?
    private var current: Keypair?
    private var next: Keypair?

    // The indices of the three, beside them: optionals of noncopyable values can be looked into only by consuming or changing.
    private var previousIndex: UInt32?
    private(set) var currentIndex: UInt32?
    private var nextIndex: UInt32?
    /// When `next` was made; the past if there is none.
    private var nextCreatedAt = Instant(nanoseconds: 0)

    /// The moment `current` may be used no longer; the past if there is none.
    private var currentRejectAt = Instant(nanoseconds: 0)

    var isEmpty: Bool { previousIndex == nil && currentIndex == nil && nextIndex == nil }

    /// Whether the peer will confirm a session that we answered for any moment now.
    func isAboutToBeConfirmed(now: Instant) -> Bool { nextIndex != nil && now < nextCreatedAt + Constants.rekeyTimeout }

    /// Whether something can be sealed.
    @inline(__always)
    func isReady(now: Instant) -> Bool { currentIndex != nil && now < currentRejectAt && !isCounterExhausted }

    private var isCounterExhausted: Bool {
        switch current {
        case .some(let keypair): keypair.sendCounter >= Constants.rejectAfterMessages
        case .none: false
        }
    }

    @inline(__always)
    func slot(ofLocalIndex index: UInt32) -> Slot? {
        if index == currentIndex { return .current }
        if index == previousIndex { return .previous }
        return index == nextIndex ? .next : nil
    }

    /// Takes the keys of our own handshake, whose first initiation left at `startedAt`; they are in use at once.
    ///
    /// - Parameter prefersPeer: whether the peer's handshake wins when both cross.
    mutating func installAsInitiator(
        _ keypair: consuming Keypair, startedAt: Instant, prefersPeer: Bool, indices: inout IndexTable
    ) {
        drop(.previous, indices: &indices)
        if !(prefersPeer && nextCreatedAt >= startedAt) { next?.isSuperseded = true }
        moveCurrentToPrevious()
        setCurrent(keypair)
    }

    /// Takes the keys of a handshake that we answered; they wait for confirmation.
    mutating func installAsResponder(_ keypair: consuming Keypair, indices: inout IndexTable) {
        drop(.previous, indices: &indices)
        drop(.next, indices: &indices)
        nextIndex = keypair.localIndex
        nextCreatedAt = keypair.createdAt
        next = consume keypair
    }

    /// The first authenticated data for `next` came.
    mutating func confirmNext(indices: inout IndexTable) -> OnConfirmation {
        guard let keypair = next.take() else { return .superseded }
        nextIndex = nil
        drop(.previous, indices: &indices)
        if keypair.isSuperseded {
            previousIndex = keypair.localIndex
            previous = consume keypair
            return .superseded
        }
        moveCurrentToPrevious()
        setCurrent(keypair)
        return .promoted
    }

    @inline(__always)
    mutating func open(_ slot: Slot, _ datagram: inout MutableRawSpan, counter: UInt64, now: Instant) -> Keypair.OnData {
        switch slot {
        case .current: current?.open(&datagram, counter: counter, now: now) ?? .dropped(.unknownReceiverIndex)
        case .previous: previous?.open(&datagram, counter: counter, now: now) ?? .dropped(.unknownReceiverIndex)
        case .next: next?.open(&datagram, counter: counter, now: now) ?? .dropped(.unknownReceiverIndex)
        }
    }

    /// Seals with `current`. Comes after `isReady`.
    ///
    /// - Returns: the range of the datagram, and whether it is time for new keys; `nil` if there is no session.
    @inline(__always)
    mutating func seal(_ buffer: inout MutableRawSpan, at offset: Int, length: Int, now: Instant) -> (Range<Int>, wantsRekey: Bool)? {
        guard let range = current?.seal(&buffer, at: offset, length: length) else { return nil }
        return (range, current?.asksForRekeyOnSend(now: now) ?? false)
    }

    /// Whether data that came just now asks for new keys: the initiator shortly before the end, once per keypair.
    @inline(__always)
    mutating func asksForRekeyOnReceive(now: Instant) -> Bool { current?.asksForRekeyOnReceive(now: now) ?? false }

    /// Wipes all sessions and frees their indices.
    mutating func wipe(indices: inout IndexTable) {
        drop(.previous, indices: &indices)
        drop(.current, indices: &indices)
        drop(.next, indices: &indices)
    }

    /// For tests: moves the counter of `current`.
    mutating func setSendCounter(_ counter: UInt64) { current?.sendCounter = counter }

    private mutating func moveCurrentToPrevious() {
        previous = current.take()
        previousIndex = currentIndex
        currentIndex = nil
    }

    private mutating func setCurrent(_ keypair: consuming Keypair) {
        currentIndex = keypair.localIndex
        currentRejectAt = keypair.rejectAt
        current = consume keypair
    }

    private mutating func drop(_ slot: Slot, indices: inout IndexTable) {
        switch slot {
        case .previous:
            if let index = previousIndex.take() { indices.remove(index) }
            previous = nil
        case .current:
            if let index = currentIndex.take() { indices.remove(index) }
            current = nil
        case .next:
            if let index = nextIndex.take() { indices.remove(index) }
            next = nil
        }
    }
}

extension Keypair {
    // These change nothing but the flag, and are mutating because an optional's payload is reached so only.
    fileprivate mutating func asksForRekeyOnSend(now: Instant) -> Bool { wantsRekeyOnSend(now: now) }

    fileprivate mutating func asksForRekeyOnReceive(now: Instant) -> Bool {
        guard isInitiator, now >= rekeyOnReceiveAt, !hasAskedForRekeyOnReceive else { return false }
        hasAskedForRekeyOnReceive = true
        return true
    }
}
