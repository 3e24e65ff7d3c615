import NIOCore

/// Linux numbers, linux/tcp.h; NIO has no names for them.
extension NIOBSDSocket.Option {
    static let keepaliveIdle = NIOBSDSocket.Option(rawValue: 4)
    static let keepaliveInterval = NIOBSDSocket.Option(rawValue: 5)
    static let keepaliveCount = NIOBSDSocket.Option(rawValue: 6)
    /// Bytes that may wait in the system unsent.
    static let unsentLowWater = NIOBSDSocket.Option(rawValue: 25)
}

enum TCPOption {
    /// A socket's buffer grows to megabytes, and the system says that there is room only when a third of it is: with a slow reader nothing
    /// would seem to move for minutes.
    static let unsent: SocketOptionValue = 128 * 1024
}
