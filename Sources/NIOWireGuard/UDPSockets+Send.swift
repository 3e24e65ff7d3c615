import CSocketShim
import Inet
import NIOCore
import WGUserspace

/// How datagrams leave that lie back to back in one buffer.
package struct Departure: Equatable, Sendable {
    package var endpoint: SocketEndpoint
    /// The local address to send from; `nil` is the kernel's choice.
    package var source: IPAddress?
    /// Bytes of each datagram, the last one possibly shorter; 0 if there is only one.
    package var segmentSize: Int
    /// Whether the kernel is to cut them apart (UDP_SEGMENT), or gets them one by one (sendmmsg).
    package var isCutByKernel = true
    /// The outer DSCP and ECN byte.
    package var trafficClass: UInt8
    /// Whose they are, to tell about a source address that was refused.
    package var peer: PeerID?

    package init(
        to endpoint: SocketEndpoint, from source: IPAddress? = nil, segmentSize: Int = 0, trafficClass: UInt8 = 0, peer: PeerID? = nil
    ) {
        self.endpoint = endpoint
        self.source = source
        self.segmentSize = segmentSize
        self.trafficClass = trafficClass
        self.peer = peer
    }
}

extension UDPSockets {
    /// `sendmsg` or `sendmmsg`: descriptor, bytes, how; the bytes sent, or -errno.
    package typealias SendCall = (CInt, UnsafeRawBufferPointer, Departure) -> Int

    /// What the kernel's full buffer did not take.
    struct HeldBatch {
        let bytes: [UInt8]
        let departure: Departure
    }

    /// Whether the kernel's buffer is full: then nothing may be sent until `unblocked` is called.
    package var isBlocked: Bool { !held.isEmpty }

    /// Sends `bytes`, which are whole datagrams of `departure.segmentSize` bytes each, the last one possibly shorter.
    package func send(_ bytes: UnsafeRawBufferPointer, _ departure: Departure) {
        eventLoop.preconditionInEventLoop()
        let size = departure.segmentSize > 0 ? departure.segmentSize : max(1, bytes.count)
        let count = (bytes.count + size - 1) / size
        guard !isBlocked else { return hold(bytes, departure) }
        guard let socket = self[departure.endpoint.address.family] else {
            counters.sendErrors += count
            return
        }
        var departure = departure
        if count == 1 { departure.segmentSize = 0 }
        var isRefusedAsBatch = false
        if count > 1, supportsSegmentation {
            let result = call(socket.descriptor, bytes, &departure)
            if result >= 0 {
                counters.datagramsSent += count
                refusedBatches = 0
                hasSentBatch = true
                return
            }
            switch CInt(clamping: -result) {
            case Self.wouldBlock: return hold(bytes, departure)
            // No UDP_SEGMENT here, or not for this destination. Datagrams by themselves will tell.
            case Self.inputOutputError, Self.invalidArgument: isRefusedAsBatch = true
            case Self.messageTooLong: break
            default:
                counters.sendErrors += count
                return
            }
        }
        guard sendEach(bytes, of: size, departure, on: socket.descriptor), isRefusedAsBatch else { return }
        refusedBatches += 1
        // A destination with a small MTU refuses batches too, and others may take them.
        guard !hasSentBatch || refusedBatches == Self.refusalsForGood else { return }
        logger.notice("The kernel refuses UDP_SEGMENT; datagrams are sent one by one")
        supportsSegmentation = false
    }

    /// - Returns: whether the kernel took them all.
    private func sendEach(_ bytes: UnsafeRawBufferPointer, of size: Int, _ departure: Departure, on descriptor: CInt) -> Bool {
        var each = departure
        each.isCutByKernel = false
        var hasError = false
        var rest = bytes
        while !rest.isEmpty {
            let result = call(descriptor, rest, &each)
            if result > 0 {
                counters.datagramsSent += (result + size - 1) / size
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(result))
            } else if CInt(clamping: -result) == Self.wouldBlock {
                hold(rest, departure)
                return false
            } else {
                hasError = true
                counters.sendErrors += 1
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(size))
            }
        }
        return !hasError
    }

    /// An address that the machine has lost must not keep the peer unreachable: without it the kernel chooses.
    private func call(_ descriptor: CInt, _ bytes: UnsafeRawBufferPointer, _ departure: inout Departure) -> Int {
        counters.sendCalls += 1
        let result = sendCall(descriptor, bytes, departure)
        guard result < 0, departure.source != nil else { return result }
        switch CInt(clamping: -result) {
        case Self.invalidArgument, Self.networkUnreachable, Self.addressNotAvailable: break
        default: return result
        }
        var chosenByKernel = departure
        chosenByKernel.source = nil
        counters.sendCalls += 1
        let second = sendCall(descriptor, bytes, chosenByKernel)
        // Whatever it was, it was not the source.
        guard second >= 0 else { return second }
        handlers?.sourceRefused(departure)
        departure = chosenByKernel
        return second
    }

    private func hold(_ bytes: UnsafeRawBufferPointer, _ departure: Departure) {
        held.append(HeldBatch(bytes: Array(bytes), departure: departure))
        guard held.count == 1 else { return }
        eventLoop.scheduleTask(in: Self.blockedPause) { [self] in
            let batches = held
            held = []
            for batch in batches { batch.bytes.withUnsafeBytes { send($0, batch.departure) } }
            if !isBlocked { handlers?.unblocked() }
        }
    }

    package static func systemSend(_ descriptor: CInt, _ bytes: UnsafeRawBufferPointer, _ departure: Departure) -> Int {
        var to = departure.endpoint.socketForm
        let size = UInt16(clamping: departure.segmentSize)
        func send(_ source: UnsafePointer<csocket_endpoint>?) -> Int {
            departure.isCutByKernel || size == 0
                ? csocket_send(descriptor, &to, source, bytes.baseAddress, bytes.count, size, departure.trafficClass)
                : csocket_send_each(descriptor, &to, source, bytes.baseAddress, bytes.count, size, departure.trafficClass)
        }
        guard let source = departure.source, source.family == departure.endpoint.address.family else { return send(nil) }
        var from = SocketEndpoint(source, port: 0).socketForm
        return withUnsafePointer(to: &from) { send($0) }
    }

    /// Batches in a row that were refused though their datagrams by themselves were not.
    private static let refusalsForGood = 8
    /// The kernel's buffer drains some hundred kilobytes meanwhile.
    private static let blockedPause = TimeAmount.microseconds(200)
    private static let inputOutputError: CInt = 5
    private static let wouldBlock: CInt = 11
    private static let invalidArgument: CInt = 22
    private static let messageTooLong: CInt = 90
    private static let addressNotAvailable: CInt = 99
    private static let networkUnreachable: CInt = 101
}
