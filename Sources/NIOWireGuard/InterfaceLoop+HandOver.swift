import NIOCore
import WGUserspace

/// The only thing that loops of one interface say to each other: what came to one of them and is for a peer of another. The kernel
/// finds the loop of nearly every datagram; initiations do not name it, and come to the first.
extension InterfaceLoop {
    /// What goes from loop to loop.
    enum Parcel: Sendable {
        /// A response, a cookie reply or data, as it came.
        case message([UInt8], Arrival)
        /// An initiation, judged and read as far as its static key.
        case initiation(HandedInitiation)
    }

    func handOver(_ message: RawSpan, _ arrival: Arrival, to loop: Int) {
        let bytes = message.withUnsafeBytes { Array($0) }
        post(.message(bytes, arrival), to: loop, isInitiation: false)
    }

    /// Initiations for peers of other loops that were read just now.
    func handOverInitiations() {
        while let handOver = core.device.pollHandOver() { post(.initiation(handOver.initiation), to: handOver.loop, isInitiation: true) }
    }

    private func post(_ parcel: Parcel, to loop: Int, isInitiation: Bool) {
        // None are left when the interface closes.
        guard siblings.indices.contains(loop) else { return }
        let sibling = siblings[loop]
        if !sibling.inbox.post(parcel, deliver: { sibling.take($0) }) {
            core.device.handOverFailed(isInitiation: isInitiation, now: SystemEdges.now)
        }
    }

    private func take(_ parcels: [Parcel]) {
        guard !isClosed else { return }
        for parcel in parcels {
            switch parcel {
            case .message(var bytes, let arrival):
                bytes.withUnsafeMutableBytes {
                    var span = MutableRawSpan(_unsafeBytes: $0)
                    receive(&span, arrival)
                }
            case .initiation(let handed): core.device.receive(handed)
            }
        }
        scheduleTurn()
    }

    /// Parcels that wait for one loop: what is read in eight batches of single datagrams.
    static let maximumParcels = 1024
}
