import Inet
import Noise

/// The keys of one session and what guards their use: age, counters, the replay window. Wiped when the value goes.
///
/// Source: WG §5.4.6, §6.1, §6.2.
struct Keypair: ~Copyable {
    /// How opening a data message went.
    enum OnData: Equatable {
        case opened
        case dropped(DropReason)
    }

    /// How the peer addresses us.
    let localIndex: UInt32
    /// How we address the peer.
    let remoteIndex: UInt32
    /// Whether we sent the initiation; that side renews.
    let isInitiator: Bool
    let createdAt: Instant
    /// When it may be used no longer, by REJECT-AFTER-TIME. All three are computed once, not per packet.
    let rejectAt: Instant
    let rekeyOnSendAt: Instant
    let rekeyOnReceiveAt: Instant

    /// Whether receiving has asked for new keys already: once per keypair (WG §6.2).
    var hasAskedForRekeyOnReceive = false
    /// A crossing handshake's better keypair is in use; this one only receives what is still under way.
    var isSuperseded = false
    /// The counter of the next packet.
    var sendCounter: UInt64 = 0

    private let keys: TransportKeys
    private var window = ReplayWindow()

    init(keys: consuming TransportKeys, localIndex: UInt32, remoteIndex: UInt32, isInitiator: Bool, now: Instant) {
        self.keys = keys
        self.localIndex = localIndex
        self.remoteIndex = remoteIndex
        self.isInitiator = isInitiator
        createdAt = now
        rejectAt = now + Constants.rejectAfterTime
        rekeyOnSendAt = now + Constants.rekeyAfterTime
        rekeyOnReceiveAt = now + Constants.rekeyOnReceiveAfterTime
    }

    /// Whether sending has to ask for new keys: too many messages for either side, or too long for the initiator.
    func wantsRekeyOnSend(now: Instant) -> Bool {
        (isInitiator && now >= rekeyOnSendAt) || sendCounter > Constants.rekeyAfterMessages
    }

    /// Writes the header at `offset` and seals the `length` bytes behind it. The counter moves on; whether age and counter
    /// allow it was asked before.
    ///
    /// - Returns: the range of the datagram.
    mutating func seal(_ buffer: inout MutableRawSpan, at offset: Int, length: Int) -> Range<Int> {
        let plaintext = offset + DataMessage.headerByteCount..<offset + DataMessage.headerByteCount + length
        DataMessage.writeHeader(into: &buffer, at: offset, receiverIndex: remoteIndex, counter: sendCounter)
        keys.seal(&buffer, plaintext: plaintext, counter: sendCounter)
        sendCounter &+= 1
        return offset..<plaintext.upperBound + DataMessage.tagByteCount
    }

    /// Opens the data message that fills `datagram`, in place: age, counter limit, authenticity, and only then the window.
    mutating func open(_ datagram: inout MutableRawSpan, counter: UInt64, now: Instant) -> OnData {
        guard now < rejectAt else { return .dropped(.expiredKeypair) }
        guard counter < Constants.rejectAfterMessages else { return .dropped(.counterLimit) }
        guard keys.open(&datagram, ciphertext: DataMessage.headerByteCount..<datagram.byteCount, counter: counter) else {
            return .dropped(.dataNotAuthentic)
        }
        guard window.accept(counter) else { return .dropped(.replayedCounter) }
        return .opened
    }
}
