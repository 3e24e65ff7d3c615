import Inet
import NIOCore
import Noise
import Synchronization
import WGUserspace

/// A running capture of an interface's inner packets, which are not encrypted, as pcapng. Safe to use from any thread.
///
/// Packets are copied into a buffer of at most ``bufferLimit`` bytes and handed over in batches; what the reader is too slow for is
/// not captured and counted. The tunnel never waits for a capture.
///
/// Unchecked: its mutable state is touched on the interface's first loop only.
public final class PacketCapture: @unchecked Sendable {
    /// What is captured, and how much of it.
    public struct Options: Sendable {
        /// All of them must match; none takes every packet.
        public var filters: [CaptureFilter] = []
        /// Packets, then the capture ends.
        public var maximumPackets: UInt64?
        /// Bytes of the whole stream, then the capture ends.
        public var maximumBytes = PacketCapture.defaultBytes
        /// Then the capture ends.
        public var duration = PacketCapture.defaultDuration
        /// Bytes kept of a packet; at least 1.
        public var snapLength = PacketCapture.largestPacket

        public init() {}
    }

    /// Why a capture ended.
    public enum End: String, Sendable {
        case count, size, duration
        /// Its reader asked for it.
        case stopped
        /// The interface was closed.
        case interfaceClosed
    }

    /// Packets since the capture began.
    public struct Counts: Equatable, Sendable {
        /// That passed.
        public var seen: UInt64 = 0
        /// Of these, that met the filters.
        public var matched: UInt64 = 0
        /// Of these, that found room.
        public var written: UInt64 = 0
        /// And those that did not.
        public var dropped: UInt64 = 0

        public init() {}
    }

    /// What a capture hands over, on the interface's first loop.
    public enum Output: Sendable {
        /// The next bytes; they hold room in the buffer until ``PacketCapture/release(_:)``.
        case bytes([UInt8])
        /// Nothing follows.
        case end(End, Counts)
    }

    let tap: PacketTap
    /// All that packets are captured from; the first one hands them over.
    private let loops: [InterfaceLoop]
    private let eventLoop: any EventLoop
    private var receive: ((Output) -> Void)?
    private let isHandOverScheduled = Atomic(false)
    private var timeout: Scheduled<Void>?

    init(_ options: Options, application: String, loops: [InterfaceLoop]) {
        self.loops = loops
        eventLoop = loops[0].eventLoop
        tap = PacketTap(options, application: application, interface: "wireguard")
        tap.onBytes = { [unowned self] in scheduleHandOver() }
        timeout = eventLoop.scheduleTask(in: .nanoseconds(options.duration.inNanoseconds)) { [self] in finish(.duration) }
    }

    /// Begins to hand over. To be called once; what passed since the capture was made comes first.
    /// - Parameter receive: called on the interface's first loop; must not block.
    public func deliver(to receive: @escaping @Sendable (Output) -> Void) {
        eventLoop.execute { [self] in
            self.receive = receive
            handOver()
        }
    }

    /// The reader has `byteCount` more of the bytes that it was given.
    public func release(_ byteCount: Int) {
        eventLoop.execute { [self] in tap.release(byteCount) }
    }

    /// Ends the capture. What was captured still comes, and ``Output/end(_:_:)``.
    public func stop() {
        eventLoop.execute { [self] in finish(.stopped) }
    }

    /// On the interface's loop.
    func finish(_ end: End) {
        tap.finish(end, time: SystemEdges.wallTime.sinceEpoch)
        handOver()
    }

    /// Packets of some milliseconds go together: they cost one wake-up of the reader.
    private func scheduleHandOver() {
        guard !isHandOverScheduled.exchange(true, ordering: .relaxed) else { return }
        eventLoop.scheduleTask(in: Self.patience) { [self] in
            isHandOverScheduled.store(false, ordering: .relaxed)
            handOver()
        }
    }

    private func handOver() {
        if tap.end != nil { detach() }
        guard let receive else { return }
        if tap.waitingBytes > 0 { receive(.bytes(tap.take())) }
        guard let end = tap.end else { return }
        self.receive = nil
        receive(.end(end, tap.counts))
    }

    private func detach() {
        timeout?.cancel()
        timeout = nil
        loops[0].detach(self)
        for loop in loops.dropFirst() { loop.eventLoop.execute { [self] in loop.detach(self) } }
    }

    /// Bytes that may wait for a slow reader: some 30 ms of a gigabit.
    public static let bufferLimit = 4 << 20
    /// Captures of one interface at a time.
    public static let maximumCaptures = 4
    /// 256 MiB.
    public static let defaultBytes = 256 << 20
    /// Ten minutes.
    public static let defaultDuration = Duration.seconds(600)
    /// The largest IPv4 packet, and the largest of IPv6 that is not a jumbogram but for its header.
    public static let largestPacket = 65_575
    private static let patience = TimeAmount.milliseconds(10)
}

/// Why a capture cannot begin.
public enum PacketCaptureError: Error, Equatable, Sendable, CustomStringConvertible {
    case tooMany
    case interfaceClosed

    public var description: String {
        switch self {
        case .tooMany: "\(PacketCapture.maximumCaptures) captures run already; end one of them first"
        case .interfaceClosed: "the interface is closed"
        }
    }
}

extension WireGuardInterface {
    /// Captures inner packets, which are not encrypted, until a limit of `options` or ``PacketCapture/stop()``.
    /// - Parameter application: what the file says of its writer.
    /// - Throws: (the future fails with) `PacketCaptureError`.
    public func capture(_ options: PacketCapture.Options, application: String) -> EventLoopFuture<PacketCapture> {
        eventLoop.submit {
            let capture = PacketCapture(options, application: application, loops: self.members.map(\.loop))
            do {
                try self.members[0].loop.attach(capture)
            } catch {
                capture.finish(.stopped)
                throw error
            }
            return capture
        }.flatMap { capture in
            // The first one decides; the others have room for what it has room for.
            self.onEach { member in if member.loop.share.index > 0 { try? member.loop.attach(capture) } }.map { _ in capture }
        }
    }

    /// Whether packets pass by a capture on the first loop. On that loop; for tests.
    package var hasTaps: Bool { members[0].loop.core.taps != nil }
}

extension InterfaceLoop {
    fileprivate func attach(_ capture: PacketCapture) throws(PacketCaptureError) {
        guard !isClosed else { throw .interfaceClosed }
        guard share.index > 0 || captures.count < PacketCapture.maximumCaptures else { throw .tooMany }
        captures.append(capture)
        let taps = core.taps ?? PacketTaps()
        taps.add(capture.tap)
        core.taps = taps
    }

    fileprivate func detach(_ capture: PacketCapture) {
        captures.removeAll { $0 === capture }
        core.taps?.remove(capture.tap)
        if captures.isEmpty { core.taps = nil }
    }
}
