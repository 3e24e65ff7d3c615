import Inet

/// Fixed offsets of the two handshake messages, in bytes.
///
///     initiation, 148                          response, 92
///     0    type = 1   reserved 0 0 0           0    type = 2   reserved 0 0 0
///     4    sender index, LE32                  4    sender index, LE32
///     8    ephemeral, 32                       8    receiver index, LE32
///     40   static, 32 + tag 16                 12   ephemeral, 32
///     88   timestamp, 12 + tag 16              44   empty, 0 + tag 16
///     116  mac1, 16                            60   mac1, 16
///     132  mac2, 16                            76   mac2, 16
///
/// Source: WG §5.4.2, §5.4.3.
public enum HandshakeMessage {
    /// Bytes of an initiation.
    public static let initiationByteCount = 148
    /// Bytes of a response.
    public static let responseByteCount = 92
    /// Bytes of a cookie reply.
    public static let cookieReplyByteCount = 64

    enum Initiation {
        static let type: UInt32 = 1
        static let sender = 4
        /// Ephemeral, static and timestamp are the first message of the Noise handshake.
        static let noiseMessage = 8..<116
    }

    enum Response {
        static let type: UInt32 = 2
        static let sender = 4
        static let receiver = 8
        /// Ephemeral and empty are its second message.
        static let noiseMessage = 12..<60
    }
}
