/// The states of a connection: those of RFC 9293 §3.3.2. LISTEN is a `Listener`; CLOSED is a connection whose ID awaits its last event.
///
/// ```
///              connect                       SYN to a listener
///  CLOSED ───────────────► SYN-SENT ──SYN──► SYN-RECEIVED
///                             │ SYN,ACK           │ ACK
///                             └────► ESTABLISHED ◄┘
///                     close │                 │ FIN
///                      FIN-WAIT-1          CLOSE-WAIT
///               FIN ┌───────┤ ACK             │ close
///               CLOSING   FIN-WAIT-2       LAST-ACK
///                   │ ACK   │ FIN             │ ACK
///                   └─► TIME-WAIT          CLOSED
/// ```
/// The URG pointer is not interpreted: urgent data is delivered in line (RFC 9293 §3.8.5 allows nothing else to be useful).
public enum TCPState: Int, CaseIterable, Sendable, Equatable {
    case synSent
    case synReceived
    case established
    case finWait1
    case finWait2
    case closing
    case closeWait
    case lastAck
    /// The compact record in `TimeWaitTable` answers the peer; the connection only keeps unread bytes.
    case timeWait
    case closed

    /// The protocol has ended: no segment will be sent or accepted any more.
    package var isTerminal: Bool { self == .closed || self == .timeWait }

    /// Both SYNs have been exchanged.
    package var isSynchronized: Bool {
        switch self {
        case .synSent, .synReceived, .closed: false
        case .established, .finWait1, .finWait2, .closing, .closeWait, .lastAck, .timeWait: true
        }
    }

    /// RFC 9293 §3.10.7.4, seventh: segment text is taken only while the peer has not sent its FIN.
    package var takesText: Bool { self == .established || self == .finWait1 || self == .finWait2 }

    /// Our FIN has been queued or sent.
    package var hasClosedWrite: Bool {
        switch self {
        case .finWait1, .finWait2, .closing, .lastAck, .timeWait, .closed: true
        case .synSent, .synReceived, .established, .closeWait: false
        }
    }
}
